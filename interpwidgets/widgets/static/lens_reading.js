// A logit lens as it came over the wire: what stands in a cell, and the two runs' predictions side by side.
import { decode } from "./wire.js";
import { readBands } from "./lens_bands.js";

/**
 * @typedef {{row: number, col: number}} Cell row 0 is the embedding, col the position
 * @typedef {{id: number, rows: string[], cols: number, k: number, top: Int32Array, p: Float32Array, metrics: Record<string, Float32Array>,
 *   units: Record<string, string>, target: Int32Array, texts: Record<string, string>, touched: Uint8Array | null, filling?: number, folded?: Folded}} Reading
 *   `top` and `p` are (row, position, k), metrics and `touched` (row, position), `target` (position); `filling`: the reading whose rows are coming
 * @typedef {{number: number, edges: number[], bands: Record<string, import("./lens_bands.js").Bands>, changes: Record<string, import("./lens_bands.js").Bands>,
 *   most: Record<string, number>}} Folded of a long prompt, of which single cells come when they are looked at; `most`: each metric's largest size anywhere
 */

/**
 * @param {any} result the trait as it came
 * @returns {Reading | null} null when nothing was sent
 */
export function readLens(result) {
  if (result?.edges) return readBands(result);
  const [top, p, target, touched] = [decode(result?.top), decode(result?.p), decode(result?.target), decode(result?.touched)];
  if (!top || !p || !target) return null;
  const metrics = Object.entries(result.metrics ?? {}).map(([name, array]) => [name, decode(array)?.data]);
  return {
    id: result.id, rows: result.rows, cols: top.shape[1], k: top.shape[2], top: Int32Array.from(top.data), p: /** @type {Float32Array} */ (p.data),
    metrics: Object.fromEntries(metrics.filter(([, data]) => data)), units: result.units ?? {}, target: /** @type {Int32Array} */ (target.data),
    texts: result.texts ?? {}, touched: /** @type {Uint8Array | null} */ (touched?.data ?? null),
  };
}

/**
 * Put rows that have come where they belong.
 * @param {Reading | null} reading what is there; rows of another reading begin an empty one
 * @param {any} result the trait as it came: a reading of its rows, with the number of the `reading` and its first `row`
 * @returns {Reading | null}
 */
export function withRows(reading, result) {
  const part = readLens(result);
  if (!part) return reading;
  if (part.folded) return part;
  const cells = part.rows.length * part.cols;
  const blank = (/** @type {number} */ count) => new Float32Array(count).fill(NaN);
  const metrics = Object.keys(part.metrics).map((name) => [name, blank(cells)]);
  const whole = reading && reading.filling === result.reading ? reading : {
    ...part, filling: result.reading, top: new Int32Array(cells * part.k).fill(-1), p: blank(cells * part.k), metrics: Object.fromEntries(metrics), texts: {},
  };
  const from = result.row * part.cols;
  whole.top.set(part.top, from * part.k);
  whole.p.set(part.p, from * part.k);
  for (const [name, values] of Object.entries(part.metrics)) whole.metrics[name]?.set(values, from);
  return { ...whole, texts: { ...whole.texts, ...part.texts } };
}

/**
 * The reading under experiments whole: its rows before `result.row` are the baseline's, and did not come.
 * @param {any} result the trait as it came
 * @param {Reading | null} baseline
 * @returns {Reading | null} null while there is no baseline of its size
 */
export function withRowsBefore(result, baseline) {
  const part = readLens(result);
  if (!part || part.folded || !result.row) return part;
  if (baseline?.cols !== part.cols || baseline.rows.length !== part.rows.length) return null;
  /** @template {Float32Array | Int32Array} T @param {T} all @param {T} rest @param {number} each @returns {T} */
  const joined = (all, rest, each) => {
    const whole = /** @type {T} */ (all.slice());
    whole.set(rest, result.row * part.cols * each);
    return whole;
  };
  const metrics = Object.entries(part.metrics).filter(([name]) => baseline.metrics[name]);
  return {
    ...part, top: joined(baseline.top, part.top, part.k), p: joined(baseline.p, part.p, part.k), texts: { ...baseline.texts, ...part.texts },
    metrics: Object.fromEntries(metrics.map(([name, values]) => [name, joined(baseline.metrics[name], values, 1)])),
  };
}

/** @param {string[]} rows @param {number} row @returns {string} `emb` or `L12` */
export function rowName(rows, row) {
  const name = rows[row] ?? String(row);
  return /^\d+$/.test(name) ? `L${name}` : name;
}

/** @param {Reading} reading @param {number} token */
export function wordOf(reading, token) {
  return reading.texts[token] ?? `[${token}]`;
}

/** @param {Reading} reading @param {Cell} cell @returns {number} the likeliest token there, -1 while it is not known */
export function topToken(reading, { row, col }) {
  return reading.top[(row * reading.cols + col) * reading.k];
}

/** @param {Reading} reading @param {Cell} cell @returns {boolean} whether an experiment reaches this cell at all */
export function isTouched(reading, { row, col }) {
  return !reading.touched || reading.touched[row * reading.cols + col] === 1;
}

/**
 * The likeliest tokens of a cell in both runs, those of either first by their larger probability.
 * @param {Reading} baseline @param {Reading | null} now @param {Cell} cell
 * @returns {import("./predictions.js").Row[]} a probability is null where the token is not among that run's top k
 */
export function topTokens(baseline, now, { row, col }) {
  /** @type {Map<number, {id: number, text: string, baseline: number | null, now: number | null}>} */
  const rows = new Map();
  const add = (/** @type {Reading} */ reading, /** @type {"baseline" | "now"} */ key) => {
    const from = (row * reading.cols + col) * reading.k;
    for (let at = from; at < from + reading.k; at++) {
      const id = reading.top[at];
      if (id < 0) continue;
      const known = rows.get(id) ?? { id, text: wordOf(reading, id), baseline: null, now: null };
      rows.set(id, { ...known, [key]: reading.p[at] });
    }
  };
  add(baseline, "baseline");
  if (now) add(now, "now");
  const most = (/** @type {{baseline: number | null, now: number | null}} */ line) => Math.max(line.baseline ?? 0, line.now ?? 0);
  return [...rows.values()].sort((a, b) => most(b) - most(a)).slice(0, baseline.k);
}
