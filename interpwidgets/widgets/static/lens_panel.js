// What stands in one cell of a logit lens: its likeliest tokens and every metric, for the baseline and for now.
import { h, fill, keepFocus } from "./dom.js";
import { LENS_METRICS, writeMetric } from "./lens_metrics.js";
import { topToken, topTokens, isTouched } from "./lens_reading.js";
import { predictionTable } from "./predictions.js";

/** @param {{onTrack: (token: number) => void}} spec called with the token of the table that was clicked */
export function createCellPanel({ onTrack }) {
  const caption = h("p", { class: "iw-caption iw-lens__caption" });
  const table = predictionTable({ label: "Top 10 of this cell", onRow: (row) => onTrack(row.id) });
  const head = h("tr");
  const body = h("tbody");
  const metrics = h("table", { class: "iw-table iw-lens__metrics", "aria-label": "Metrics of this cell" }, h("thead", {}, head), body);
  return {
    el: h("section", { class: "iw-lens__cell iw-veil", "aria-label": "Selected cell" }, caption,
      h("div", { class: "iw-lens__tables" }, table.el, metrics)),
    /**
     * @param {import("./lens_reading.js").Reading | null} baseline
     * @param {import("./lens_reading.js").Reading | null} now
     * @param {import("./lens_reading.js").Cell} cell
     * @param {{place: string, word: string, next: string, of: string, tracked: Set<number>, untouched: string, compared: string}} about the cell's layer and position, its
     *   token, the actual next token, what is predicted, the tokens that are tracked,
     *   what is said of a cell that does not differ from the baseline, and what that is
     */
    update(baseline, now, cell, { place, word, next, of, tracked, untouched, compared }) {
      fill(caption, h("b", {}, place), " ", h("span", { class: "iw-lens__word" }, word), next ? ` · next: ` : null, next ? h("span", { class: "iw-lens__word" }, next) : null);
      const known = baseline && topToken(baseline, cell) >= 0;
      const columns = [{ key: "baseline", label: now ? "baseline" : "probability", title: compared, quiet: !!now }, ...(now ? [{ key: "now", label: "now" }] : [])];
      const lines = known ? topTokens(baseline, now, cell) : [];
      const remark = now && !isTouched(now, cell) ? untouched
        : now && lines.some((line) => line.baseline === null || line.now === null) ? "–: not among that run's top 10"
        : known ? h("span", { class: "iw-guide" }, "click a token to track it over the layers") : "";
      keepFocus(table.el, () => {
        table.update(lines, columns, remark, of);
        for (const button of table.el.querySelectorAll("button")) button.setAttribute("aria-pressed", tracked.has(Number(button.dataset.key)) ? "true" : "false");
      });
      fill(head, h("th", { scope: "col" }, "metric"), ...columns.map(({ label, title }) => h("th", { scope: "col", title }, now ? label : "value")));
      fill(body, ...LENS_METRICS.map(({ value, text, says }) => {
        const unit = baseline?.units[value];
        const read = [baseline, ...(now ? [now] : [])].map((reading) => writeMetric(value, reading?.metrics[value]?.[cell.row * reading.cols + cell.col]));
        return h("tr", {}, h("th", { scope: "row", title: says }, text, unit ? h("span", { class: "iw-hint" }, ` ${unit}`) : null), ...read.map((number) => h("td", { title: baseline && !(value in baseline.metrics) ? "not computed yet: colour by it" : null }, number)));
      }));
    },
  };
}
