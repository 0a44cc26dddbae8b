// The Save button: what is seen as a picture, the numbers as a table, the widget as a page of its own.
import { h, fill, keepFocus } from "./dom.js";
import { closeFromOutside, menu } from "./menu.js";
import { pictureOf, pngOf } from "./picture.js";

/** Milliseconds after which a file that was handed to the browser is let go. */
const KEPT = 20000;

/**
 * @param {import("./wire.js").Wire} wire
 * @param {AbortSignal} signal
 * @param {() => HTMLElement} root what a picture is of
 */
export function createSaving(wire, signal, root) {
  const holder = h("span");
  const said = h("span", { class: "iw-hidden", role: "status" });
  const failed = h("span");
  let open = false;
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
  const svg = () => pictureOf(root());
  const png = async (/** @type {number} */ scale) => download(named("png"), await pngOf(svg(), scale));
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
    ["Picture (PNG)", () => png(1)],
    ["Picture (PNG, 2×)", () => png(2)],
    ["Picture (PNG, 4×)", () => png(4)],
    ["Picture (SVG)", () => download(named("svg"), new Blob([svg().text], { type: "image/svg+xml" }))],
    ["Numbers (CSV)", () => ask("to_csv")],
    ["Page without a kernel (HTML)", () => ask("to_html")],
  ];
  function draw() {
    keepFocus(holder, () => fill(holder, menu({
      key: "save", label: "Save", list: "Save as", text: "Save", kind: "iw-button", side: "end", open, title: "Save what is seen: a picture, its numbers, a page",
      show(next) {
        open = next;
        draw();
      },
      choose(act) {
        open = false;
        draw();
        attempt(act);
      },
    }, actions)));
  }
  closeFromOutside(holder, signal, () => {
    open = false;
  });
  wire.on("_saved", () => {
    const { id, name, mime, text } = wire.model.get("_saved") ?? {};
    // Another view of this widget may have asked.
    if (id !== undefined && (id === asked || asked === null)) download(name, new Blob([text], { type: mime }));
  });
  draw();
  return { el: h("span", {}, holder, said, failed) };
}
