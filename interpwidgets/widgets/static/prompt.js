// A prompt: its tokens, and in the same place the text to edit. Never trims what was typed.
import { h, fill, attribute } from "./dom.js";
import { tokenStrip } from "./tokens.js";

/**
 * @typedef {string | number[]} Question a prompt as it is asked for: text, or token ids
 * @typedef {{text: Question | null, bos: string, tokens: import("./tokens.js").Token[], source?: Prompt | null}} Prompt `text` null: it was given as
 *   token ids, and is written as these; `source`: what an encoder reads, where the model has one
 */

/** @param {Prompt} prompt @returns {Question} */
export function questionOf({ text, tokens }) {
  return text ?? tokens.map(({ id }) => id);
}

/**
 * @param {Prompt} prompt
 * @returns {string} what the editor starts from
 */
export function editableText(prompt) {
  return [questionOf(prompt)].flat().join(", ");
}

/** @param {Prompt} prompt that was edited @param {string} typed @returns {Question} ids where ids stood, if it is nothing else */
export function readTyped({ text }, typed) {
  return typeof text !== "string" && /^[\d\s,]*$/.test(typed) ? typed.match(/\d+/g)?.map(Number) ?? typed : typed;
}

/**
 * @param {{label: string, onSubmit: (typed: Question) => void, onToken?: (position: number, element: HTMLElement) => void,
 *   onHover?: (position: number | null) => void}} spec without `onToken` a click on a token opens the editor
 */
export function promptRow({ label, onSubmit, onToken, onHover }) {
  /** @type {Prompt} */
  let prompt = { text: "", bos: "", tokens: [] };
  const strip = tokenStrip({ label: `${label} tokens`, onToken, onHover });
  const edit = h("button", { type: "button", class: "iw-button iw-prompt__edit", "aria-label": `Edit ${label}`, onclick: () => open() }, "Edit");
  const input = h("textarea", { class: "iw-prompt__input", rows: 1, dir: "auto", spellcheck: "false", autocomplete: "off", "aria-label": label });
  const hint = h("span", { class: "iw-hint" });
  const editor = h("div", { class: "iw-prompt__editor", hidden: true }, input,
    h("div", { class: "iw-prompt__actions" },
      h("button", { type: "button", class: "iw-button iw-button--primary", onclick: () => submit() }, "Run"),
      h("button", { type: "button", class: "iw-button", onclick: () => close() }, "Cancel"), hint));
  const shown = h("div", { class: "iw-prompt__shown" }, strip.el, edit);
  const [name, remark] = [h("span", {}, label), h("span", { class: "iw-prompt__remark" })];
  const el = h("div", { class: "iw-row iw-prompt", role: "group", "aria-label": label }, h("span", { class: "iw-row__label" }, name, remark), shown, editor);

  const grow = () => {
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight + 2}px`;
  };
  function open() {
    input.value = editableText(prompt);
    fill(hint, typeof prompt.text !== "string" ? "token ids, separated by commas" : "Enter runs · Shift+Enter new line · Esc cancels");
    shown.hidden = true;
    editor.hidden = false;
    grow();
    input.focus();
    input.setSelectionRange(input.value.length, input.value.length);
  }
  function close() {
    editor.hidden = true;
    shown.hidden = false;
    edit.focus({ preventScroll: true });
  }
  function submit() {
    onSubmit(readTyped(prompt, input.value));
    close();
  }
  input.oninput = grow;
  input.onkeydown = (event) => {
    event.stopPropagation();
    // While an input method composes a character, Enter belongs to it.
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "Escape") close();
  };
  if (!onToken) {
    attribute(strip.el, "title", null);
    strip.el.onclick = () => {
      if (getSelection()?.isCollapsed ?? true) open();
    };
    strip.el.classList.add("iw-strip--editable");
  }
  return {
    el,
    /** @param {Prompt} next @param {Set<number>} [marked] positions that differ from another prompt */
    update(next, marked) {
      prompt = { ...prompt, ...next };
      strip.update(prompt.tokens, marked);
    },
    /** @param {string} next what the row is called from now on */
    rename(next) {
      fill(name, next);
      attribute(strip.el, "aria-label", `${next} tokens`);
      attribute(edit, "aria-label", `Edit ${next}`);
      for (const part of [el, input]) attribute(part, "aria-label", next);
    },
    /** @param {string} words said below the row's name */
    say: (words) => fill(remark, words),
    highlight: strip.highlight,
    item: strip.item,
    edit: open,
  };
}

/**
 * A prompt, and above it the text that an encoder reads, where the model has one.
 * @param {{run: (prompt: Question | {source: Question} | {target: Question}) => void, onToken?: (position: number, element: HTMLElement) => void,
 *   onHover?: (position: number | null) => void, onHoverSource?: (position: number | null) => void}} spec `run` is given what was edited
 */
export function promptPair({ run, onToken, onHover, onHoverSource }) {
  let pair = false;
  const source = promptRow({ label: "source", onSubmit: (text) => run({ source: text }), onHover: onHoverSource });
  const target = promptRow({ label: "prompt", onSubmit: (text) => run(pair ? { target: text } : text), onToken, onHover });
  source.el.hidden = true;
  return {
    ...target,
    source,
    el: h("div", { class: "iw-prompt-pair" }, source.el, target.el),
    /** @param {Partial<Prompt>} next */
    update(next) {
      pair = !!next.source;
      source.el.hidden = !pair;
      if (next.source) source.update(next.source);
      target.rename(pair ? "target" : "prompt");
      target.update(/** @type {Prompt} */ (next));
    },
  };
}
