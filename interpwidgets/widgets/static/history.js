// The runs that a widget has shown, newest first, each with a thumbnail of its picture; a click goes back to it.
import { h, fill, attribute, closeWithEscape, keepFocus } from "./dom.js";

/**
 * @typedef {{number: number, time: number, current: boolean, prompt: string, experiments: string[], about: string}} Visit
 */

/** Pixels of a thumbnail, and how many are kept: as many as Python keeps runs. */
const [WIDTH, HEIGHT, MOST] = [96, 64, 50];

/**
 * @param {import("./wire.js").Wire} wire
 * @param {() => HTMLCanvasElement} picture the main picture as it is now
 * @returns {{el: HTMLElement, button: HTMLButtonElement, keep: () => void, update: () => void}}
 *   `keep` is called when the picture of the newest run has been painted
 */
export function createHistory(wire, picture) {
  /** @type {Map<number, string>} thumbnails as addresses, by the run's number */
  const thumbnails = new Map();
  const list = h("ul", { class: "iw-past__list", "aria-label": "Runs, newest first" });
  const none = h("span", { class: "iw-hint" }, "no run yet");
  const el = h("div", { class: "iw-past", hidden: true, onkeydown: (/** @type {KeyboardEvent} */ event) => step(event) }, list, none);
  const button = h("button", { type: "button", class: "iw-button", "aria-expanded": "false", title: "The runs that were shown, to go back to", onclick: () => toggle() }, "History");
  closeWithEscape(button, el, () => toggle());
  let shown = "";

  function toggle() {
    el.hidden = !el.hidden;
    attribute(button, "aria-expanded", el.hidden ? "false" : "true");
    if (!el.hidden && !wire.model.get("_past_wanted")) wire.set("_past_wanted", true);
    update();
  }
  /** @param {KeyboardEvent} event */
  function step(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const entries = [...list.querySelectorAll("button")];
    const at = entries.findIndex((entry) => entry === event.target);
    if (!by || at < 0) return;
    event.preventDefault();
    entries[Math.max(0, Math.min(entries.length - 1, at + by))].focus();
  }
  /** @param {Visit} visit */
  function entry({ number, time, current, prompt, experiments, about }) {
    const address = thumbnails.get(number);
    const done = experiments.length ? experiments.join(", ") : "no experiments";
    const clock = new Date(1000 * time).toLocaleTimeString();
    return h("li", { class: "iw-past__item" },
      h("button", { type: "button", class: "iw-past__entry", "data-key": `run ${number}`, "aria-current": current ? "true" : null,
        "aria-label": `run ${number}, ${clock}: ${prompt}, ${about ? `${about}, ` : ""}${done}${current ? ", shown now" : ""}`,
        title: `${prompt}\n${about ? `${about}\n` : ""}${done}\n${clock}`, onclick: () => wire.request("back_to", { number }) },
      // A page that was loaded anew has no picture of the runs before: what was done stands in its place.
      address ? h("img", { class: "iw-past__picture", src: address, width: WIDTH, height: HEIGHT, alt: "" }) : h("span", { class: "iw-past__picture iw-past__stand" }, h("span", { class: "iw-past__done" }, done)),
      h("span", { class: "iw-past__words" },
        h("span", { class: "iw-past__prompt" }, prompt), address ? h("span", { class: "iw-past__done" }, done) : null,
        h("span", { class: "iw-past__time" }, [clock, about].filter(Boolean).join(" · ")))));
  }
  function update() {
    if (el.hidden) return;
    /** @type {Visit[]} */
    const visits = wire.model.get("_past") ?? [];
    const key = JSON.stringify([visits, visits.map(({ number }) => thumbnails.has(number))]);
    if (key === shown) return;
    shown = key;
    none.hidden = visits.length > 0;
    keepFocus(list, () => fill(list, ...visits.map(entry)));
  }
  function keep() {
    const number = wire.model.get("_run");
    const canvas = picture();
    if (!number || !canvas.width || !canvas.height) return;
    const small = h("canvas", { width: WIDTH, height: HEIGHT });
    const context = /** @type {CanvasRenderingContext2D} */ (small.getContext("2d"));
    const scale = Math.min(WIDTH / canvas.width, HEIGHT / canvas.height);
    const [width, height] = [canvas.width * scale, canvas.height * scale];
    context.imageSmoothingQuality = "high";
    context.drawImage(canvas, (WIDTH - width) / 2, (HEIGHT - height) / 2, width, height);
    thumbnails.delete(number);
    thumbnails.set(number, small.toDataURL());
    for (const oldest of [...thumbnails.keys()].slice(0, -MOST)) thumbnails.delete(oldest);
    shown = "";
    update();
  }
  return { el, button, keep, update };
}
