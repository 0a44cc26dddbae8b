// Bands: runs of positions of a long prompt, or of layers of a deep model, that are one column or row each until they are opened.
import { elide } from "./tokens.js";

/**
 * @typedef {[first: number, end: number]} Span the positions, or layers, of a column or row
 * @typedef {ReturnType<typeof createFold>} Fold
 */

/** Spans that a folded prompt has at most before any is opened. */
const MOST_BANDS = 64;

/**
 * @param {number[]} edges where bands begin, and where the last one ends
 * @param {(span: Span) => boolean} isOpen
 * @param {number} alone bands at the start that are joined with no others
 * @returns {Span[]} several bands together where they are too many, a band, or single places of an open one
 */
export function foldedSpans(edges, isOpen, alone = 0) {
  const bands = edges.length - 1;
  const joined = Math.max(1, Math.ceil((bands - alone) / MOST_BANDS));
  /** @type {Span[]} */
  const spans = [];
  const add = (/** @type {number} */ from, /** @type {number} */ to) => {
    /** @type {Span} */
    const span = [edges[from], edges[to]];
    if (!isOpen(span)) spans.push(span);
    else if (to - from > 1) for (let band = from; band < to; band++) add(band, band + 1);
    else for (let place = span[0]; place < span[1]; place++) spans.push([place, place + 1]);
  };
  for (let from = 0, to = 0; from < bands; from = to) {
    to = Math.min(bands, from + (from < alone ? 1 : joined));
    add(from, to);
  }
  return spans;
}

/** The columns of a prompt or the rows of a model, of which some hold several places: positions, or layers. */
export function createFold() {
  /** @type {number[]} */
  let edges = [0];
  let alone = 0;
  /** @type {Span[]} in the order in which they were opened */
  let open = [];
  /** @type {Span[]} */
  let spans = [];
  const arrange = () => {
    spans = foldedSpans(edges, ([first, end]) => open.some((span) => span[0] === first && span[1] === end), alone);
  };
  /** @param {number} place */
  const indexOf = (place) => {
    let [low, high] = [0, spans.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (spans[middle][1] > place) high = middle;
      else low = middle + 1;
    }
    return low;
  };
  const isBand = (/** @type {number} */ index) => !!spans[index] && spans[index][1] - spans[index][0] > 1;
  return {
    /**
     * @param {number[] | null} next edges of bands; null where each place stands alone
     * @param {number} length places
     * @param {number} [kept] bands at the start that stay closed
     * @returns {boolean} whether the bands are others than before, so that all are closed
     */
    update(next, length, kept = 0) {
      const wanted = next ?? Array.from({ length: length + 1 }, (_, place) => place);
      const same = kept === alone && wanted.length === edges.length && wanted.every((edge, index) => edge === edges[index]);
      if (same) return false;
      [edges, alone, open] = [wanted, kept, []];
      if (next) arrange();
      else spans = wanted.slice(1).map((end) => [end - 1, end]);
      return true;
    },
    spans: () => spans,
    indexOf,
    isBand,
    anyBand: () => spans.some(([first, end]) => end - first > 1),
    anyOpen: () => open.length > 0,
    /**
     * @param {number} index
     * @param {boolean} [beside] leaves what is open elsewhere open
     * @returns {boolean} whether there was something to open
     */
    open(index, beside = false) {
      if (!isBand(index) || index < alone) return false;
      const [first, end] = spans[index];
      open = [...open.filter((span) => beside || (span[0] <= first && end <= span[1])), [first, end]];
      arrange();
      return true;
    },
    /** @param {number} place opens what it is in */
    reveal(place) {
      while (this.open(indexOf(place)));
    },
    /** @returns {Span | null} what was opened last, and is one again */
    close() {
      const last = open[open.length - 1];
      if (!last) return null;
      open = open.slice(0, -1).filter(([first, end]) => first < last[0] || end > last[1]);
      arrange();
      return last;
    },
    closeAll() {
      open = [];
      arrange();
    },
  };
}

/** @param {Span} span @returns {string} `16–31` */
export function bandName([first, end]) {
  return end - first === 1 ? String(first) : `${first}–${end - 1}`;
}

/** @param {Span} span @param {string} token the first one's, of which as much is written as leaves the numbers whole @returns {import("./matrix.js").Label} */
export function bandLabel(span, token) {
  const name = bandName(span);
  return { text: `${name} ${elide(token, Math.max(2, 12 - name.length))}`, faint: true };
}
