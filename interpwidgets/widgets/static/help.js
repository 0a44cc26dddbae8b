// What a widget explains: the sheet of keys, the terms of the teaching layer, the presets and what to notice in them.
import { h, fill, attribute, closeWithEscape, dropdown, vector } from "./dom.js";

/**
 * @typedef {[tag: string, attributes: Record<string, string | number>, text: string]} Shape
 * @typedef {{name: string, text: string, drawing: Shape[]}} Term
 * @typedef {{name: string, clean: string, corrupted: string, notice: string}} PresetNote
 * @typedef {{keys: [string, string][], terms: Term[], presets: PresetNote[]}} Help
 */

/** @param {import("./wire.js").Wire} wire */
export function createHelp(wire) {
  const { model } = wire;
  /** @returns {Help} */
  const help = () => ({ keys: [], terms: [], presets: [], ...model.get("_help") });
  const texts = () => {
    const pair = model.get("_prompts");
    return pair ? [pair.clean?.text, pair.corrupted?.text] : [model.get("_prompt")?.text];
  };
  const current = () => help().presets.find((preset) => texts().every((text, index) => text === (index ? preset.corrupted : preset.clean)));

  const presets = dropdown({ label: "Preset prompts", hidden: true, options: [["", "Presets"]], onChoose: (name) => name && wire.request("preset", { name }) });
  const toggle = h("button", { type: "button", class: "iw-button", "aria-expanded": "false", "aria-keyshortcuts": "?", "aria-label": "Keys", title: "Keys", onclick: () => show(!!sheet.hidden) }, "?");
  const sheet = h("section", { class: "iw-sheet", hidden: true, "aria-label": "Keys" });
  closeWithEscape(toggle, sheet, () => show(false));
  /** @param {boolean} open */
  function show(open) {
    fill(sheet, h("dl", { class: "iw-sheet__keys" }, ...help().keys.map(([key, what]) => h("div", { class: "iw-sheet__line" }, h("dt", {}, key), h("dd", {}, what)))));
    sheet.hidden = !open;
    attribute(toggle, "aria-expanded", open ? "true" : "false");
  }

  const terms = h("div", { class: "iw-terms__names", role: "group", "aria-label": "Terms" });
  const explained = h("div", { class: "iw-terms__text", role: "status" });
  const notice = h("p", { class: "iw-terms__notice" });
  const teaching = h("section", { class: "iw-terms", hidden: true, "aria-label": "Explanations" }, terms, explained, notice);
  /** @type {string | null} */
  let opened = null;
  let listed = "";

  function explain() {
    const term = help().terms.find((each) => each.name === opened);
    fill(explained, term ? h("div", { class: "iw-term" }, drawing(term), h("p", { class: "iw-term__text" }, h("b", {}, term.name), ` ${term.text}`)) : null);
    for (const button of terms.querySelectorAll("button")) attribute(button, "aria-expanded", button.textContent === opened ? "true" : "false");
  }
  function list() {
    const names = help().terms.map((term) => term.name);
    if (names.join() === listed) return;
    listed = names.join();
    fill(terms, h("span", { class: "iw-row__label" }, "what is"), ...names.map((name) => h("button", { type: "button", class: "iw-button", "aria-expanded": "false", onclick: () => {
      opened = opened === name ? null : name;
      explain();
    } }, name)));
  }

  return {
    presets: presets.el,
    toggle,
    sheet,
    teaching,
    /** Open or close the sheet of keys. */
    flip: () => show(!!sheet.hidden),
    update() {
      const { presets: known } = help();
      presets.el.hidden = !known.length;
      presets.update(current()?.name ?? "", [["", "Presets"], ...known.map(({ name }) => /** @type {[string, string]} */ ([name, name]))]);
      teaching.hidden = !model.get("teaching");
      list();
      const preset = current();
      fill(notice, preset?.notice ? h("b", {}, "What to notice") : null, preset?.notice ? ` ${preset.notice} (Measured in SmolLM2-135M.)` : "Choose a preset to be told what to notice in it.");
      notice.hidden = !known.length;
    },
  };
}

/** @param {Term} term */
function drawing({ name, drawing: shapes }) {
  return vector("svg", { class: "iw-draw", viewBox: "0 0 300 92", role: "img", "aria-label": `${name}, drawn` }, ...shapes.map(([tag, attributes, text]) => vector(tag, attributes, text)));
}
