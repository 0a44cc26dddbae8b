// The numbers of a patching map: effects from raw metric values, how they are written, which cell is which patch.
import { bandName } from "./bands.js";

/**
 * @typedef {import("./bands.js").Span} Span
 * @typedef {{site: string, layer: number, head: number | null, position: number | null}} PatchCell null: all of them
 * @typedef {{id: number, site: string, layer: number | null, dims: string[], values: import("./wire.js").Decoded, clean: number,
 *   corrupted: number, baseline: number, direction: "denoise" | "noise", metric: string, units: string, gap_is_zero: boolean,
 *   labels: {position?: string[], corrupted?: string[]}, first?: number, estimate?: import("./wire.js").Decoded | null, doubt?: string, stopped?: boolean,
 *   compared?: {now: Sweep, before: Sweep}}} Sweep
 *   `values` (row, column): the raw metric of each patched run, NaN where it has not run yet, for which `estimate` stands until then; `first`: the columns before it are `baseline`, alike in both prompts; `doubt`
 *   says where the estimate is far off; `layer` is set when the rows are that layer's heads;
 *   `compared`: the maps of which this is the difference
 */

/** @type {Record<string, string>} */
export const METRIC_NAMES = { logit_diff: "logit difference", log_probability: "log-probability", probability: "probability", kl: "KL from the clean run" };

/** @param {Sweep} sweep @param {number} index @returns {boolean} whether the cell shows an estimate: it has not run */
export function isEstimate({ values, estimate }, index) {
  return Number.isNaN(values.data[index]) && !!estimate && !Number.isNaN(estimate.data[index]);
}

/** @param {Sweep} sweep @param {number} index @returns {number} the raw metric that the cell shows, NaN if nothing is known of it */
export function valueAt(sweep, index) {
  return isEstimate(sweep, index) ? /** @type {import("./wire.js").Decoded} */ (sweep.estimate).data[index] : sweep.values.data[index];
}

/**
 * What a patch did, in the metric's units or as a share of the gap between the clean and the corrupted run.
 * @param {Pick<Sweep, "clean" | "corrupted" | "baseline">} sweep @param {number} value @param {boolean} share
 */
export function effectOf({ clean, corrupted, baseline }, value, share) {
  // A sum in another order differs in the last bits of a float32: that is no effect.
  const change = Math.abs(value - baseline) <= 1e-6 * Math.abs(baseline) ? 0 : value - baseline;
  return share ? change / (clean - corrupted) : change;
}

/**
 * The value at the ends of the palette: the whole gap, so that colours hold still while a map fills; more if an effect is larger. Estimates
 * do not count, for they may be far off, and the colours would change when they go; unless there is no gap.
 * @param {Sweep[]} sweeps maps that share one scale @param {boolean} share
 */
export function effectBound(sweeps, share) {
  let most = 0;
  for (const sweep of sweeps) {
    // A difference may be a small part of the gap, and is to be seen.
    most = Math.max(most, (sweep.compared ? 0.1 : 1) * (share ? 1 : Math.abs(sweep.clean - sweep.corrupted)));
    for (let index = 0; index < sweep.values.data.length; index++) {
      const value = sweep.gap_is_zero ? valueAt(sweep, index) : sweep.values.data[index];
      const size = Math.abs(effectOf(sweep, value, share));
      if (size > most && size < Infinity) most = size;
    }
  }
  return most || 1;
}

/**
 * By how much the effect of each patch differs from that in the baseline, where both have run: a map whose gap is the baseline's.
 * @param {Sweep} now @param {Sweep | null} before null while it has not come
 * @returns {Sweep}
 */
export function differenceOf(now, before) {
  const alike = before && ["site", "direction", "metric"].every((name) => before[/** @type {"site"} */ (name)] === now[/** @type {"site"} */ (name)]) && `${before.values.shape}` === `${now.values.shape}`;
  if (!alike) return { ...now, estimate: null, doubt: "", values: { data: new Float32Array(now.values.data.length).fill(NaN), shape: now.values.shape }, baseline: 0 };
  const data = now.values.data.map((value, index) => effectOf(now, value, false) - effectOf(before, before.values.data[index], false));
  // As in `effectOf`: a sum in another order is no difference.
  const least = 1e-6 * Math.max(Math.abs(now.baseline), Math.abs(before.baseline));
  return { ...before, id: now.id, estimate: null, doubt: "", stopped: now.stopped || before.stopped, values: { data: data.map((value) => (Math.abs(value) <= least ? 0 : value)), shape: now.values.shape }, baseline: 0, compared: { now, before } };
}

/**
 * The cell of these rows and columns whose effect is largest; one that is not known yet only if none is.
 * @param {Sweep} sweep @param {Span} rows @param {Span} columns
 * @returns {{row: number, col: number}}
 */
export function strongestCell(sweep, rows, columns) {
  let [most, found] = [-1, { row: rows[0], col: columns[0] }];
  for (let row = rows[0]; row < rows[1]; row++) {
    for (let col = columns[0]; col < columns[1]; col++) {
      const size = Math.abs(valueAt(sweep, row * sweep.values.shape[1] + col) - sweep.baseline);
      if (size > most) [most, found] = [size, { row, col }];
    }
  }
  return found;
}

/** @param {Sweep} sweep @returns {number} the row with the largest effect known so far */
export function strongestRow(sweep) {
  const [rows, cols] = sweep.values.shape;
  return strongestCell(sweep, [0, rows], [0, cols]).row;
}

/** @param {Sweep} sweep @returns {number} how many cells have not run */
export function countUnknown({ values }) {
  let count = 0;
  for (const value of values.data) if (Number.isNaN(value)) count++;
  return count;
}

/**
 * @param {number} value
 * @param {boolean} [signed] a plus as well
 */
export function writeNumber(value, signed = false) {
  if (Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const digits = size === Infinity ? "∞" : size !== 0 && size < 1e-3 ? size.toExponential(1).replace("-", "−") : size.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
  return (value < 0 ? "−" : signed && value > 0 ? "+" : "") + digits;
}

/**
 * A number short enough for a cell, within a tenth of itself, or nothing: half a number would be another number.
 * @param {number} value @param {number} letters
 */
export function writeShort(value, letters) {
  const size = Math.abs(value);
  for (const digits of [2, 1, 0]) {
    const text = size.toFixed(digits);
    const short = (value < 0 ? "−" : "") + text.replace(/^0\./, ".");
    if (short.length <= letters) return Math.abs(Number(text) - size) <= 0.1 * size ? short : "";
  }
  return "";
}

/** @param {Sweep} sweep @param {number} effect @param {boolean} share */
export function effectWords({ direction, units }, effect, share) {
  if (!share) return `${writeNumber(effect, true)}${units ? ` ${units}` : " in the metric"}`;
  return `${writeNumber(effect)} of the gap${direction === "denoise" ? " restored" : ""}`;
}

/** @param {Sweep} sweep @param {number} row @param {number} col @returns {PatchCell} */
export function cellOf({ site, layer, dims }, row, col) {
  if (layer !== null) return { site, layer, head: row, position: col };
  return dims[1] === "head" ? { site, layer: row, head: col, position: null } : { site, layer: row, head: null, position: col };
}

/** @param {Sweep} sweep @param {PatchCell} cell @returns {{row: number, col: number} | null} where a patch stands on this map, if it does */
export function placeOf({ site, layer, dims }, cell) {
  if (site !== cell.site) return null;
  if (layer !== null) return layer === cell.layer && cell.head !== null && cell.position !== null ? { row: cell.head, col: cell.position } : null;
  const [col, none] = dims[1] === "head" ? [cell.head, cell.position] : [cell.position, cell.head];
  return col !== null && none === null ? { row: cell.layer, col } : null;
}

/** @param {PatchCell} one @param {PatchCell} other */
export function sameCell(one, other) {
  return one.site === other.site && one.layer === other.layer && one.head === other.head && one.position === other.position;
}

/** @param {PatchCell} cell */
export function cellName({ layer, head, position }) {
  return `L${layer}${head === null ? "" : `H${head}`}${position === null ? "" : ` · position ${position}`}`;
}

/** @param {Sweep} sweep @param {Span} rows @param {Span} columns @returns {string} the name of a cell that is drawn, of one patch or of several */
export function spanName(sweep, rows, columns) {
  const cell = cellOf(sweep, rows[0], columns[0]);
  const several = cell.position !== null && columns[1] - columns[0] > 1;
  const name = cellName({ ...cell, position: several ? null : cell.position });
  return `${rows[1] - rows[0] > 1 ? name.replace(/^L\d+/, `L${bandName(rows)}`) : name}${several ? ` positions ${bandName(columns)}` : ""}`;
}
