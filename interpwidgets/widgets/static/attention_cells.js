// What the cells of a head's large pattern stand for: positions, weights, and the words that say them.
import { isolated } from "./tokens.js";
import { binOf } from "./weights.js";

/**
 * @typedef {import("./tokens.js").Token} Token
 * @typedef {"now" | "baseline" | "difference"} Shown
 * @typedef {{
 *   overview: import("./weights.js").Overview | null, head: import("./weights.js").Detail | null, selected: import("./weights.js").Head,
 *   edges: number[][], binned: boolean, first: number, tokens: Token[][], shown: Shown,
 * }} Picture
 *   `head`: what has come of the selected one; `edges`: where the rows and the columns of bins begin, position 0 among them; `binned`: whether a cell is
 *   a bin; `first`: the first position that is not hidden; `tokens`: the queries and the keys
 */

/** @param {Picture} picture */
export function cellsOf({ overview, head, selected, edges, binned, first, tokens, shown }) {
  const masked = (/** @type {number} */ query, /** @type {number} */ key) => (overview?.causal ?? true) && key > query;
  /** Which positions a row or column stands for. @param {0 | 1} axis @param {number} index @returns {[number, number]} first and end */
  const positions = (axis, index) => {
    const at = index + first;
    return binned ? [edges[axis][at] ?? 0, edges[axis][at + 1] ?? 1] : [at, at + 1];
  };
  /** The row or column in which a position is. @param {number} axis @param {number} position */
  const indexOf = (axis, position) => (binned ? binOf(edges[axis])[position] : position) - first;
  /** Whether no query of a row sees a key of a column. @param {number} row @param {number} col */
  const isBlank = (row, col) => masked(positions(0, row)[1] - 1, positions(1, col)[0]);
  const isCut = (/** @type {number} */ query, /** @type {number} */ key) =>
    !!overview?.cut.some(([layer, which, from, to]) => layer === selected.layer && which === selected.head && from === query && to === key);

  /** The weights that cells are drawn by: exact if they have come, else the largest of each bin. @param {Shown} kind @returns {(row: number, col: number) => number} */
  function weightsOf(kind) {
    if (head) {
      if (binned) return (row, col) => head.binned[kind](row + first, col + first);
      if (!head.coarse) return (row, col) => head.exact[kind](row + first, col + first);
      const [rowBin, colBin] = [binOf(head.edges), binOf(head.keyEdges)];
      return (row, col) => (head.has(row + first, col + first) ? head.exact[kind](row + first, col + first) : head.binned[kind](rowBin[row + first], colBin[col + first]));
    }
    if (!overview) return () => 0;
    const { now, baseline } = overview;
    const [rowBin, colBin] = [binOf(overview.edges), binOf(overview.key_edges)];
    const { layer, head: index } = selected;
    return (row, col) => {
      const [query, key] = [rowBin[positions(0, row)[0]], colBin[positions(1, col)[0]]];
      return kind === "difference" ? now(layer, index, query, key) - baseline(layer, index, query, key) : (kind === "now" ? now : baseline)(layer, index, query, key);
    };
  }

  /** What a cell says. @param {number} row @param {number} col */
  function describe(row, col) {
    const [rows, cols] = [positions(0, row), positions(1, col)];
    if (rows[1] - rows[0] === 1 && cols[1] - cols[0] === 1) return sentence(rows[0], cols[0], row, col);
    const place = `${span("query", "queries", rows)} → ${span("key", "keys", cols)}`;
    if (isBlank(row, col)) return `${place}: masked, a query cannot look ahead`;
    const most = shown === "difference" ? "largest difference" : "largest";
    if (!head || !hasAll(head, rows, cols)) return `${place}: ${most} about ${signed(weightsOf(shown)(row, col), 2)}`;
    let found = [rows[0], cols[0]];
    for (const query of range(rows)) for (const key of range(cols)) if (Math.abs(head.exact[shown](query, key)) > Math.abs(head.exact[shown](found[0], found[1]))) found = [query, key];
    return `${place}, ${most}: ${sentence(found[0], found[1], row, col)}`;
  }
  /** @param {number} query @param {number} key @param {number} row @param {number} col the cell that they are in */
  function sentence(query, key, row, col) {
    const edge = `query ${query} ${isolated(tokenAt(tokens[0], query))} → key ${key} ${isolated(tokenAt(tokens[1], key))}`;
    if (masked(query, key)) return `${edge}: masked, a query cannot look ahead`;
    const exact = !!head?.has(query, key);
    const read = (/** @type {"now" | "baseline"} */ kind) => (exact && head ? head.exact[kind](query, key).toFixed(4) : weightsOf(kind)(row, col).toFixed(2));
    const before = overview?.acts ? ` (baseline ${read("baseline")})` : "";
    const among = exact || !head ? "" : ", the largest of its bin";
    return `${edge}: ${exact ? "" : "about "}${read("now")}${among}${before}${isCut(query, key) ? " · cut" : ""}`;
  }

  return { masked, positions, indexOf, isBlank, isCut, weightsOf, describe };
}

/** The token at a position, or the position where its token is not known. @param {Token[]} tokens @param {number} position */
export function tokenAt(tokens, position) {
  return tokens[position]?.text ?? String(position);
}

/** @param {import("./weights.js").Detail} head @param {[number, number]} rows @param {[number, number]} cols @returns {boolean} whether all exact weights there have come */
export function hasAll(head, rows, cols) {
  return range(rows).every((query) => range(cols).every((key) => head.has(query, key)));
}

/** @param {[number, number]} range @returns {number[]} */
export function range([first, end]) {
  return Array.from({ length: end - first }, (_, index) => first + index);
}

/** @param {string} one @param {string} several @param {[number, number]} range */
function span(one, several, [first, end]) {
  return end - first === 1 ? `${one} ${first}` : `${several} ${first}–${end - 1}`;
}

/** @param {number} value @param {number} digits */
function signed(value, digits) {
  return value.toFixed(digits).replace("-", "−");
}
