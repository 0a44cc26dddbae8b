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

/** Cells along the side of a tile: what has come of a long prompt's matrix is a small part of it. */
const TILE = 64;

/** @param {number} queries @param {number} keys @returns {{get: Weight, set: (query: number, key: number, row: Float32Array) => void}} NaN where nothing was set */
function sparseWeights(queries, keys) {
  const across = Math.ceil(keys / TILE);
  /** @type {(Float32Array | undefined)[]} */
  const tiles = new Array(across * Math.ceil(queries / TILE));
  return {
    get: (query, key) => tiles[Math.floor(query / TILE) * across + Math.floor(key / TILE)]?.[(query % TILE) * TILE + (key % TILE)] ?? NaN,
    set(query, key, row) {
      for (let from = 0; from < row.length; ) {
        const at = Math.floor(query / TILE) * across + Math.floor((key + from) / TILE);
        const inside = (key + from) % TILE;
        const count = Math.min(TILE - inside, row.length - from);
        (tiles[at] ??= new Float32Array(TILE * TILE).fill(NaN)).set(row.subarray(from, from + count), (query % TILE) * TILE + inside);
        from += count;
      }
    },
  };
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
  const tiled = coarse ? { before: sparseWeights(queries, keys), now: sparseWeights(queries, keys) } : null;
  const whole = (/** @type {Decoded} */ array) => /** @type {Weight} */ ((query, key) => array.data[query * keys + key]);
  const exactBefore = tiled?.before.get ?? whole(before);
  const exactNow = now === before ? exactBefore : tiled?.now.get ?? whole(now);
  /** @type {Weights} */
  const exact = { now: exactNow, baseline: exactBefore, difference: (query, key) => exactNow(query, key) - exactBefore(query, key) };
  return {
    stack, layer, head, acts, version, coarse, edges, keyEdges, queries, keys, binned, exact, kv_head: base.kv_head,
    has: (/** @type {number} */ query, /** @type {number} */ key) => !Number.isNaN(exactBefore(query, key)),
    /** @param {any} window `_window` @returns {boolean} whether it was one of this head's */
    take(window) {
      const baseline = decode(window?.baseline);
      if (!tiled || !baseline || window.version !== version) return false;
      const changed = decode(window.now);
      const [[top, bottom], [left, right]] = [window.rows, window.cols];
      for (let query = top; query < bottom; query++) {
        const line = (query - top) * (right - left);
        const part = (/** @type {Decoded} */ { data }) => /** @type {Float32Array} */ (data).subarray(line, line + right - left);
        tiled.before.set(query, left, part(baseline));
        if (changed) tiled.now.set(query, left, part(changed));
      }
      return true;
    },
  };
}

/** @typedef {NonNullable<ReturnType<typeof detailOf>>} Detail */
