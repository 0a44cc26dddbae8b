// The popover that replaces one token of the prompt: typed, or chosen from what the model itself expected there.
import { h, fill, enlarged } from "./dom.js";
import { predictionTable } from "./predictions.js";

/**
 * @typedef {{position: number, token: number} | {position: number, text: string}} Replacement
 * @typedef {{position: number, token: import("./tokens.js").Token, anchor: HTMLElement, byId: boolean,
 *   alternatives: import("./predictions.js").Row[]}} ReplaceTarget `byId`: no tokenizer, so an id is typed
 */

/** @param {string} text as displayed @returns {string} what one would type for it; empty for what a line cannot hold, or shows in part */
export function typedForm(text) {
  return /[⟨↵␍⇥⁝◌]/.test(text) || (text.length >= 64 && text.includes("…")) ? "" : text.replaceAll("␣", " ");
}

/** @param {{signal: AbortSignal, onReplace: (replacement: Replacement) => void}} spec */
export function createReplace({ signal, onReplace }) {
  /** @type {ReplaceTarget | null} */
  let target = null;
  const title = h("p", { class: "iw-caption" });
  const input = h("input", { class: "iw-prompt__input iw-replace__input", type: "text", dir: "auto", spellcheck: "false", autocomplete: "off" });
  const hint = h("p", { class: "iw-note" });
  const table = predictionTable({ label: "Model's alternatives", size: 0, onRow: (row) => finish((position) => ({ position, token: row.id })) });
  const el = h("div", { class: "iw-pop iw-replace", role: "dialog", hidden: true }, title,
    h("div", { class: "iw-replace__typed" }, input, h("button", { type: "button", class: "iw-button iw-button--primary", onclick: () => typed() }, "Replace")), hint, table.el);

  /** @param {(position: number) => Replacement} make */
  function finish(make) {
    if (!target) return;
    onReplace(make(target.position));
    close();
  }
  function typed() {
    const text = input.value;
    if (!target?.byId) return text ? finish((position) => ({ position, text })) : fill(hint, "type the text that takes this token's place");
    if (/^\s*\d+\s*$/.test(text)) finish((position) => ({ position, token: Number(text) }));
    else fill(hint, "a token id is needed: this session has no tokenizer");
  }
  function close() {
    if (el.hidden) return;
    const held = el.contains(/** @type {Document | ShadowRoot} */ (el.getRootNode()).activeElement);
    el.hidden = true;
    if (held) target?.anchor.focus({ preventScroll: true });
    target = null;
  }
  /** A space at either end is easily missed in an input. */
  const preview = () => fill(hint, target?.byId ? "a token id · Enter replaces · Esc closes" : `reads as ${input.value.replaceAll(" ", "␣") || "nothing"} · Enter replaces · Esc closes`);
  input.oninput = preview;
  el.onkeydown = (event) => {
    event.stopPropagation();
    if (event.isComposing) return;
    if (event.key === "Escape") close();
    else if (event.key === "Enter" && event.target === input) {
      event.preventDefault();
      typed();
    }
  };
  document.addEventListener("pointerdown", (event) => {
    if (!event.composedPath().includes(el)) close();
  }, { signal });

  return {
    el,
    close,
    /** @returns {number | null} the position that is being replaced */
    position: () => target?.position ?? null,
    /** @param {ReplaceTarget} next */
    open(next) {
      target = next;
      const { position, token, anchor, alternatives } = next;
      fill(title, "replace ", h("b", {}, `position ${position}`), " ", h("span", { class: "iw-lens__word" }, token.text));
      el.setAttribute("aria-label", `Replace position ${position} ${token.text}`);
      input.setAttribute("aria-label", `Replacement for position ${position}`);
      input.value = next.byId ? String(token.id) : typedForm(token.text);
      const remark = alternatives.length ? "" : position ? "" : "nothing stands before position 0, so the model expects nothing here";
      table.update(alternatives, [{ key: "baseline", label: `expected after position ${position - 1}` }], remark);
      el.hidden = false;
      const [bounds, at] = [/** @type {HTMLElement} */ (el.offsetParent ?? el).getBoundingClientRect(), anchor.getBoundingClientRect()];
      const zoom = enlarged(el);
      el.style.left = `${Math.max(4, Math.min(at.left - bounds.left, bounds.width - zoom * el.offsetWidth) / zoom - 4)}px`;
      el.style.top = `${(at.bottom - bounds.top) / zoom + 2}px`;
      preview();
      input.focus({ preventScroll: true });
      input.select();
    },
  };
}
