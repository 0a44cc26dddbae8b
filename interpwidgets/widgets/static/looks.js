// The View menu: palette, values in cells, presenter size, figure mode, teaching; and what they set on the root.
import { h, attribute, dropdown } from "./dom.js";

/**
 * @typedef {import("./wire.js").Wire} Wire
 * @typedef {{el: HTMLElement, leave: HTMLElement, shut: (at: Node) => void, update: () => void}} Looks `leave` ends figure mode, whose controls are hidden;
 *   `shut` closes the menu unless `at` is inside of it
 */

/**
 * @param {Wire} wire
 * @param {() => HTMLElement} root
 * @param {() => void} onChange the pictures must be drawn anew
 * @returns {Looks}
 */
export function createLooks(wire, root, onChange) {
  const { model } = wire;
  const set = (/** @type {string} */ name) => (/** @type {string} */ value) => wire.set(name, value);
  const palettes = dropdown({ label: "Palette", options: [["blue", "blue, orange"], ["cividis", "cividis"]], onChoose: set("palette") });
  const figures = dropdown({ label: "Figure mode", options: [["off", "off"], ["column", "one column, 3.3 in"], ["page", "text width, 6.9 in"]], onChoose: set("figure_mode") });
  /** @param {string} text @param {string} name @param {unknown} on @param {unknown} off */
  const check = (text, name, on, off) => {
    const input = h("input", { type: "checkbox", class: "iw-look__check", onchange: () => wire.set(name, input.checked ? on : off) });
    return { el: h("label", { class: "iw-look" }, input, text), update: () => { input.checked = model.get(name) === on; } };
  };
  const checks = [check("Values in cells", "value_labels", true, false), check("Presenter size", "size", "presenter", "normal"), check("Explain terms", "teaching", true, false)];
  const summary = h("summary", { class: "iw-button iw-look__summary" }, "View");
  const el = h("details", { class: "iw-looks" }, summary, h("div", { class: "iw-pop iw-looks__list" }, palettes.el, ...checks.map((each) => each.el), figures.el));
  el.onkeydown = (event) => {
    if (event.key !== "Escape" || !el.open) return;
    el.open = false;
    summary.focus();
  };
  const shut = (/** @type {Node} */ at) => {
    if (!el.contains(at)) el.open = false;
  };
  el.addEventListener("focusout", ({ relatedTarget: to }) => to && shut(/** @type {Node} */ (to)));
  const leave = h("button", { type: "button", class: "iw-button iw-figure__leave", onclick: () => wire.set("figure_mode", "off") }, "Leave figure mode");
  let shown = "";
  return {
    el,
    leave,
    shut,
    update() {
      palettes.update(model.get("palette") ?? "blue");
      figures.update(model.get("figure_mode") ?? "off");
      for (const each of checks) each.update();
      attribute(root(), "data-iw-palette", model.get("palette"));
      attribute(root(), "data-iw-size", model.get("size"));
      attribute(root(), "data-iw-figure", model.get("figure_mode") === "off" ? null : model.get("figure_mode"));
      const now = ["palette", "value_labels", "size", "figure_mode"].map((name) => model.get(name)).join();
      if (shown && shown !== now) onChange();
      shown = now;
    },
  };
}
