// Every head of a model as a thumbnail of its pattern: layers across, heads down, on one canvas.
import { h, fill, pixelsOf } from "./dom.js";
import { colourAt } from "./color.js";
import { createSurface } from "./surface.js";
import { drawRing, drawMark, divergingColour } from "./matrix.js";

/**
 * @typedef {import("./surface.js").Cell} Cell row is the head, col the layer
 * @typedef {import("./color.js").Palette} Palette
 * @typedef {{version: string, layers: number, heads: number, bins: number, keyBins: number, causal: boolean, present: boolean[], skip: number, bound: number | null,
 *   value: (layer: number, head: number, query: number, key: number) => number, changed: (layer: number, head: number) => number,
 *   ablated: Set<string>, cut: Set<string>, selected: {layer: number, head: number}, describe: (layer: number, head: number) => string}} Heads
 *   a thumbnail is `bins` by `keyBins`, drawn square;
 *   thumbnails are painted again when `version` changes, and below the diagonal only if `causal`; `skip` leading bins are hidden; `bound` is the end of the diverging palette, null for weights; sets hold `layer,head`
 */

const LEFT = 30;
const TOP = 30;

/**
 * @param {{signal: AbortSignal, palette: () => Palette, maxHeight: number,
 *   onPoint: (cell: Cell | null, source: "pointer" | "keyboard") => void,
 *   onActivate: (cell: Cell, event: MouseEvent | KeyboardEvent) => void}} spec
 */
export function createHeadGrid({ signal, palette, maxHeight, onPoint, onActivate }) {
  /** @type {Heads | null} */
  let data = null;
  let pitch = 12;
  let updates = 0;
  const atlas = document.createElement("canvas");
  /** All thumbnails at their size on the page: what a frame shows while only the pointer or the view moves. */
  const sheet = document.createElement("canvas");
  let drawn = "";
  /** @type {{layer: number | null, head: number | null}} what is pointed at in a linked widget */
  let elsewhere = { layer: null, head: null };
  const tile = () => pitch - (pitch >= 18 ? 2 : 1);
  /** @param {Cell} cell */
  const boxOf = ({ row, col }) => ({ x: LEFT + col * pitch, y: TOP + row * pitch, width: tile(), height: tile() });
  const zoom = h("canvas", { class: "iw-heads__zoom", width: 280, height: 280, "aria-hidden": "true" });
  const caption = h("div");
  const preview = h("div", { class: "iw-heads__preview", hidden: true, "aria-hidden": "true" }, zoom, caption);

  const surface = createSurface({
    signal,
    maxHeight,
    boxOf,
    draw,
    grid: () => ({ rows: data?.heads ?? 0, cols: data?.layers ?? 0 }),
    sticky: () => ({ left: LEFT, top: TOP, bottom: 0 }),
    describe: ({ row, col }) => data?.describe(col, row) ?? "",
    layout(available) {
      const { layers, heads } = data ?? { layers: 24, heads: 8 };
      const least = el.closest("[data-iw-figure]") ? 5 : 11;
      pitch = Math.max(least, Math.min(64, Math.floor((available - LEFT - 2) / layers), Math.floor((maxHeight - TOP - 4) / heads)));
      return { width: LEFT + layers * pitch + 2, height: TOP + heads * pitch + 2 };
    },
    cellAt(x, y) {
      const [col, row] = [Math.floor((x - LEFT) / pitch), Math.floor((y - TOP) / pitch)];
      return data && x >= LEFT && y >= TOP && col < data.layers && row < data.heads ? { row, col } : null;
    },
    onPoint(cell, source) {
      peek(source === "pointer" ? cell : null);
      onPoint(cell, source);
    },
    onActivate,
  });
  const el = h("div", { class: "iw-heads" }, surface.el, preview);

  /** @param {Cell | null} cell */
  function peek(cell) {
    preview.hidden = !cell || !data || !surface.canvas.matches(":hover");
    if (preview.hidden || !cell || !data) return;
    const context = /** @type {CanvasRenderingContext2D} */ (zoom.getContext("2d"));
    context.clearRect(0, 0, zoom.width, zoom.height);
    context.imageSmoothingEnabled = false;
    context.drawImage(atlas, ...sourceOf(cell, data), 0, 0, zoom.width, zoom.height);
    fill(caption, data.describe(cell.col, cell.row));
    const { x, y } = boxOf(cell);
    const scroller = /** @type {HTMLElement} */ (surface.canvas.closest(".iw-surface__scroller"));
    const at = x - scroller.scrollLeft + pitch + 8;
    const width = 164;
    preview.style.left = `${at + width > el.clientWidth ? Math.max(0, at - width - pitch - 16) : at}px`;
    preview.style.top = `${y - scroller.scrollTop + pitch + 6}px`;
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./surface.js").View} view @param {Cell | null} active */
  function draw(context, view, active) {
    const colours = palette();
    context.save();
    context.beginPath();
    context.rect(LEFT - 2, TOP - 2, view.width, view.height);
    context.clip();
    context.translate(-view.left, -view.top);
    // A picture that is saved is sharp at any scale.
    if (context.canvas === surface.canvas) drawSheet(context, view, colours);
    else drawTiles(context, colours);
    if (data) drawRing(context, grown(boxOf({ row: data.selected.head, col: data.selected.layer })), colours);
    if (active && data && (active.row !== data.selected.head || active.col !== data.selected.layer)) drawMark(context, grown(boxOf(active)), "ring", colours);
    if (elsewhere.layer !== null && elsewhere.head !== null) drawMark(context, grown(boxOf({ row: elsewhere.head, col: elsewhere.layer })), "ring", colours);
    context.restore();
    drawAxes(context, view, active, colours);
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./surface.js").View} view @param {Palette} colours */
  function drawSheet(context, { left, top, width, height }, colours) {
    const [now, scale] = [`${updates} ${pitch} ${pixelsOf(el)}`, pixelsOf(el)];
    if (drawn !== now) {
      drawn = now;
      const { layers, heads } = data ?? { layers: 24, heads: 8 };
      [sheet.width, sheet.height] = [LEFT + layers * pitch + 2, TOP + heads * pitch + 2].map((side) => Math.ceil(side * scale));
      const paper = /** @type {CanvasRenderingContext2D} */ (sheet.getContext("2d"));
      paper.scale(scale, scale);
      drawTiles(paper, colours);
    }
    context.drawImage(sheet, left * scale, top * scale, width * scale, height * scale, left, top, width, height);
  }

  /** @param {CanvasRenderingContext2D} context @param {Palette} colours */
  function drawTiles(context, colours) {
    const { layers, heads } = data ?? { layers: 24, heads: 8 };
    for (let col = 0; col < layers; col++) for (let row = 0; row < heads; row++) drawTile(context, { row, col }, colours);
  }

  /** @param {CanvasRenderingContext2D} context @param {Cell} cell @param {Palette} colours */
  function drawTile(context, cell, colours) {
    const box = boxOf(cell);
    if (data && !data.present[cell.col]) {
      drawMark(context, box, "hatch", colours);
      return;
    }
    const [red, green, blue] = data?.bound ? colours.diverging[128] : colours.sequential[0];
    context.fillStyle = `rgb(${red},${green},${blue})`;
    context.fillRect(box.x, box.y, box.width, box.height);
    if (!data) return;
    const { bins, keyBins, skip } = data;
    const key = `${cell.col},${cell.row}`;
    // Bins larger than their pixels are averaged, so that a diagonal does not break up.
    context.imageSmoothingEnabled = Math.max(bins, keyBins) - skip > box.width * pixelsOf(el);
    context.imageSmoothingQuality = "high";
    context.drawImage(atlas, ...sourceOf(cell, data), box.x, box.y, box.width, box.height);
    if (data.bound && data.changed(cell.col, cell.row) >= 0.01 && !data.ablated.has(key)) {
      context.strokeStyle = colours.faint;
      context.lineWidth = 1;
      context.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
    }
    if (data.ablated.has(key)) drawAblated(context, box, colours);
    else if (data.cut.has(key)) drawMark(context, { x: box.x + box.width * 0.5, y: box.y, width: box.width * 0.5, height: box.height * 0.5 }, "cross", colours);
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./surface.js").View} view @param {Cell | null} active @param {Palette} colours */
  function drawAxes(context, view, active, colours) {
    if (!data) return;
    const pointed = active ?? { row: elsewhere.head ?? data.selected.head, col: elsewhere.layer ?? data.selected.layer };
    const every = (/** @type {number} */ room) => [1, 2, 5, 10, 20].find((step) => step * pitch >= room) ?? 50;
    context.textBaseline = "middle";
    /**
     * @param {number} count @param {number} step @param {number} at
     * @param {(index: number) => void} write
     */
    const axis = (count, step, at, write) => {
      for (let index = 0; index < count; index++) {
        if (index !== at && (index % step || Math.abs(index - at) * pitch < step * pitch * 0.7)) continue;
        context.font = `${index === at ? "600 " : ""}10px ${colours.ui}`;
        context.fillStyle = index === at ? colours.accent : colours.mute;
        write(index);
      }
    };
    context.textAlign = "center";
    axis(data.layers, every(17), pointed.col, (layer) => {
      const x = LEFT + layer * pitch + tile() / 2 - view.left;
      if (x >= LEFT && x < view.width - 6) context.fillText(String(layer), x, TOP - 8);
    });
    context.textAlign = "right";
    axis(data.heads, every(11), pointed.row, (head) => {
      const y = TOP + head * pitch + tile() / 2 - view.top;
      if (y >= TOP) context.fillText(String(head), LEFT - 6, y + 0.5);
    });
    context.font = `10.5px ${colours.ui}`;
    context.fillStyle = colours.mute;
    context.textAlign = "left";
    context.fillText("head ↓   layer →", 2, 8);
  }

  return {
    el,
    canvas: surface.canvas,
    /** @param {Heads} next */
    update(next) {
      const same = data?.version === next.version;
      data = next;
      updates += 1;
      surface.label(`All heads: ${next.heads} heads by ${next.layers} layers`);
      if (!same) paintAtlas(atlas, next, palette());
      surface.moveTo({ row: next.selected.head, col: next.selected.layer });
      surface.refresh();
    },
    /** @param {{layer: number | null, head: number | null}} place */
    emphasise(place) {
      elsewhere = place;
      surface.repaint();
    },
    /** @param {{layer: number, head: number}} selected @returns {string} what it is */
    select(selected) {
      if (!data) return "";
      data.selected = selected;
      surface.moveTo({ row: selected.head, col: selected.layer });
      surface.repaint();
      return data.describe(selected.layer, selected.head);
    },
  };
}

/** A head's place in the atlas, without what is hidden. @param {Cell} cell @param {Heads} data @returns {[x: number, y: number, width: number, height: number]} */
function sourceOf({ row, col }, { bins, keyBins, skip }) {
  return [col * keyBins + skip, row * bins + skip, keyBins - skip, bins - skip];
}

/** @param {import("./surface.js").Box} box @returns {import("./surface.js").Box} */
function grown(box) {
  return { x: box.x - 1, y: box.y - 1, width: box.width + 2, height: box.height + 2 };
}

/** @param {CanvasRenderingContext2D} context @param {import("./surface.js").Box} box @param {Palette} colours */
function drawAblated(context, box, colours) {
  drawMark(context, box, "hatch", colours);
  for (const [colour, width] of /** @type {[string, number][]} */ ([[colours.halo, 4], [colours.warn, 2]])) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(box.x + 1, box.y + box.height - 1);
    context.lineTo(box.x + box.width - 1, box.y + 1);
    context.stroke();
  }
  context.strokeStyle = colours.warn;
  context.lineWidth = 1;
  context.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
}

/**
 * All patterns side by side, one pixel a bin, on a square-root scale so that weak heads still show.
 * @param {HTMLCanvasElement} atlas @param {Heads} data @param {Palette} palette
 */
function paintAtlas(atlas, data, palette) {
  const { layers, heads, bins, keyBins, causal, bound, value } = data;
  [atlas.width, atlas.height] = [Math.max(1, layers * keyBins), Math.max(1, heads * bins)];
  const context = /** @type {CanvasRenderingContext2D} */ (atlas.getContext("2d"));
  const image = context.createImageData(atlas.width, atlas.height);
  const pixels = new Uint32Array(image.data.buffer);
  // Weights come in 255ths, so that all colours there can be are these: five million cells are looked up, not computed.
  const colours = Uint32Array.from({ length: 511 }, (_, index) => {
    const share = (index - 255) / 255;
    const root = Math.sign(share) * Math.sqrt(Math.min(1, Math.abs(share) / (bound ?? 1)));
    const rgb = bound ? divergingColour(palette, root, 1) : colourAt(palette.sequential, root);
    return new Uint32Array(Uint8Array.of(...rgb, 255).buffer)[0];
  });
  for (let layer = 0; layer < layers; layer++) {
    for (let head = 0; head < heads; head++) {
      for (let query = 0; query < bins; query++) {
        const line = (head * bins + query) * atlas.width + layer * keyBins;
        for (let key = 0; key < (causal ? query + 1 : keyBins); key++) pixels[line + key] = colours[Math.round(255 * value(layer, head, query, key)) + 255];
      }
    }
  }
  context.putImageData(image, 0, 0);
}
