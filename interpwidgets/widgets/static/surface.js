// A canvas that is a grid to the keyboard and to screen readers: sizing, scrolling, pointing; what is drawn is the caller's.
import { h, attribute, coalesce, enlarged, pixelsOf } from "./dom.js";
import { followGestures } from "./gestures.js";

/**
 * @typedef {{row: number, col: number}} Cell
 * @typedef {{left: number, top: number, width: number, height: number}} View the visible part, in content pixels
 * @typedef {{x: number, y: number, width: number, height: number}} Box
 * @typedef {ReturnType<typeof createSurface>} Surface
 */

/** By how much a key zooms; 0 is the whole. @type {Record<string, number>} */
const ZOOM_KEYS = { "+": 1.6, "=": 1.6, "-": 1 / 1.6, 0: 0 };

/**
 * Where a navigation key leads.
 * @param {string} key
 * @param {Cell} cell
 * @param {{rows: number, cols: number, upward?: boolean}} grid `upward`: row 0 is drawn lowest
 * @returns {Cell | null} null when the key is none of ours
 */
export function stepInGrid(key, { row, col }, { rows, cols, upward = false }) {
  const down = upward ? -1 : 1;
  /** @type {Record<string, [number, number]>} */
  const steps = {
    ArrowUp: [row - down, col], ArrowDown: [row + down, col], ArrowLeft: [row, col - 1], ArrowRight: [row, col + 1],
    Home: [row, 0], End: [row, cols - 1], PageUp: [row - 10 * down, col], PageDown: [row + 10 * down, col],
  };
  if (!(key in steps)) return null;
  const [nextRow, nextCol] = steps[key];
  return { row: Math.max(0, Math.min(rows - 1, nextRow)), col: Math.max(0, Math.min(cols - 1, nextCol)) };
}

/**
 * @param {{
 *   signal: AbortSignal,
 *   layout: (available: number) => {width: number, height: number},
 *   draw: (context: CanvasRenderingContext2D, view: View, active: Cell | null) => void,
 *   cellAt: (x: number, y: number, view: View) => Cell | null,
 *   boxOf: (cell: Cell) => Box,
 *   grid: () => {rows: number, cols: number, upward?: boolean},
 *   describe: (cell: Cell) => string,
 *   onPoint?: (cell: Cell | null, source: "pointer" | "keyboard") => void,
 *   onActivate?: (cell: Cell, event: MouseEvent | KeyboardEvent) => void,
 *   onZoom?: (factor: number, cell: Cell, at?: {x: number, y: number}) => boolean,
 *   maxHeight?: number,
 *   sticky?: () => {left: number, top: number, bottom: number},
 * }} spec `layout` is asked for the content's size whenever the width changes; `cellAt` and `boxOf` are in content pixels
 *   except that x and y inside `sticky` margins are the view's own; `onZoom` is told which cell is to stay where it is, at a place of the view if a pointer zooms, and says whether it zooms at all; 0 is the whole
 */
export function createSurface(spec) {
  const { signal, maxHeight = Infinity } = spec;
  const canvas = h("canvas", { class: "iw-surface__canvas", "aria-hidden": "true" });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const sizer = h("div", { class: "iw-surface__sizer", role: "presentation" }, canvas);
  const name = `iw-cell-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
  let spoken = h("span");
  const scroller = h("div", { class: "iw-surface__scroller", role: "grid", tabindex: "0", "aria-readonly": "true" },
    sizer, h("div", { role: "row", class: "iw-hidden" }, spoken));
  // The probe's height never depends on ours, so that sizing the canvas cannot call the observer again.
  const probe = h("div", { class: "iw-surface__probe", "aria-hidden": "true" });
  const el = h("div", { class: "iw-surface" }, probe, scroller);

  let width = 0;
  /** @type {Cell} */
  let cursor = { row: 0, col: 0 };
  /** @type {Cell | null} */
  let hover = null;
  let focused = false;
  let unseen = false;
  /** @type {{x: number, y: number} | boolean} where the cursor is to be, or in the middle */
  let centred = false;
  const active = () => hover ?? (focused ? cursor : null);
  /** @returns {View} */
  const view = () => ({ left: scroller.scrollLeft, top: scroller.scrollTop, width: canvas.clientWidth, height: canvas.clientHeight });
  const pixels = () => pixelsOf(el);

  const fit = () => {
    let size = spec.layout(width);
    const scrollsDown = size.height > maxHeight;
    if (scrollsDown) size = spec.layout(width - 12);
    const scrollsRight = size.width > width - (scrollsDown ? 12 : 0);
    scroller.style.overflowX = scrollsRight ? "scroll" : "hidden";
    scroller.style.overflowY = scrollsDown ? "scroll" : "hidden";
    const [besides, below] = [scroller.offsetWidth - scroller.clientWidth, scroller.offsetHeight - scroller.clientHeight];
    scroller.style.width = `${Math.min(width, size.width + besides)}px`;
    scroller.style.height = `${Math.min(maxHeight, size.height) + below}px`;
    sizer.style.width = `${size.width}px`;
    sizer.style.height = `${size.height}px`;
    const shown = { width: Math.min(size.width, scroller.clientWidth), height: Math.min(size.height, scroller.clientHeight) };
    canvas.style.width = `${shown.width}px`;
    canvas.style.height = `${shown.height}px`;
    canvas.width = Math.round(shown.width * pixels());
    canvas.height = Math.round(shown.height * pixels());
  };
  const paint = () => {
    if (!canvas.width || !canvas.height) return;
    context.setTransform(pixels(), 0, 0, pixels(), 0, 0);
    const seen = view();
    context.clearRect(0, 0, seen.width, seen.height);
    spec.draw(context, seen, active());
  };
  const speak = () => {
    const { rows, cols } = spec.grid();
    const cell = active() ?? cursor;
    attribute(scroller, "aria-rowcount", rows);
    attribute(scroller, "aria-colcount", cols);
    const id = `${name}-${cell.row}-${cell.col}`;
    if (spoken.id !== id) {
      const before = spoken;
      // Of an element that only changes its words many screen readers say nothing.
      spoken = h("span", { role: "gridcell", class: "iw-hidden", id });
      before.replaceWith(spoken);
    }
    attribute(spoken, "aria-rowindex", cell.row + 1);
    attribute(spoken, "aria-colindex", cell.col + 1);
    spoken.textContent = rows && cols ? spec.describe(cell) : "";
    attribute(scroller, "aria-activedescendant", id);
  };
  /** A cell can be scrolled into view only once there is a layout to scroll. */
  const show = () => {
    if (!unseen || width <= 0) return;
    unseen = false;
    reveal(cursor);
  };
  /** Of the layout that there is now; what is drawn before the next one has other cells. */
  const centre = () => {
    const box = spec.boxOf(cursor);
    const at = centred;
    centred = false;
    if (typeof at === "object") return scroller.scrollTo(box.x + box.width / 2 - at.x, box.y + box.height / 2 - at.y);
    const [{ left, top, bottom }, seen] = [spec.sticky?.() ?? { left: 0, top: 0, bottom: 0 }, view()];
    scroller.scrollTo(box.x + (box.width - left - seen.width) / 2, box.y + (box.height - top - seen.height + bottom) / 2);
  };
  const repaint = coalesce(() => {
    show();
    paint();
  }, signal);
  const refresh = () => {
    if (width <= 0) return;
    const { rows, cols } = spec.grid();
    // What is in sight stays in sight, however wide the cells are from now on.
    unseen ||= !centred && isSeen(cursor);
    cursor = { row: Math.max(0, Math.min(cursor.row, rows - 1)), col: Math.max(0, Math.min(cursor.col, cols - 1)) };
    if (hover && (hover.row >= rows || hover.col >= cols)) hover = null;
    fit();
    if (centred) centre();
    show();
    paint();
    speak();
  };
  const moved = () => {
    speak();
    repaint();
  };
  const observer = new ResizeObserver((entries) => {
    width = entries[entries.length - 1].contentRect.width;
    refresh();
  });
  observer.observe(probe);
  signal.addEventListener("abort", () => observer.disconnect());

  /** @param {Cell | null} cell @param {"pointer" | "keyboard"} source */
  const point = (cell, source) => {
    moved();
    spec.onPoint?.(cell, source);
  };
  /** @param {{clientX: number, clientY: number}} event */
  const under = (event) => {
    const bounds = canvas.getBoundingClientRect();
    const [x, y, seen] = [(event.clientX - bounds.left) / enlarged(el), (event.clientY - bounds.top) / enlarged(el), view()];
    const { left, top, bottom } = spec.sticky?.() ?? { left: 0, top: 0, bottom: 0 };
    return spec.cellAt(x < left ? x : x + seen.left, y < top || y > seen.height - bottom ? y : y + seen.top, seen);
  };
  /** @param {Cell} cell @returns {[number, number]} by how much to scroll so that all of it is seen */
  const hiddenBy = (cell) => {
    const box = spec.boxOf(cell);
    const { left, top, bottom } = spec.sticky?.() ?? { left: 0, top: 0, bottom: 0 };
    const seen = view();
    return [
      Math.min(box.x - seen.left - left, 0) || Math.max(0, box.x + box.width - seen.left - seen.width),
      Math.min(box.y - seen.top - top, 0) || Math.max(0, box.y + box.height - seen.top - seen.height + bottom),
    ];
  };
  /** @param {Cell} cell places of a scroller are rounded */
  const isSeen = (cell) => hiddenBy(cell).every((pixels) => Math.abs(pixels) < 1);
  /** @param {Cell} cell */
  const reveal = (cell) => scroller.scrollBy(...hiddenBy(cell));

  const { onZoom } = spec;
  if (onZoom) followGestures(scroller, (factor, at) => {
    const bounds = canvas.getBoundingClientRect();
    return onZoom(factor, under(at) ?? cursor, { x: (at.clientX - bounds.left) / enlarged(el), y: (at.clientY - bounds.top) / enlarged(el) });
  }, signal);
  // A picture is drawn anew, without what the pointer shows.
  canvas.addEventListener("iw-record", (event) => spec.draw(/** @type {CustomEvent} */ (event).detail, view(), null), { signal });
  scroller.onscroll = paint;
  scroller.onpointermove = (event) => {
    const cell = under(event);
    if (cell?.row === hover?.row && cell?.col === hover?.col) return;
    hover = cell;
    point(active(), "pointer");
  };
  scroller.onpointerleave = () => {
    if (!hover) return;
    hover = null;
    point(active(), "pointer");
  };
  scroller.onclick = (event) => {
    const cell = under(event);
    if (!cell) return;
    cursor = cell;
    moved();
    spec.onActivate?.(cell, event);
  };
  scroller.onfocus = () => {
    focused = true;
    if (!hover) point(cursor, "pointer");
  };
  scroller.onblur = () => {
    focused = false;
    if (!hover) point(null, "pointer");
  };
  scroller.onkeydown = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in ZOOM_KEYS && onZoom?.(ZOOM_KEYS[event.key], cursor)) {
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    const enter = event.key === "Enter" || event.key === " ";
    const next = enter ? null : stepInGrid(event.key, cursor, spec.grid());
    if (!enter && !next) return;
    event.preventDefault();
    event.stopPropagation();
    if (enter) return spec.onActivate?.(cursor, event);
    hover = null;
    cursor = /** @type {Cell} */ (next);
    reveal(cursor);
    point(cursor, "keyboard");
  };

  return {
    el,
    canvas,
    /** Lay out and draw again, at once: sizes or data changed. Callers gather their changes into one frame themselves. */
    refresh,
    /** Draw again at the same size. */
    repaint,
    active,
    /** @param {string} label */
    label: (label) => attribute(scroller, "aria-label", label),
    /** @param {Cell} cell moves the keyboard's place without telling the caller */
    moveTo(cell) {
      if (cell.row === cursor.row && cell.col === cursor.col) return;
      cursor = cell;
      unseen = true;
      moved();
    },
    /** @param {Cell} cell is to be the keyboard's place, and in the middle or `at` a place of the view, when the grid is next laid out @param {{x: number, y: number}} [at] */
    lookAt(cell, at) {
      cursor = cell;
      centred = at ?? true;
      hover = null;
    },
    /** @param {Cell} cell to the middle, at once */
    scrollTo(cell) {
      const kept = cursor;
      cursor = cell;
      centred = true;
      centre();
      cursor = kept;
    },
    cursor: () => cursor,
    focus: () => scroller.focus({ preventScroll: true }),
  };
}
