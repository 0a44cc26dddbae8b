// Tracked tokens: their probability and rank over the layers at one position.
import { h, fill, keepFocus, vector } from "./dom.js";
import { lineChart, lineLook } from "./linechart.js";
import { rankScale, writeMetric, largestKnown } from "./lens_metrics.js";

/**
 * @typedef {import("./wire.js").Decoded} Decoded
 * @typedef {{id: number, tokens: {id: number, text: string}[], probability: Decoded, first: number, rank: Decoded, nowProbability: Decoded | null, nowRank: Decoded | null}} Tracks
 *   arrays are (token, row, position), of the positions from `first` on
 */

/** @param {{signal: AbortSignal, onRemove: (token: number) => void}} spec */
export function createTracks({ signal, onRemove }) {
  /** @type {Map<number, number>} a token keeps its look while others come and go */
  const slots = new Map();
  const caption = h("p", { class: "iw-caption iw-lens__caption" });
  const list = h("div", { class: "iw-chips", role: "list", "aria-label": "Tracked tokens" });
  const [probability, rank] = [lineChart(signal), lineChart(signal)];
  const rankTitle = h("p", { class: "iw-caption" });
  const charts = h("div", { class: "iw-lens__charts" },
    h("div", { class: "iw-lens__chart" }, h("p", { class: "iw-caption" }, "probability ↑   layer →"), probability.el),
    h("div", { class: "iw-lens__chart" }, rankTitle, rank.el));
  const el = h("section", { class: "iw-lens__tracks iw-veil", "aria-label": "Tracked tokens over layers" }, caption, list, charts);

  /** @param {Tracks} tracks */
  const assign = (tracks) => {
    const present = new Set(tracks.tokens.map((token) => token.id));
    for (const id of [...slots.keys()]) if (!present.has(id)) slots.delete(id);
    for (const id of present) {
      const taken = new Set(slots.values());
      if (!slots.has(id)) slots.set(id, [...taken, 0].findIndex((_, slot) => !taken.has(slot)));
    }
  };
  return {
    el,
    /**
     * @param {Tracks | null} tracks @param {import("./lens_reading.js").Cell} cell @param {string[]} names of the rows
     * @param {string} place the position, in words
     */
    update(tracks, cell, names, place) {
      el.hidden = !tracks?.tokens.length;
      if (!tracks?.tokens.length) return;
      assign(tracks);
      const [, rows, cols] = tracks.probability.shape;
      const column = (/** @type {Decoded} */ array, /** @type {number} */ token) =>
        Float32Array.from({ length: rows }, (_, row) => array.data[(token * rows + row) * cols + cell.col - tracks.first]);
      const slotOf = (/** @type {number} */ index) => slots.get(tracks.tokens[index].id) ?? 0;
      const lines = (/** @type {Decoded} */ before, /** @type {Decoded | null} */ now) => tracks.tokens.flatMap((_, index) => [
        { values: column(before, index), slot: slotOf(index), quiet: !!tracks.nowProbability },
        ...(now ? [{ values: column(now, index), slot: slotOf(index), quiet: false }] : [])]);
      const [likely, ranked] = [lines(tracks.probability, tracks.nowProbability), lines(tracks.rank, tracks.nowRank)];
      const top = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].find((bound) => bound >= largestKnown(...likely.map((line) => line.values))) ?? 1;
      fill(rankTitle, `rank${tracks.nowProbability && !tracks.nowRank ? " of the baseline" : ""} ↑ (0 = top, log scale)   layer →`);
      const words = tracks.tokens.map((token) => token.text).join(", ");
      fill(caption, "tracked at ", h("b", {}, place), tracks.nowProbability ? " · pale: baseline" : "");
      probability.update({ label: `Probability of ${words} over layers, ${place}`, names, lines: likely, at: cell.row,
        share: (value) => value / top, ticks: [0, 0.5, 1].map((at) => ({ at, text: String(+(at * top).toPrecision(2)) })) });
      const scale = rankScale(largestKnown(...ranked.map((line) => line.values)));
      rank.update({ label: `Rank of ${words} over layers, ${place}`, names, lines: ranked, at: cell.row, ...scale });

      /** @param {string} metric @param {Decoded} before @param {Decoded | null} now @param {number} index */
      const written = (metric, before, now, index) => [before, now].filter((array) => array !== null)
        .map((array) => writeMetric(metric, array.data[(index * rows + cell.row) * cols + cell.col - tracks.first])).join(" → ");
      keepFocus(list, () => fill(list, ...tracks.tokens.map((token, index) => {
        const { stroke, dashes } = lineLook(slotOf(index));
        const swatch = vector("svg", { class: "iw-lens__swatch", width: 20, height: 8, "aria-hidden": "true" },
          vector("path", { class: "iw-chart__line", d: "M0 4H20", style: `stroke:${stroke};stroke-dasharray:${dashes}` }));
        return h("span", { class: "iw-chip iw-lens__track", role: "listitem", title: `id ${token.id}` }, swatch,
          h("span", { class: "iw-lens__word" }, token.text),
          h("span", { class: "iw-lens__number" }, written("probability", tracks.probability, tracks.nowProbability, index), " · rank ", written("rank", tracks.rank, tracks.nowRank, index)),
          h("button", { type: "button", class: "iw-chip__remove", "aria-label": `Stop tracking ${token.text}`, "data-key": token.id, onclick: () => onRemove(token.id) }, "×"));
      })));
    },
  };
}
