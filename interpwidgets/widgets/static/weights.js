// The weights of an attention pattern as they have come: exact, or the largest of each bin.
import { decode } from "./wire.js";

/**
 * @typedef {import("./wire.js").Decoded} Decoded
 * @typedef {"decoder" | "encoder" | "cross"} Stack whose attention: "cross" is from the decoder to the encoder
 * @typedef {{layer: number, head: number}} Head
 * @typedef {{stack: Stack, layers: number, heads: number, bins: number, keyBins: number, edges: number[], key_edges: number[], stacks: Stack[],
 *   causal: boolean, rests: boolean, present: boolean[], acts: boolean, changed: Decoded | null, exact: boolean, ablated: [number, number, string][],
 *   cut: [number, number, number, number][], now: Read, baseline: Read}} Overview
 *   `rests`: heads rest on position 0, which may be hidden; `acts`: experiments are on; `changed`: by how much at most, (layer, head); without `exact`, by that much at least
 * @typedef {(layer: number, head: number, query: number, key: number) => number} Read the largest weight of a bin
 * @typedef {(query: number, key: number) => number} Weight
 * @typedef {{now: Weight, baseline: Weight, difference: Weight}} Weights
 */

/**
 * All heads, small: of what experiments change, only the layers from the first one on have come.
 * @param {any} base `_baseline_overview` @param {any} result `_overview`
 * @returns {Overview | null}
 */
export function overviewOf(base, result) {
  const before = decode(base?.weights);
  if (!before || result?.stack !== base.stack) return null;
  const [now, first] = [decode(result.now), result.first];
  const [layers, heads, bins, keyBins] = before.shape;
  /** @param {Decoded} array @param {number} from @returns {Read} */
  const read = (array, from) => (layer, head, query, key) => array.data[(((layer - from) * heads + head) * bins + query) * keyBins + key] / 255;
  const [baseline, changed] = [read(before, 0), now ? read(now, first) : null];
  return {
    ...base, layers, heads, bins, keyBins, baseline, now: (layer, head, query, key) => (changed && layer >= first ? changed : baseline)(layer, head, query, key),
    acts: result.acts, changed: decode(result.changed), exact: result.exact, ablated: result.ablated, cut: result.cut,
  };
}

/** The bin of each position. @param {number[]} edges */
export function binOf(edges) {
  const bins = new Uint16Array(edges[edges.length - 1] ?? 0);
  for (let bin = 0; bin + 1 < edges.length; bin++) bins.fill(bin, edges[bin], edges[bin + 1]);
  return bins;
}

/**
 * The selected head. Of a long prompt, bins come for the whole and exact weights for windows.
 * @param {any} base `_baseline_detail` @param {any} result `_detail`
 */
export function detailOf(base, result) {
  const before = decode(base?.weights);
  const same = ["stack", "layer", "head"].every((name) => base?.[name] === result?.[name]);
  if (!before || !same) return null;
  const { version, stack, layer, head, acts, bound } = result;
  const [now, difference] = [decode(result.now) ?? before, decode(result.difference)];
  const coarse = !!base.edges;
  const [edges, keyEdges] = /** @type {number[][]} */ (coarse ? [base.edges, base.key_edges] : before.shape.map((side) => Array.from({ length: side + 1 }, (_, index) => index)));
  const [queries, keys] = [edges[edges.length - 1], keyEdges[keyEdges.length - 1]];
  const bins = before.shape[1];
  const scale = coarse ? 255 : 1;
  /** @type {Weights} the largest of each bin */
  const binned = {
    now: (query, key) => now.data[query * bins + key] / scale,
    baseline: (query, key) => before.data[query * bins + key] / scale,
    difference: (query, key) => (difference ? ((difference.data[query * bins + key] - 127) / 127) * bound : binned.now(query, key) - binned.baseline(query, key)),
  };
  const all = coarse ? () => new Float32Array(queries * keys).fill(NaN) : null;
  /** @type {Float32Array} NaN where a weight has not come */
  const exactBefore = all?.() ?? /** @type {Float32Array} */ (before.data);
  const exactNow = now === before ? exactBefore : all?.() ?? /** @type {Float32Array} */ (now.data);
  /** @type {Weights} */
  const exact = {
    now: (query, key) => exactNow[query * keys + key],
    baseline: (query, key) => exactBefore[query * keys + key],
    difference: (query, key) => exactNow[query * keys + key] - exactBefore[query * keys + key],
  };
  return {
    stack, layer, head, acts, version, coarse, edges, keyEdges, queries, keys, binned, exact, kv_head: base.kv_head,
    has: (/** @type {number} */ query, /** @type {number} */ key) => !Number.isNaN(exactBefore[query * keys + key]),
    /** @param {any} window `_window` @returns {boolean} whether it was one of this head's */
    take(window) {
      const baseline = decode(window?.baseline);
      if (!coarse || !baseline || window.version !== version) return false;
      const changed = decode(window.now);
      const [[top, bottom], [left, right]] = [window.rows, window.cols];
      for (let query = top; query < bottom; query++) {
        const line = (query - top) * (right - left);
        exactBefore.set(/** @type {Float32Array} */ (baseline.data).subarray(line, line + right - left), query * keys + left);
        if (changed) exactNow.set(/** @type {Float32Array} */ (changed.data).subarray(line, line + right - left), query * keys + left);
      }
      return true;
    },
  };
}

/** @typedef {NonNullable<ReturnType<typeof detailOf>>} Detail */
