// The whole of a matrix, small, with the window that is in view; dragging the window moves the view.
import { h, attribute } from "./dom.js";

/** @typedef {{top: number, bottom: number, left: number, right: number}} Shares of the whole, 0 to 1 */

const SIDE = 104;

/** @param {{signal: AbortSignal, palette: () => import("./color.js").Palette, onMove: (row: number, col: number) => void}} spec `onMove`: what is to be in the middle, 0 to 1 */
export function createMinimap({ signal, palette, onMove }) {
  const canvas = h("canvas", { class: "iw-minimap__canvas", width: SIDE * 2, height: SIDE * 2, "aria-hidden": "true" });
  const el = h("div", { class: "iw-minimap", title: "The whole pattern: drag the frame to move", hidden: true }, canvas);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = document.createElement("canvas");
  /** @type {Shares} */
  let shown = { top: 0, bottom: 1, left: 0, right: 1 };
  const paint = (to = context) => {
    const { accent, halo } = palette();
    const { width, height } = canvas;
    to.imageSmoothingEnabled = false;
    to.clearRect(0, 0, width, height);
    if (image.width && image.height) to.drawImage(image, 0, 0, width, height);
    const [x, y] = [shown.left * width, shown.top * height];
    const [wide, tall] = [Math.max(6, (shown.right - shown.left) * width), Math.max(6, (shown.bottom - shown.top) * height)];
    for (const [colour, line] of /** @type {[string, number][]} */ ([[halo, 6], [accent, 3]])) {
      to.strokeStyle = colour;
      to.lineWidth = line;
      to.strokeRect(x, y, wide, tall);
    }
  };
  /** @param {PointerEvent} event */
  const move = (event) => {
    const bounds = canvas.getBoundingClientRect();
    onMove((event.clientY - bounds.top) / bounds.height, (event.clientX - bounds.left) / bounds.width);
  };
  canvas.addEventListener("iw-record", (event) => {
    const { detail } = /** @type {CustomEvent} */ (event);
    detail.scale(SIDE / canvas.width, SIDE / canvas.width);
    paint(detail);
  }, { signal });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    move(event);
  }, { signal });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) move(event);
  }, { signal });
  return {
    el,
    /**
     * @param {number} rows @param {number} cols
     * @param {(row: number, col: number) => import("./color.js").Rgb | null} colour
     */
    update(rows, cols, colour) {
      [image.width, image.height] = [cols, rows];
      const inner = /** @type {CanvasRenderingContext2D} */ (image.getContext("2d"));
      if (!rows || !cols) return;
      const pixels = inner.createImageData(cols, rows);
      for (let row = 0; row < rows; row++) {
        for (let col = 0; col < cols; col++) {
          const rgb = colour(row, col);
          if (!rgb) continue;
          const at = 4 * (row * cols + col);
          [pixels.data[at], pixels.data[at + 1], pixels.data[at + 2], pixels.data[at + 3]] = [rgb[0], rgb[1], rgb[2], 255];
        }
      }
      inner.putImageData(pixels, 0, 0);
      paint();
    },
    /** @param {Shares} window */
    look(window) {
      shown = window;
      const said = [window.top, window.bottom, window.left, window.right].map((share) => share.toFixed(3)).join(" ");
      attribute(canvas, "data-window", said);
      paint();
    },
  };
}
