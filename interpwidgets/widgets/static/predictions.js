// The table of predictions: the most likely tokens, one column of probabilities for each run.
import { h, fill } from "./dom.js";
import { elide } from "./tokens.js";

/**
 * @typedef {{key: string, label: string, title?: string, quiet?: boolean}} Column `quiet`: the run that others are compared with
 * @typedef {{id: number, text: string} & Record<string, any>} Row a probability (0 to 1) or null under each column's key
 */

/**
 * What the model's predictions are of.
 * @param {any} header
 */
export function predictionOf(header) {
  return header?.causal === false ? "masked token" : "next token";
}

/**
 * Where a prompt's answer is read, as the caption of its predictions.
 * @param {any} header @param {any} prompt
 * @returns {(string | Node)[]}
 */
export function answerCaption(header, prompt) {
  const at = prompt?.answer_position;
  if (header?.causal === false && at === null) return [`nothing is masked: put ${header.mask ?? "the mask token"} into the prompt to see what the model fills in`];
  const of = predictionOf(header);
  return at === undefined ? [of] : [`${of} ${header?.causal === false ? "at" : "after"} position ${at} `, h("b", {}, prompt.tokens[at]?.text ?? "")];
}

/**
 * @param {number | null | undefined} probability
 * @returns {string}
 */
export function percent(probability) {
  if (probability === null || probability === undefined) return "–";
  if (probability < 0.001) return "<0.1%";
  return `${(100 * probability).toFixed(1)}%`;
}

/**
 * @param {{label: string, size?: number, onRow?: (row: Row) => void}} spec `size` rows keep their place before anything came;
 *   with `onRow` each token is a button
 */
export function predictionTable({ label, size = 10, onRow }) {
  const head = h("tr");
  const body = h("tbody");
  const note = h("p", { class: "iw-note" });
  const el = h("div", { class: "iw-predictions" },
    h("table", { class: "iw-table", "aria-label": label }, h("thead", {}, head), body), note);
  let shown = "";
  return {
    el,
    /** @param {Row[]} rows @param {Column[]} columns @param {string | Node} [remark] @param {string} [of] what is predicted */
    update(rows, columns, remark = "", of = "next token") {
      fill(note, remark);
      const next = JSON.stringify([rows, columns, of]);
      // A button that is rebuilt between press and release is not clicked.
      if (next === shown) return;
      shown = next;
      const most = Math.max(1e-9, ...rows.flatMap((row) => columns.map((column) => row[column.key] ?? 0)));
      fill(head, h("th", { scope: "col" }, of), ...columns.map((column) => h("th", { scope: "col", title: column.title }, column.label)));
      // A column of which nothing is known says so in its head, once.
      const known = columns.map((column) => rows.some((row) => (row[column.key] ?? null) !== null));
      const lines = rows.map((row) => {
        const token = onRow
          ? h("button", { type: "button", class: "iw-table__token iw-table__token--target", title: `${row.text} · id ${row.id}`, "data-key": row.id, onclick: () => onRow(row) }, elide(row.text, 16))
          : h("span", { class: "iw-table__token", title: `${row.text} · id ${row.id}` }, elide(row.text, 16));
        return h("tr", {}, h("th", { scope: "row" }, token), ...columns.map((column, index) => {
          if (!known[index]) return h("td");
          const share = row[column.key];
          const bar = h("span", { class: column.quiet ? "iw-bar iw-bar--quiet" : "iw-bar", style: `--iw-share:${(share ?? 0) / most}` });
          return h("td", {}, h("span", { class: "iw-table__cell" }, share === null || share === undefined ? h("span", { class: "iw-bar--none" }) : bar, h("span", { class: "iw-table__number" }, percent(share))));
        }));
      });
      const blank = () => h("span", { class: `iw-table__token${onRow ? " iw-table__token--target" : ""}` }, "\u00a0");
      while (lines.length < size) lines.push(h("tr", { "aria-hidden": "true" }, h("th", {}, blank()), ...columns.map(() => h("td"))));
      fill(body, ...lines);
    },
  };
}
