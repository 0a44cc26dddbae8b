// A logit lens of a long prompt: bands of every metric in 8 bits, and the exact cells that have come.
import { decode } from "./wire.js";

/**
 * @typedef {import("./lens_reading.js").Reading} Reading
 * @typedef {import("./bands.js").Span} Span
 * @typedef {"largest" | "smallest" | "farthest" | "mean"} Kept what a band shows of its values; "farthest" from 0
 * @typedef {{kept: Kept, value: (row: number, band: number) => number}} Bands NaN where nothing is known
 */

/** @param {any} coded one metric as it came @returns {Bands} */
function bandsOf({ codes, low, high, log, kept }) {
  const { data, shape } = /** @type {import("./wire.js").Decoded} */ (decode(codes));
  return {
    kept,
    value(row, band) {
      const code = data[row * shape[1] + band];
      if (code === 255) return NaN;
      const scaled = low + ((high - low) * code) / 254;
      return log ? Math.expm1(scaled) : scaled;
    },
  };
}

/**
 * @param {any} result the trait as it came, of a long prompt
 * @returns {Reading} without any cell yet
 */
export function readBands(result) {
  const { edges, rows, k } = result;
  const cols = edges[edges.length - 1];
  const cells = rows.length * cols;
  const all = (/** @type {Record<string, any>} */ metrics) => Object.fromEntries(Object.entries(metrics ?? {}).map(([name, coded]) => [name, bandsOf(coded)]));
  const reached = decode(result.touched);
  const touched = reached && new Uint8Array(cells);
  for (let band = 0; touched && band + 1 < edges.length; band++)
    for (let row = 0; row < rows.length; row++) touched.fill(reached.data[row * (edges.length - 1) + band], row * cols + edges[band], row * cols + edges[band + 1]);
  return {
    id: result.id, rows, cols, k, top: new Int32Array(cells * k).fill(-1), p: new Float32Array(cells * k).fill(NaN),
    metrics: Object.fromEntries(Object.keys(result.bands).map((name) => [name, new Float32Array(cells).fill(NaN)])),
    units: result.units ?? {}, target: new Int32Array(cols).fill(-1), texts: {}, touched,
    folded: { number: result.reading, edges, bands: all(result.bands), changes: all(result.changes), most: result.most },
  };
}

/**
 * What a column of several positions shows.
 * @param {Reading} reading @param {"bands" | "changes"} kind @param {string} metric @param {number} row @param {Span} span
 */
export function bandValue({ folded }, kind, metric, row, [first, end]) {
  const bands = folded?.[kind][metric];
  if (!folded || !bands) return NaN;
  let [found, sum, count] = [NaN, 0, 0];
  for (let band = folded.edges.indexOf(first); folded.edges[band] < end; band++) {
    const [value, width] = [bands.value(row, band), folded.edges[band + 1] - folded.edges[band]];
    if (Number.isNaN(value)) continue;
    [sum, count] = [sum + value * width, count + width];
    if (Number.isNaN(found) || isKept(bands.kept, value, found)) found = value;
  }
  return bands.kept === "mean" ? sum / count : found;
}

/** @param {Kept} kept @param {number} value @param {number} other @returns {boolean} whether a band shows `value` rather than `other`; of a mean, whether it is larger */
export function isKept(kept, value, other) {
  return kept === "farthest" ? Math.abs(value) > Math.abs(other) : kept === "smallest" ? value < other : value > other;
}

/**
 * Put cells that have come where they belong.
 * @param {Reading | null} reading @param {any} window `_window` @param {any} part its cells of this run @param {any} touched
 */
export function takeCells(reading, window, part, touched) {
  if (!reading?.folded || !part || window.reading !== reading.folded.number) return;
  const [[top, bottom], [left, right]] = [window.rows, window.cols];
  const width = right - left;
  /** @param {any} array @param {any} into @param {number} each numbers of a cell */
  const put = (array, into, each) => {
    const data = decode(array)?.data;
    for (let row = top; data && into && row < bottom; row++) into.set(data.subarray((row - top) * width * each, (row - top + 1) * width * each), (row * reading.cols + left) * each);
  };
  put(part.top, reading.top, reading.k);
  put(part.p, reading.p, reading.k);
  for (const [name, values] of Object.entries(part.metrics)) put(values, reading.metrics[name], 1);
  put(touched, reading.touched, 1);
  const target = decode(part.target);
  if (target) reading.target.set(target.data, left);
  Object.assign(reading.texts, part.texts);
}
