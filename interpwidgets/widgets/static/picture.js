// What is seen of a widget, as one SVG of shapes and real text that opens anywhere, and from it a PNG.
import { enlarged, vector } from "./dom.js";
import { recorder, short } from "./recorder.js";

/** What belongs to the screen and not to a picture. */
const OF_THE_SCREEN = ".iw-header__buttons, .iw-status, .iw-figure__leave, .iw-code, .iw-prompt__edit, .iw-hidden, .iw-menu__list, .iw-heads__preview";
const SVG = "http://www.w3.org/2000/svg";
const INHERITED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "opacity", "font-family", "font-size", "font-weight", "text-anchor"];

/**
 * @typedef {{name: (kind: string) => string, own: (box: DOMRect) => DOMRect}} Sheet `own` tells where a box of the page is in the picture, in
 *   pixels of the widget's own: of those are a canvas and all that a style says, however many times its size the widget is shown
 * @typedef {{text: string, width: number, height: number}} Picture
 */

/**
 * @param {HTMLElement} root
 * @param {number} [asked] pixels, if it is to be of another width than it is seen at: all of it is larger or smaller then
 * @returns {Picture}
 */
export function pictureOf(root, asked) {
  const edge = root.getBoundingClientRect();
  const foot = root.querySelector(".iw-status")?.getBoundingClientRect();
  // Figure mode hides the status line.
  const seen = [Math.ceil(edge.width), Math.ceil((foot?.height ? foot.top : edge.bottom) - edge.top)];
  const [width, height] = asked ? [asked, (seen[1] * asked) / seen[0]] : seen;
  const zoom = enlarged(root);
  const [wide, tall] = seen.map((side) => side / zoom);
  // Names are the document's that a picture comes into, so that they are made of all that is drawn, once it is: until then this stands for it.
  const mark = `iw-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
  let count = 0;
  /** @type {Sheet} */
  const sheet = {
    name: (kind) => `${mark}-${kind}-${++count}`,
    own: (box) => new DOMRect((box.left - edge.left) / zoom, (box.top - edge.top) / zoom, box.width / zoom, box.height / zoom),
  };
  const picture = vector("svg", { xmlns: SVG, width: short(width), height: short(height), viewBox: `0 0 ${short(wide)} ${short(tall)}` }, vector("title", {}, root.getAttribute("aria-label") ?? ""));
  picture.append(vector("rect", { width: short(wide), height: short(tall), fill: getComputedStyle(root).backgroundColor }));
  for (const child of root.childNodes) place(child, picture, sheet);
  const parts = new XMLSerializer().serializeToString(picture).split(mark);
  let sum = 0;
  for (const part of parts) for (let at = 0; at < part.length; at++) sum = (Math.imul(sum, 31) + part.charCodeAt(at)) >>> 0;
  return { text: parts.join(`iw-${sum.toString(36)}`), width, height };
}

/**
 * @param {Picture} picture
 * @param {number} scale pixels of the image to one of the page
 * @returns {Promise<Blob>}
 */
export async function pngOf({ text, width, height }, scale) {
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    const image = new Image(width, height);
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error(`the browser made no image of ${canvas.width} by ${canvas.height} pixels`))), "image/png"));
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** @param {Node} node @param {SVGElement} into @param {Sheet} sheet */
function place(node, into, sheet) {
  if (node instanceof Text) return placeText(node, into, sheet);
  if (!(node instanceof Element) || node.matches(OF_THE_SCREEN) || !node.checkVisibility({ visibilityProperty: true })) return;
  const style = getComputedStyle(node);
  if (style.display === "contents") return node.childNodes.forEach((child) => place(child, into, sheet));
  const box = sheet.own(node.getBoundingClientRect());
  const group = Number(style.opacity) < 1 ? vector("g", { opacity: style.opacity }) : into;
  if (group !== into) into.append(group);
  if (node instanceof SVGElement) return group.append(copied(/** @type {SVGElement} */ (node), box));
  if (node instanceof HTMLCanvasElement) return placeCanvas(node, box, group, sheet);
  for (const each of node.getClientRects()) group.append(...decorated(style, sheet.own(each), sheet));
  if (node instanceof HTMLImageElement) return group.append(vector("image", { ...placed(box), href: node.src }));
  placeBefore(node, group, sheet);
  if (node instanceof HTMLSelectElement || node instanceof HTMLInputElement || node instanceof HTMLTextAreaElement) return placeControl(node, style, box, group);
  const clipped = style.overflow !== "visible" && (node.scrollHeight > node.clientHeight + 1 || node.scrollWidth > node.clientWidth + 1);
  const inside = clipped ? clip(box, group, sheet) : group;
  node.childNodes.forEach((child) => place(child, inside, sheet));
}

/** @param {DOMRect} box @param {SVGElement} into @param {Sheet} sheet */
function clip(box, into, { name }) {
  const id = name("clip");
  const inside = vector("g", { "clip-path": `url(#${id})` });
  into.append(vector("clipPath", { id }, vector("rect", placed(box))), inside);
  return inside;
}

/** @param {HTMLCanvasElement} canvas @param {DOMRect} box @param {SVGElement} into @param {Sheet} sheet */
function placeCanvas(canvas, { x, y }, into, { name }) {
  const { context, group } = recorder(name);
  canvas.dispatchEvent(new CustomEvent("iw-record", { detail: context }));
  group.setAttribute("transform", `translate(${short(x)} ${short(y)})`);
  into.append(group);
}

/** An element's background and border. @param {CSSStyleDeclaration} style @param {DOMRect} box @param {Sheet} sheet @returns {SVGElement[]} */
function decorated(style, { x, y, width, height }, { name }) {
  if (!width || !height) return [];
  /** @type {SVGElement[]} */
  const made = [];
  const corners = ["TopLeft", "TopRight", "BottomRight", "BottomLeft"].map((corner) => Math.min(parseFloat(/** @type {any} */ (style)[`border${corner}Radius`]) || 0, width / 2, height / 2));
  if (seen(style.backgroundColor)) made.push(vector("path", { d: rounded(x, y, width, height, corners), fill: style.backgroundColor }));
  if (style.backgroundImage.includes("gradient(")) {
    const id = name("fill");
    made.push(gradient(id, style.backgroundImage), vector("path", { d: rounded(x, y, width, height, corners), fill: `url(#${id})` }));
  }
  const sides = ["Top", "Right", "Bottom", "Left"].map((side) => ({
    wide: parseFloat(/** @type {any} */ (style)[`border${side}Width`]) || 0, kind: /** @type {any} */ (style)[`border${side}Style`], colour: /** @type {any} */ (style)[`border${side}Color`],
  }));
  const look = (/** @type {{wide: number, kind: string, colour: string}} */ { wide, kind, colour }) =>
    ({ fill: "none", stroke: colour, "stroke-width": wide, ...(kind === "dashed" ? { "stroke-dasharray": "3 2" } : kind === "dotted" ? { "stroke-dasharray": "1 2" } : {}) });
  const drawn = sides.map(({ wide, kind, colour }) => wide > 0 && kind !== "none" && seen(colour));
  // Of the focus, the outline is outside.
  if (style.outlineStyle === "solid" && parseFloat(style.outlineOffset) < 0) {
    const wide = parseFloat(style.outlineWidth);
    made.push(vector("rect", { ...placed({ x: x + wide / 2, y: y + wide / 2, width: width - wide, height: height - wide }), ...look({ wide, kind: "solid", colour: style.outlineColor }) }));
  }
  if (drawn.every(Boolean) && sides.every((side) => JSON.stringify(side) === JSON.stringify(sides[0]))) {
    const half = sides[0].wide / 2;
    made.push(vector("path", { d: rounded(x + half, y + half, width - 2 * half, height - 2 * half, corners.map((corner) => Math.max(0, corner - half))), ...look(sides[0]) }));
  } else {
    const ends = [[x, y, x + width, y], [x + width, y, x + width, y + height], [x, y + height, x + width, y + height], [x, y, x, y + height]];
    sides.forEach((side, index) => {
      if (!drawn[index]) return;
      const inwards = [[0, 1], [-1, 0], [0, -1], [1, 0]][index].map((by) => (by * side.wide) / 2);
      const [x1, y1, x2, y2] = ends[index].map((at, part) => short(at + inwards[part % 2]));
      made.push(vector("line", { x1, y1, x2, y2, ...look(side) }));
    });
  }
  return made;
}

/** @param {string} colour */
function seen(colour) {
  return colour !== "transparent" && !/^rgba\(.*, 0\)$/.test(colour);
}

/** @param {number} x @param {number} y @param {number} width @param {number} height @param {number[]} radii clockwise from the top left */
function rounded(x, y, width, height, [a, b, c, d]) {
  const arc = (/** @type {number} */ r, /** @type {number} */ dx, /** @type {number} */ dy) => (r ? `a${short(r)} ${short(r)} 0 0 1 ${short(dx)} ${short(dy)}` : "");
  return `M${short(x + a)} ${short(y)}h${short(width - a - b)}${arc(b, b, b)}v${short(height - b - c)}${arc(c, -c, c)}h${short(-(width - c - d))}${arc(d, -d, -d)}v${short(-(height - d - a))}${arc(a, a, -a)}z`;
}

/** A linear gradient as CSS has computed it. @param {string} id @param {string} css */
function gradient(id, css) {
  const repeats = css.startsWith("repeating");
  const stops = [...css.matchAll(/(rgba?\([^)]*\))\s*([\d.]+)?(px|%)?/g)];
  // The vector of a repeating one is as long as its last stop, in pixels; of any other, as long as its box.
  const long = repeats ? Number(stops[stops.length - 1][2]) : 1;
  const diagonal = short(long * Math.SQRT1_2);
  const ends = repeats ? { gradientUnits: "userSpaceOnUse", spreadMethod: "repeat", x1: 0, y1: 0, x2: diagonal, y2: diagonal }
    : /to (top right|right top)/.test(css) ? { x1: 0, y1: 1, x2: 1, y2: 0 } : { x1: 0, y1: 0, x2: 1, y2: 0 };
  return vector("linearGradient", { id, ...ends }, ...stops.map(([, colour, at, unit], index) => {
    const offset = at === undefined ? index / (stops.length - 1) : unit === "%" ? Number(at) / 100 : Number(at) / long;
    return vector("stop", { offset: short(offset), "stop-color": colour.replace(/rgba\((.*), [\d.]+\)/, "rgb($1)"), "stop-opacity": seen(colour) ? 1 : 0 });
  }));
}

/** What a style sheet puts before an element. @param {Element} element @param {SVGElement} into @param {Sheet} sheet */
function placeBefore(element, into, sheet) {
  const style = getComputedStyle(element, "::before");
  if (style.content === "none" || style.content === "normal") return;
  const words = style.content.replace(/^"|"$/g, "");
  const [first] = [...element.getClientRects()].map(sheet.own);
  if (words && first) write(words, new DOMRect(first.x, first.y, 0, first.height), style, into);
  const [width, height] = [parseFloat(style.width), parseFloat(style.height)];
  if (!words && width && height) {
    const down = style.display === "block" ? 0 : (first.height - height) / 2;
    into.append(...decorated(style, new DOMRect(first.x, first.y + down, width, height), sheet));
  }
}

/** @param {HTMLSelectElement | HTMLInputElement | HTMLTextAreaElement} control @param {CSSStyleDeclaration} style @param {DOMRect} box @param {SVGElement} into */
function placeControl(control, style, box, into) {
  const list = control instanceof HTMLSelectElement;
  const text = list ? control.selectedOptions[0]?.text ?? "" : control.value;
  const size = parseFloat(style.fontSize);
  const left = box.left + parseFloat(style.paddingLeft) + parseFloat(style.borderLeftWidth) + (list ? 4 : 0);
  const line = (/** @type {number} */ x) => new DOMRect(x, box.top + (box.height - 1.2 * size) / 2, 0, 1.2 * size);
  write(text, line(left), style, into);
  if (list) write("▾", line(box.right - 16), style, into);
}

/** @param {Text} node @param {SVGElement} into @param {Sheet} sheet */
function placeText(node, into, sheet) {
  const parent = node.parentElement;
  if (!parent || !node.data.trim()) return;
  const style = getComputedStyle(parent);
  const range = document.createRange();
  range.selectNodeContents(node);
  const lines = range.getClientRects().length;
  /** @param {number} from @param {number} end a part of the text that stands in one line */
  const finish = (from, end) => {
    const [first, last] = [from, end - 1].map((at) => spreads(range, node, at, at + 1));
    const part = node.data.slice(from, end).replace(/\n/g, " ");
    const words = style.whiteSpace.startsWith("pre") ? part : part.replace(/\s+/g, " ").replace(first ? /^$/ : /^ /, "").replace(last ? /$^/ : / $/, "");
    spreads(range, node, from, end);
    if (words.trim()) write(words, sheet.own(range.getBoundingClientRect()), style, into);
  };
  if (lines === 1) return finish(0, node.length);
  // Where a line ends is known only from where each letter stands.
  let [start, top] = [0, NaN];
  for (let at = 0; at < node.length; at++) {
    if (!spreads(range, node, at, at + 1)) continue;
    const [letter] = range.getClientRects();
    if (letter.top === top) continue;
    if (!Number.isNaN(top)) {
      finish(start, at);
      start = at;
    }
    top = letter.top;
  }
  finish(start, node.length);
}

/** Whether a part of a text takes any room: of spaces in a row only one does, and none at the end of a line. @param {Range} range is put there @param {Text} node @param {number} from @param {number} end */
function spreads(range, node, from, end) {
  range.setStart(node, from);
  range.setEnd(node, end);
  return range.getBoundingClientRect().width > 0;
}

/** @param {string} text @param {DOMRect} box its line; a width of 0 is not known @param {CSSStyleDeclaration} style @param {SVGElement} into */
function write(text, box, style, into) {
  const size = parseFloat(style.fontSize);
  const lined = style.textDecorationLine !== "none" ? { "text-decoration": style.textDecorationLine } : {};
  into.append(vector("text", {
    x: short(box.x), y: short(box.y + box.height / 2 + 0.34 * size), fill: style.color, "font-family": style.fontFamily, "font-size": size,
    ...(style.fontWeight === "400" ? {} : { "font-weight": style.fontWeight }), ...(style.fontStyle === "normal" ? {} : { "font-style": style.fontStyle }), ...lined,
    // Another program's fonts must not push words into each other.
    ...(box.width && text.length > 1 ? { textLength: short(box.width), lengthAdjust: "spacingAndGlyphs" } : {}), style: "white-space:pre",
  }, text));
}

/** An SVG of the page with its looks written in. @param {SVGElement} drawing @param {DOMRect} box */
function copied(drawing, box) {
  const copy = /** @type {SVGElement} */ (drawing.cloneNode(true));
  const [originals, copies] = [drawing, copy].map((each) => [each, ...each.querySelectorAll("*")]);
  copies.forEach((each, index) => {
    const style = getComputedStyle(originals[index]);
    each.removeAttribute("class");
    each.removeAttribute("style");
    for (const name of INHERITED) each.setAttribute(name, style.getPropertyValue(name));
  });
  for (const [name, value] of Object.entries(placed(box))) copy.setAttribute(name, value);
  return copy;
}

/** @param {import("./surface.js").Box} box */
function placed({ x, y, width, height }) {
  return { x: short(x), y: short(y), width: short(width), height: short(height) };
}
