// A patching map as cells: colours, numbers, labels, what has not run and what is chosen.
import { bandLabel } from "./bands.js";
import { effectOf, isEstimate, placeOf, strongestCol, valueAt, writeShort } from "./effect.js";
import { divergingColour } from "./matrix.js";
import { isolated } from "./tokens.js";

/**
 * @typedef {import("./effect.js").Sweep} Sweep
 * @typedef {import("./matrix.js").Mark} Mark
 * @typedef {import("./bands.js").Span} Span
 */

/**
 * @param {Sweep} sweep
 * @param {{colours: import("./color.js").Palette, bound: number, share: boolean, chosen: import("./effect.js").PatchCell[], columns: Span[], upward?: boolean,
 *   describe: (row: number, col: number) => string}} style `columns`: the sweep's that each column stands for; of several, it shows the largest effect
 * @returns {import("./matrix.js").MatrixData}
 */
export function effectCells(sweep, { colours, bound, share, chosen, columns, upward = false, describe }) {
  const { values, dims, labels } = sweep;
  const [rows, cols] = values.shape;
  const effect = (/** @type {number} */ row, /** @type {number} */ col) => effectOf(sweep, valueAt(sweep, row * cols + strongestCol(sweep, row, columns[col])), share);
  const narrow = (/** @type {number} */ col) => columns[col][1] - columns[col][0] > 1;
  const [clean, corrupted] = [labels.position ?? [], labels.corrupted ?? []];
  const numbered = (/** @type {number} */ count, /** @type {string} */ dim) =>
    Array.from({ length: count }, (_, index) => ({ text: `${dim === "layer" ? "L" : dim === "head" ? "H" : ""}${index}` }));
  const places = chosen.map((cell) => placeOf(sweep, cell)).filter((place) => place !== null && place.row < rows && place.col < cols)
    .map((place) => ({ row: place?.row ?? 0, col: columns.findIndex(([first, end]) => place && first <= place.col && place.col < end) }));
  /** @param {Span} span @param {number} col @returns {import("./matrix.js").Label} */
  const label = ([first, end], col) => {
    const warn = range([first, end]).some((position) => clean[position] !== corrupted[position]);
    if (!narrow(col)) return { text: `${isolated(clean[first] ?? "")} ${first}`.trim(), warn };
    return end <= (sweep.first ?? 0) ? { text: `0–${end - 1} the same`, faint: true } : { ...bandLabel([first, end], clean[first] ?? ""), warn };
  };
  return {
    rows, cols: columns.length, describe, narrow,
    rowLabels: numbered(rows, dims[0]),
    colLabels: dims[1] === "head" ? numbered(cols, "head") : columns.map(label),
    rowTitle: `${dims[0]} ${upward ? "↑" : "↓"}`, colTitle: `${dims[1]} →`,
    marks: [...hatches(sweep, columns, colours.line), ...places.map((place) => ({ ...place, kind: /** @type {"selected"} */ ("selected") }))],
    colour(row, col) {
      const value = effect(row, col);
      return Number.isNaN(value) ? null : divergingColour(colours, value, bound);
    },
    text(row, col, letters) {
      const value = effect(row, col);
      const telling = Math.abs(value) >= 0.05 * bound && bound >= 0.1 && !isEstimate(sweep, row * cols + columns[col][0]);
      return telling ? writeShort(value, letters) : "";
    },
  };
}

/** @param {Sweep} sweep @param {Span[]} columns @param {string} colour @returns {Mark[]} one mark for each run of cells that have not run: thousands would be slow to draw */
export function hatches(sweep, columns, colour) {
  const [rows, length] = sweep.values.shape;
  const cols = columns.length;
  /** @type {(row: number, col: number) => Mark["kind"] | null} */
  const kindOf = (row, col) => {
    const missing = range(columns[col]).map((position) => row * length + position).filter((index) => Number.isNaN(sweep.values.data[index]));
    return !missing.length ? null : missing.every((index) => isEstimate(sweep, index)) ? "estimate" : "hatch";
  };
  /** @type {Mark[]} */
  const marks = [];
  for (let row = 0; row < rows; row++) {
    for (let col = 0, from = 0; from < cols; from = col) {
      const kind = kindOf(row, from);
      for (col = from + 1; col < cols && kindOf(row, col) === kind; col++);
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

/** @param {Span} span @returns {number[]} */
function range([first, end]) {
  return Array.from({ length: end - first }, (_, index) => first + index);
}

/**
 * A map as it came: of a long prompt without the columns at its start where both prompts are the same, and without tokens.
 * @param {Sweep} sweep @param {{position: string[], corrupted: string[]}} labels
 * @returns {Sweep}
 */
export function wholeSweep(sweep, labels) {
  const { first = 0, values } = sweep;
  const named = sweep.labels.position ? sweep : { ...sweep, labels };
  if (!first) return named;
  const [rows, cols] = values.shape;
  /** @param {import("./wire.js").Decoded} array @param {number} before */
  const padded = ({ data }, before) => {
    const whole = new Float32Array(rows * (first + cols)).fill(before);
    for (let row = 0; row < rows; row++) whole.set(data.subarray(row * cols, (row + 1) * cols), row * (first + cols) + first);
    return { data: whole, shape: [rows, first + cols] };
  };
  return { ...named, values: padded(values, sweep.baseline), estimate: sweep.estimate && padded(sweep.estimate, sweep.baseline) };
}
