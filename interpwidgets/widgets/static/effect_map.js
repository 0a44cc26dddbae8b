// A patching map as cells: colours, numbers, labels, what has not run and what is chosen.
import { effectOf, isEstimate, placeOf, valueAt, writeShort } from "./effect.js";
import { divergingColour } from "./matrix.js";

/**
 * @typedef {import("./effect.js").Sweep} Sweep
 * @typedef {import("./matrix.js").Mark} Mark
 */

/**
 * @param {Sweep} sweep
 * @param {{colours: import("./color.js").Palette, bound: number, share: boolean, chosen: import("./effect.js").PatchCell[], upward?: boolean,
 *   describe: (row: number, col: number) => string}} style
 * @returns {import("./matrix.js").MatrixData}
 */
export function effectCells(sweep, { colours, bound, share, chosen, upward = false, describe }) {
  const { values, dims, labels } = sweep;
  const [rows, cols] = values.shape;
  const effect = (/** @type {number} */ row, /** @type {number} */ col) => effectOf(sweep, valueAt(sweep, row * cols + col), share);
  const [clean, corrupted] = [labels.position ?? [], labels.corrupted ?? []];
  const numbered = (/** @type {number} */ count, /** @type {string} */ dim) =>
    Array.from({ length: count }, (_, index) => ({ text: `${dim === "layer" ? "L" : dim === "head" ? "H" : ""}${index}` }));
  const places = chosen.map((cell) => placeOf(sweep, cell)).filter((place) => place !== null && place.row < rows && place.col < cols);
  return {
    rows, cols, describe,
    rowLabels: numbered(rows, dims[0]),
    colLabels: dims[1] === "head" ? numbered(cols, "head")
      : Array.from({ length: cols }, (_, col) => ({ text: `${clean[col] ?? ""} ${col}`.trim(), warn: clean[col] !== corrupted[col] })),
    rowTitle: `${dims[0]} ${upward ? "↑" : "↓"}`, colTitle: `${dims[1]} →`,
    marks: [...hatches(sweep, colours.line), ...places.map((place) => ({ .../** @type {import("./matrix.js").Cell} */ (place), kind: /** @type {"selected"} */ ("selected") }))],
    colour(row, col) {
      const value = effect(row, col);
      return Number.isNaN(value) ? null : divergingColour(colours, value, bound);
    },
    text(row, col, letters) {
      const value = effect(row, col);
      const telling = Math.abs(value) >= 0.05 * bound && bound >= 0.1 && !isEstimate(sweep, row * cols + col);
      return telling ? writeShort(value, letters) : "";
    },
  };
}

/** @param {Sweep} sweep @param {string} colour @returns {Mark[]} one mark for each run of cells that have not run: thousands would be slow to draw */
export function hatches(sweep, colour) {
  const [rows, cols] = sweep.values.shape;
  /** @type {(index: number) => Mark["kind"] | null} */
  const kindOf = (index) => (isEstimate(sweep, index) ? "estimate" : Number.isNaN(sweep.values.data[index]) ? "hatch" : null);
  /** @type {Mark[]} */
  const marks = [];
  for (let row = 0; row < rows; row++) {
    for (let col = 0, from = 0; from < cols; from = col) {
      const kind = kindOf(row * cols + from);
      for (col = from + 1; col < cols && kindOf(row * cols + col) === kind; col++);
      if (kind) marks.push({ row, col: from, span: col - from, kind, ...(kind === "hatch" ? { colour } : {}) });
    }
  }
  return marks;
}

/**
 * The frame of a map before its first numbers: every cell is still to run.
 * @param {string} site @param {{layers?: number, heads?: number, kv_heads?: number}} header @param {string[][]} tokens clean and corrupted @param {"denoise" | "noise"} direction
 * @returns {Sweep}
 */
export function emptySweep(site, { layers = 12, heads = 12, kv_heads = heads }, [clean, corrupted], direction) {
  const byHead = ["z", "q", "k", "v"].includes(site);
  const cols = !byHead ? Math.max(1, clean.length) : site === "k" || site === "v" ? kv_heads : heads;
  return {
    id: 0, site, layer: null, dims: ["layer", byHead ? "head" : "position"], values: { data: new Float32Array(layers * cols).fill(NaN), shape: [layers, cols] },
    clean: 1, corrupted: 0, baseline: 0, direction: direction ?? "denoise", metric: "logit_diff", units: "", gap_is_zero: false, labels: { position: clean, corrupted },
  };
}
