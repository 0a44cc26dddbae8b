// A button that opens a short list of actions.
import { h } from "./dom.js";

/**
 * @typedef {{key: string, label: string, list: string, text: string, kind: string, open: boolean, title?: string,
 *   show: (open: boolean) => void, choose: (act: () => void) => void}} MenuSpec `label` names the button and `list` the actions; whoever draws the menu keeps
 *   whether it is `open`, and closes it before it runs the action that `choose` is given
 */

/**
 * @param {MenuSpec} spec
 * @param {[text: string, act: () => void][]} actions
 */
export function menu({ key, label, list, text, kind, open, title, show, choose }, actions) {
  const items = open ? actions.map(([words, act]) =>
    h("button", { type: "button", class: "iw-menu__item", role: "menuitem", "data-key": `${key} ${words}`, onclick: () => choose(act) }, words)) : [];
  const step = (/** @type {KeyboardEvent} */ event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") show(false);
    if (!by) return;
    event.preventDefault();
    const at = items.findIndex((item) => item === event.target);
    items[(at + by + items.length) % items.length].focus();
  };
  return h("span", { class: "iw-menu", "data-open": open ? "true" : null },
    h("button", { type: "button", class: kind, title, "aria-label": label === text ? null : label, "aria-haspopup": "menu", "aria-expanded": open ? "true" : "false",
      "data-key": key, onclick: () => show(!open),
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        if (event.key === "Escape") show(false);
        else if (event.key === "ArrowDown" && open) {
          event.preventDefault();
          items[0]?.focus();
        }
      } }, text),
    items.length ? h("div", { class: "iw-menu__list", role: "menu", "aria-label": list, onkeydown: step }, ...items) : null);
}

/**
 * Close the menu in `container` when something else is pressed. What is pressed must stay in place until it is released: only the menu goes.
 * @param {Element} container @param {AbortSignal} signal @param {() => void} closed
 */
export function closeFromOutside(container, signal, closed) {
  document.addEventListener("pointerdown", (event) => {
    const found = container.querySelector("[data-open='true']");
    if (!found || event.composedPath().includes(found)) return;
    closed();
    found.removeAttribute("data-open");
    found.querySelector("[aria-expanded]")?.setAttribute("aria-expanded", "false");
    found.querySelector("[role='menu']")?.remove();
  }, { signal });
}
