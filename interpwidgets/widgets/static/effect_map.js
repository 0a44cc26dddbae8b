// A patching map as cells: colours, numbers, labels, what has not run and what is chosen.
import { bandLabel, bandName } from "./bands.js";
import { effectOf, isEstimate, placeOf, strongestCell, valueAt, writeShort } from "./effect.js";
import { divergingColour } from "./matrix.js";
import { isolated } from "./tokens.js";

/**
 * @typedef {import("./effect.js").Sweep} Sweep
 * @typedef {import("./matrix.js").Mark} Mark
 * @typedef {import("./bands.js").Span} Span
 */

/**
 * @param {Sweep} sweep
 * @param {{colours: import("./color.js").Palette, bound: number, share: boolean, chosen: import("./effect.js").PatchCell[], rows: Span[], columns: Span[], upward?: boolean,
 *   describe: (row: number, col: number) => string}} style `rows`, `columns`: the sweep's that each row and column stands for; of several, a cell shows the largest effect
 * @returns {import("./matrix.js").MatrixData}
 */
export function effectCells(sweep, { colours, bound, share, chosen, rows, columns, upward = false, describe }) {
  const { values, dims, labels } = sweep;
  const effect = (/** @type {number} */ drawn, /** @type {number} */ at) => {
    const { row, col } = strongestCell(sweep, rows[drawn], columns[at]);
    return effectOf(sweep, valueAt(sweep, row * values.shape[1] + col), share);
  };
  const narrow = (/** @type {number} */ col) => isSeveral(columns[col]);
  const [clean, corrupted] = [labels.position ?? [], labels.corrupted ?? []];
  const numbered = (/** @type {Span[]} */ spans, /** @type {string} */ dim) =>
    spans.map((span) => ({ text: isSeveral(span) ? bandName(span) : `${dim === "layer" ? "L" : "H"}${span[0]}` }));
  const holding = (/** @type {Span[]} */ spans, /** @type {number} */ index) => spans.findIndex(([first, end]) => first <= index && index < end);
  const places = chosen.map((cell) => placeOf(sweep, cell)).filter((place) => place !== null)
    .map(({ row, col }) => ({ row: holding(rows, row), col: holding(columns, col) })).filter(({ row, col }) => row >= 0 && col >= 0);
  const most = Math.max(1, ...rows.map(([first, end]) => end - first));
  /** @param {Span} span @param {number} col @returns {import("./matrix.js").Label} */
  const label = ([first, end], col) => {
    const warn = range([first, end]).some((position) => clean[position] !== corrupted[position]);
    if (!narrow(col)) return { text: `${isolated(clean[first] ?? "")} ${first}`.trim(), warn };
    return end <= (sweep.first ?? 0) ? { text: `0–${end - 1} the same`, faint: true } : { ...bandLabel([first, end], clean[first] ?? ""), warn };
  };
  return {
    rows: rows.length, cols: columns.length, describe, narrow,
    rowLabels: numbered(rows, dims[0]),
    colLabels: dims[1] === "head" ? numbered(columns, "head") : columns.map(label),
    rowTitle: `${dims[0]} ${upward ? "↑" : "↓"}${most > 1 ? ` ${most} a row` : ""}`, colTitle: `${dims[1]} →`,
    marks: [...hatches(sweep, rows, columns, colours.line), ...places.map((place) => ({ ...place, kind: /** @type {"selected"} */ ("selected") }))],
    colour(row, col) {
      const value = effect(row, col);
      return Number.isNaN(value) ? null : divergingColour(colours, value, bound);
    },
    text(row, col, letters) {
      const value = effect(row, col);
      const telling = Math.abs(value) >= 0.05 * bound && bound >= 0.1 && !hatchOf(sweep, rows[row], columns[col]);
      return telling ? writeShort(value, letters) : "";
    },
    below: (row, col) => effect(row, col) <= -0.05 * bound,
  };
}

/** @param {Sweep} sweep @param {Span} rows @param {Span} columns @returns {"hatch" | "estimate" | null} the mark of a cell of which not all has run */
function hatchOf(sweep, rows, columns) {
  const length = sweep.values.shape[1];
  const missing = range(rows).flatMap((row) => range(columns).map((col) => row * length + col)).filter((index) => Number.isNaN(sweep.values.data[index]));
  return !missing.length ? null : missing.every((index) => isEstimate(sweep, index)) ? "estimate" : "hatch";
}

/** @param {Sweep} sweep @param {Span[]} rows @param {Span[]} columns @param {string} colour @returns {Mark[]} one mark for each run of cells that have not run: thousands would be slow to draw */
export function hatches(sweep, rows, columns, colour) {
  const cols = columns.length;
  /** @type {Mark[]} */
  const marks = [];
  for (let row = 0; row < rows.length; row++) {
    const kinds = columns.map((span) => hatchOf(sweep, rows[row], span));
    for (let col = 0, from = 0; from < cols; from = col) {
      const kind = kinds[from];
      for (col = from + 1; col < cols && kinds[col] === kind; col++);
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

/** @param {Span} span */
function isSeveral([first, end]) {
  return end - first > 1;
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
