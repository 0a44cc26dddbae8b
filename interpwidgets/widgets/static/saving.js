// The Save button: what is seen as a picture, the numbers as a table, the widget as a page of its own.
import { h, fill, attribute, choice, dropdown } from "./dom.js";
import { pictureOf, pngOf } from "./picture.js";

/** Milliseconds after which a file that was handed to the browser is let go. */
const KEPT = 20000;
/** Pixels of CSS to an inch, and the widths of a paper's column and text in them. */
const INCH = 96;
/** @type {Record<string, number>} */
const WIDTHS = { column: 3.3 * INCH, page: 6.9 * INCH };
/** @type {[string, string][]} */
const WIDTH_NAMES = [["column", "one column, 3.3 in"], ["page", "text width, 6.9 in"], ["pixels", "in pixels"]];
const frame = () => new Promise(requestAnimationFrame);

/**
 * @param {import("./wire.js").Wire} wire
 * @param {AbortSignal} signal
 * @param {() => HTMLElement} root what a picture is of
 */
export function createSaving(wire, signal, root) {
  const said = h("span", { class: "iw-hidden", role: "status" });
  const failed = h("span");
  let [width, scale] = ["seen", "2"];
  /** @type {number | null} the request that a file answers; null while it is made, for a page without a kernel answers at once */
  let asked = 0;

  /** @param {string} name @param {Blob} file */
  function download(name, file) {
    const url = URL.createObjectURL(file);
    h("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), KEPT);
    fill(said, `${name} is saved`);
  }
  const named = (/** @type {string} */ kind) => `${(wire.model.get("_title") || "widget").toLowerCase().replaceAll(" ", "-")}.${kind}`;
  function picture() {
    const wide = width === "pixels" ? Number(pixels.value) : WIDTHS[width];
    if (width === "pixels" && !pixels.checkValidity()) throw new Error(`width=${pixels.value}: a whole number of pixels from ${pixels.min} to ${pixels.max} is needed`);
    return pictureOf(root(), wide);
  }
  const ask = (/** @type {string} */ op) => {
    asked = null;
    asked = wire.request(op);
  };
  /** @param {() => void | Promise<void>} act */
  async function attempt(act) {
    fill(failed);
    try {
      await act();
    } catch (error) {
      fill(failed, h("span", { class: "iw-caption", role: "alert" }, `This was not saved: ${error instanceof Error ? error.message : error}`));
    }
  }
  /** @type {[string, () => void | Promise<void>][]} */
  const actions = [
    ["Picture (PNG)", async () => download(named("png"), await pngOf(picture(), Number(scale)))],
    ["Picture (SVG)", () => download(named("svg"), new Blob([picture().text], { type: "image/svg+xml" }))],
    ["Numbers (CSV)", () => ask("to_csv")],
    ["Page without a kernel (HTML)", () => ask("to_html")],
  ];

  const widths = dropdown({ label: "Width", options: [["seen", "as seen"], ...WIDTH_NAMES], onChoose(value) {
    width = value;
    draw();
  } });
  const pixels = h("input", { type: "number", class: "iw-select iw-save__pixels", "aria-label": "Width in pixels", min: 50, max: 20000, step: 1, required: true });
  const scales = choice({ label: "Scale", options: ["1", "2", "4"].map((value) => ({ value, text: `${value}×`, title: `PNG: ${value} pixel${value === "1" ? "" : "s"} of the image to one of the picture` })), onChoose(value) {
    scale = value;
    draw();
  } });
  const panel = h("div", { class: "iw-pop iw-looks__list", role: "dialog", "aria-label": "Save as", hidden: true },
    widths.el, pixels, h("div", { class: "iw-field" }, h("span", { class: "iw-field__label" }, "Scale of PNG"), scales.el),
    h("div", { class: "iw-save__files" }, ...actions.map(([text, act]) => h("button", { type: "button", class: "iw-menu__item", onclick() {
      show(false);
      button.focus();
      attempt(act);
    } }, text))));
  const button = h("button", { type: "button", class: "iw-button", "aria-haspopup": "dialog", "aria-expanded": "false", title: "Save what is seen: a picture, its numbers, a page", onclick: () => show(panel.hidden) }, "Save");
  const holder = h("span", { class: "iw-looks" }, button, panel);

  /** @param {boolean} open */
  function show(open) {
    panel.hidden = !open;
    attribute(button, "aria-expanded", open ? "true" : "false");
    if (open) draw();
  }
  function draw() {
    const seen = Math.ceil(root().getBoundingClientRect().width);
    if (!pixels.value) pixels.value = String(seen);
    widths.update(width, [["seen", `as seen, ${seen} px`], ...WIDTH_NAMES]);
    pixels.hidden = width !== "pixels";
    scales.update(scale);
  }
  holder.onkeydown = (event) => {
    if (event.key !== "Escape" || panel.hidden) return;
    show(false);
    button.focus();
  };
  document.addEventListener("pointerdown", (event) => event.composedPath().includes(holder) || show(false), { signal });
  holder.addEventListener("focusout", ({ relatedTarget: to }) => to && !holder.contains(/** @type {Node} */ (to)) && show(false));
  wire.on("_saved", () => {
    const { id, name, mime, text } = wire.model.get("_saved") ?? {};
    // Another view of this widget may have asked.
    if (id !== undefined && (id === asked || asked === null)) download(name, new Blob([text], { type: mime }));
  });

  const wanted = () => (signal.aborted ? [] : wire.model.get("_to_save") ?? []);
  /** What Python has asked of this view; it asks again where no answer comes. @type {Set<string>} */
  const taken = new Set();
  async function send() {
    for (const request of wanted()) {
      const [{ id, kind, width, scale }, words] = [request, JSON.stringify(request)];
      if (taken.has(words)) continue;
      taken.add(words);
      const asked = () => wanted().some((/** @type {object} */ each) => JSON.stringify(each) === words);
      // What was shown before may not have been painted yet, and the view may be scrolled away.
      do await frame().then(frame);
      while (asked() && !(/fresh|stale/.test(root().dataset.state ?? "") && root().checkVisibility()));
      if (!asked()) continue;
      let answer;
      try {
        const picture = pictureOf(root(), width);
        answer = { data: kind === "png" ? await base64(await pngOf(picture, scale)) : picture.text };
      } catch (error) {
        answer = { error: error instanceof Error ? error.message : String(error) };
      }
      wire.model.send({ picture: id, ...answer });
    }
  }
  wire.on("_to_save", send);
  send();
  return { el: h("span", {}, holder, said, failed) };
}

/** @param {Blob} file @returns {Promise<string>} */
function base64(file) {
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result).split(",")[1]);
    reader.readAsDataURL(file);
  });
}
