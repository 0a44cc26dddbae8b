// What a patching experiment patches and measures: site, metric with its tokens, direction, scale.
import { h, fill, attribute, choice, dropdown } from "./dom.js";
import { METRIC_NAMES, writeNumber } from "./effect.js";
import { isolated } from "./tokens.js";

/**
 * @typedef {{answer: {id: number, text: string}, foil: {id: number, text: string}, clean: number, corrupted: number, units: string,
 *   gap_is_zero: boolean}} Task
 * @typedef {{site: string, sites: string[], metric: string, direction: "denoise" | "noise", normalize: boolean, answer: string, foil: string,
 *   task: Task | null}} Settings
 */

/** @type {[string, string][]} */
const RESIDUAL_SITES = [
  ["resid_pre", "The residual stream entering the block"], ["resid_mid", "The residual stream between attention and MLP"],
  ["attn_out", "What attention adds to the residual stream"], ["mlp_out", "What the MLP adds to the residual stream"],
];
/** @type {[string, string][]} */
const HEAD_SITES = [
  ["z", "A head's output before the output projection, at all positions"], ["q", "A head's queries, at all positions"],
  ["k", "A head's keys, at all positions"], ["v", "A head's values, at all positions"],
];

/**
 * @param {{onSet: (changes: Record<string, unknown>) => void, byId: () => boolean}} spec `byId`: the session has no tokenizer, tokens are ids
 */
export function taskControls({ onSet, byId }) {
  /** @param {string} label @param {[string, string][]} sites */
  const siteChoice = (label, sites) => choice({ label, options: sites.map(([value, title]) => ({ value, text: value, title })), onChoose: (site) => onSet({ site }) });
  const [residual, head] = [siteChoice("Site, layer by position", RESIDUAL_SITES), siteChoice("Site, layer by head", HEAD_SITES)];
  const metric = dropdown({ label: "Metric", hidden: true, options: Object.entries(METRIC_NAMES), onChoose: (value) => onSet({ metric: value }) });
  const token = (/** @type {string} */ text) => (byId() && /^\d+$/.test(text.trim()) ? Number(text) : text);
  const answer = tokenField({ label: "Answer token", onSubmit: (text) => onSet({ answer: token(text) }) });
  const foil = tokenField({ label: "Foil token", onSubmit: (text) => onSet({ foil: token(text) }) });
  const minus = h("span", { "aria-hidden": "true" }, "−");
  const direction = choice({
    label: "Direction",
    options: [
      { value: "denoise", text: "Restore (denoise)", title: "Patch clean activations into the corrupted run: which restore the answer?" },
      { value: "noise", text: "Break (noise)", title: "Patch corrupted activations into the clean run: which break the answer?" },
    ],
    onChoose: (value) => onSet({ direction: value }),
  });
  const scale = choice({
    label: "Scale",
    options: [
      { value: "share", text: "Share of gap", title: "The change as a share of the gap between the clean and the corrupted run" },
      { value: "raw", text: "Raw", title: "The change in the metric's own units" },
    ],
    onChoose: (value) => onSet({ normalize: value === "share" }),
  });
  const facts = h("span", { class: "iw-hint" });
  const inWords = h("p", { class: "iw-caption iw-figure__only" });
  const row = (/** @type {string} */ name, /** @type {Node[]} */ ...parts) =>
    h("div", { class: "iw-row", role: "group", "aria-label": name }, h("span", { class: "iw-row__label" }, name), h("div", { class: "iw-controls" }, ...parts));
  const caption = (/** @type {string} */ text) => h("span", { class: "iw-hint" }, text);
  return {
    el: h("div", { class: "iw-task" },
      row("patch", h("span", { class: "iw-field" }, residual.el, caption("by position")), h("span", { class: "iw-field" }, head.el, caption("by head")), direction.el),
      row("measure", metric.el, h("span", { class: "iw-field" }, answer.el, minus, foil.el), scale.el, facts), inWords),
    /** @param {Settings} settings */
    update(settings) {
      const { site, sites, task } = settings;
      const reason = (/** @type {string} */ name) => (name === "resid_mid" ? "This model's blocks run attention and MLP in parallel: there is no residual stream between them" : `This model has no ${name} that can be patched`);
      const missing = Object.fromEntries([...RESIDUAL_SITES, ...HEAD_SITES].filter(([name]) => sites.length && !sites.includes(name)).map(([name]) => [name, reason(name)]));
      residual.update(site, missing);
      head.update(site, missing);
      metric.update(settings.metric);
      answer.el.hidden = settings.metric === "kl";
      foil.el.hidden = minus.hidden = settings.metric !== "logit_diff";
      answer.update(settings.answer, task?.answer.id);
      foil.update(settings.foil, task?.foil.id);
      direction.update(settings.direction);
      scale.update(settings.normalize && !task?.gap_is_zero ? "share" : "raw", task?.gap_is_zero ? { share: "Clean and corrupted score the same: there is no gap to divide by" } : {});
      const values = task ? `clean ${writeNumber(task.clean)} · corrupted ${writeNumber(task.corrupted)}${task.units ? ` ${task.units}` : ""}` : "";
      const tokens = task && settings.metric !== "kl" ? ` ${isolated(task.answer.text)}${settings.metric === "logit_diff" ? ` − ${isolated(task.foil.text)}` : ""}` : "";
      fill(facts, values);
      fill(inWords, `${settings.direction === "denoise" ? "denoising" : "noising"} · ${METRIC_NAMES[settings.metric] ?? settings.metric}${tokens} · ${values}`);
    },
  };
}

/**
 * A token edited in place, with its spaces visible.
 * @param {{label: string, onSubmit: (text: string) => void}} spec
 */
function tokenField({ label, onSubmit }) {
  let shown = "";
  const el = h("input", { type: "text", class: "iw-task__token", "aria-label": label, dir: "auto", spellcheck: "false", autocomplete: "off" });
  const size = () => attribute(el, "size", Math.max(3, [...el.value].length + 1));
  const restore = () => {
    el.value = shown;
    size();
  };
  const submit = () => {
    if (el.value === shown) return;
    shown = el.value;
    onSubmit(shown.replaceAll("␣", " ").replaceAll("↵", "\n").replaceAll("⇥", "\t"));
  };
  size();
  el.oninput = (event) => {
    if (/** @type {InputEvent} */ (event).isComposing) return;
    const caret = el.selectionStart;
    el.value = el.value.replaceAll(" ", "␣");
    el.setSelectionRange(caret, caret);
    size();
  };
  el.onblur = submit;
  el.onkeydown = (event) => {
    event.stopPropagation();
    if (event.isComposing) return;
    if (event.key === "Enter") submit();
    else if (event.key === "Escape") restore();
  };
  return {
    el,
    /** @param {string} text @param {number | undefined} id */
    update(text, id) {
      attribute(el, "title", `${id === undefined ? "" : `id ${id} · `}one token; Enter runs, ␣ is a space`);
      if (text === shown) return;
      // What is being typed is not overwritten by an answer to something else.
      const typing = el.matches(":focus") && el.value !== shown;
      shown = text;
      if (!typing) restore();
    },
  };
}
