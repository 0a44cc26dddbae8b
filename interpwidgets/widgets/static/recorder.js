// A drawing context that writes SVG: what a canvas shows, as shapes and text that stay sharp at any size.
import { vector } from "./dom.js";

/** Pixels of the page that a cell of an image must have to become a shape of its own. */
const SMALLEST_CELL = 5;
/** Cells of one image that may. */
const MOST_SHAPES = 8000;

/**
 * @param {(kind: string) => string} name gives an id that no other element of the picture has
 * @returns {{context: CanvasRenderingContext2D, group: SVGElement}} what is drawn in the context becomes elements of the group
 */
export function recorder(name) {
  const root = vector("g", {});
  let group = root;
  /** @type {SVGElement[]} */
  const groups = [];
  let path = "";
  // A real context keeps the state: colours, fonts, transforms, and what save and restore do to them.
  const real = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
  const placed = () => {
    const { a, b, c, d, e, f } = real.getTransform();
    return a === 1 && !b && !c && d === 1 && !e && !f ? {} : { transform: `matrix(${[a, b, c, d, e, f].map(short).join(" ")})` };
  };
  const faded = () => (real.globalAlpha < 1 ? { opacity: real.globalAlpha } : {});
  /** @param {string} tag @param {Record<string, string | number | undefined>} props @param {...string} children */
  const add = (tag, props, ...children) => group.append(vector(tag, { ...props, ...faded(), ...placed() }, ...children));
  const stroked = () => ({ fill: "none", stroke: String(real.strokeStyle), "stroke-width": real.lineWidth });
  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  const box = (x, y, width, height) => ({ x: short(x), y: short(y), width: short(width), height: short(height) });

  /** @type {Record<string, (...values: any[]) => void>} */
  const draws = {
    save() {
      real.save();
      groups.push(group);
    },
    restore() {
      real.restore();
      group = groups.pop() ?? root;
    },
    beginPath: () => void (path = ""),
    moveTo: (x, y) => void (path += `M${short(x)} ${short(y)}`),
    lineTo: (x, y) => void (path += `L${short(x)} ${short(y)}`),
    rect: (x, y, width, height) => void (path += `M${short(x)} ${short(y)}h${short(width)}v${short(height)}h${short(-width)}z`),
    fill: () => add("path", { d: path, fill: String(real.fillStyle) }),
    stroke: () => add("path", { d: path, ...stroked() }),
    fillRect: (x, y, width, height) => add("rect", { ...box(x, y, width, height), fill: String(real.fillStyle) }),
    strokeRect: (x, y, width, height) => add("rect", { ...box(x, y, width, height), ...stroked() }),
    clearRect() {},
    clip() {
      const id = name("clip");
      group.append(vector("clipPath", { id }, vector("path", { d: path, ...placed() })));
      const inside = vector("g", { "clip-path": `url(#${id})` });
      group.append(inside);
      group = inside;
    },
    fillText(text, x, y) {
      const { family, size, weight } = fontOf(real.font);
      // Not every program that draws SVG knows dominant-baseline.
      const down = real.textBaseline === "middle" ? 0.35 * size : 0;
      const anchor = { center: "middle", right: "end", end: "end" }[/** @type {string} */ (real.textAlign)] ?? "start";
      add("text", { x: short(x), y: short(y + down), fill: String(real.fillStyle), "font-family": family, "font-size": size, "text-anchor": anchor,
        ...(weight ? { "font-weight": weight } : {}), style: "white-space:pre" }, text);
    },
    /** @param {HTMLCanvasElement} image @param {...number} at */
    drawImage(image, ...at) {
      const [sx, sy, sw, sh, x, y, width, height] = at.length === 8 ? at : [0, 0, image.width, image.height, ...at];
      if (sw < 1 || sh < 1) return;
      const part = document.createElement("canvas");
      [part.width, part.height] = [sw, sh].map(Math.round);
      const pixels = /** @type {CanvasRenderingContext2D} */ (part.getContext("2d", { willReadFrequently: true }));
      pixels.drawImage(image, sx, sy, sw, sh, 0, 0, part.width, part.height);
      const cells = !real.imageSmoothingEnabled && Math.min(width / sw, height / sh) >= SMALLEST_CELL && sw * sh <= MOST_SHAPES;
      if (cells) return shapes(pixels.getImageData(0, 0, part.width, part.height), x, y, width, height);
      add("image", { ...box(x, y, width, height), href: part.toDataURL(), preserveAspectRatio: "none", ...(real.imageSmoothingEnabled ? {} : { style: "image-rendering:pixelated" }) });
    },
  };
  /** @param {ImageData} image @param {number} x @param {number} y @param {number} width @param {number} height */
  function shapes({ data, width: cols, height: rows }, x, y, width, height) {
    const [wide, tall] = [width / cols, height / rows];
    for (let row = 0; row < rows; row++) {
      for (let col = 0; col < cols; col++) {
        const [red, green, blue, alpha] = data.subarray(4 * (row * cols + col), 4 * (row * cols + col) + 4);
        if (alpha) add("rect", { ...box(x + col * wide, y + row * tall, wide, tall), fill: `rgb(${red},${green},${blue})` });
      }
    }
  }

  const context = new Proxy(real, {
    get(target, key) {
      if (typeof key === "string" && key in draws) return draws[key];
      const value = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set: (target, key, value) => Reflect.set(target, key, value),
  });
  return { context, group: root };
}

/** @param {number} value @returns {string} */
export function short(value) {
  return String(+value.toFixed(2));
}

/** The parts of a canvas' font. @param {string} font */
function fontOf(font) {
  const [, before, size, family] = /^(.*?)([\d.]+)px\s+(.*)$/.exec(font) ?? ["", "", "", "10", "sans-serif"];
  return { size: Number(size), family, weight: /bold|\d00/.exec(before)?.[0] };
}
