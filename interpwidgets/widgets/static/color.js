// Colours: theme detection, palettes read from theme.css, data values to RGBA, legends.
import { h, fill } from "./dom.js";

/**
 * @typedef {[red: number, green: number, blue: number]} Rgb
 * @typedef {{fg: string, mute: string, faint: string, line: string, hair: string, bg: string, accent: string, halo: string,
 *   warn: string, ui: string, mono: string, sequential: Rgb[], diverging: Rgb[], written?: boolean}} Palette `written`: whether cells may show words and numbers
 */

/**
 * Whether the host page is dark: what the known hosts say, else what the page's own colours say.
 * @param {Element} element
 * @returns {boolean}
 */
export function isDark(element) {
  const { body, documentElement: html } = document;
  const said = [body.dataset.jpThemeLight, body.dataset.vscodeThemeKind, body.dataset.theme, html.dataset.theme, html.getAttribute("theme")];
  if (said[0]) return said[0] === "false";
  for (const name of said.slice(1)) if (name) return name.includes("dark") || name === "vscode-high-contrast";
  const around = ancestors(element);
  if (around.some((each) => each.matches(".dark, .dark-theme, .vscode-dark"))) return true;
  for (const painted of around) {
    const [red, green, blue, alpha = 1] = rgba(getComputedStyle(painted).backgroundColor);
    if (alpha > 0.5) return luminance([red, green, blue]) < 0.4;
  }
  const scheme = getComputedStyle(html).colorScheme;
  return scheme.includes("dark") && (!scheme.includes("light") || matchMedia("(prefers-color-scheme: dark)").matches);
}

/**
 * What an element sits in, innermost first: marimo puts a widget into a shadow root, Solara marks and paints a layer of its own.
 * @param {Element} element
 * @returns {Element[]} of a view that is not attached yet, the page only
 */
function ancestors(element) {
  if (!element.isConnected) return [document.body, document.documentElement];
  const root = element.getRootNode();
  const parent = element.parentElement ?? (root instanceof ShadowRoot ? root.host : null);
  return parent ? [parent, ...ancestors(parent)] : [];
}

/**
 * Keep `data-iw-theme` on the root in step with the host.
 * @param {HTMLElement} root
 * @param {() => void} onChange
 * @param {AbortSignal} signal
 * @returns {() => void} watch what a root sits in, once it has been attached
 */
export function followTheme(root, onChange, signal) {
  const look = () => {
    const theme = isDark(root) ? "dark" : "light";
    if (root.dataset.iwTheme === theme) return;
    root.dataset.iwTheme = theme;
    onChange();
  };
  const observer = new MutationObserver(look);
  const attributeFilter = ["class", "style", "theme", "data-theme", "data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind"];
  const watch = () => {
    for (const watched of ancestors(root)) observer.observe(watched, { attributes: true, attributeFilter });
    look();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look, { signal });
  signal.addEventListener("abort", () => observer.disconnect());
  watch();
  return watch;
}

/**
 * The colours a canvas draws with. Only right while the element is attached.
 * @param {Element} element
 * @returns {Palette}
 */
export function readPalette(element) {
  const style = getComputedStyle(element);
  const read = (/** @type {string} */ name) => style.getPropertyValue(`--iw-${name}`).trim();
  const stops = (/** @type {string} */ name) => [0, 1, 2, 3, 4].map((stop) => /** @type {Rgb} */ (rgba(read(`${name}-${stop}`)).slice(0, 3)));
  return {
    fg: read("fg"), mute: read("mute"), faint: read("faint"), line: read("line"), hair: read("hair"), bg: read("bg"),
    accent: read("accent"), halo: read("halo"), warn: read("warn"), ui: read("ui"), mono: read("mono"),
    sequential: ramp(stops("seq")), diverging: ramp(stops("div")),
  };
}

/**
 * 256 colours through evenly spaced stops.
 * @param {Rgb[]} stops
 * @returns {Rgb[]}
 */
export function ramp(stops) {
  return Array.from({ length: 256 }, (_, index) => {
    const at = (index / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    return /** @type {Rgb} */ ([0, 1, 2].map((part) => Math.round(stops[low][part] + (at - low) * (stops[low + 1][part] - stops[low][part]))));
  });
}

/**
 * Numbers of a CSS colour: `#rgb`, `#rrggbb`, `rgb()` or `rgba()`.
 * @param {string} text
 * @returns {number[]}
 */
export function rgba(text) {
  const short = text.replace(/^#(.)(.)(.)$/, "#$1$1$2$2$3$3");
  if (short.startsWith("#")) return [1, 3, 5].map((at) => parseInt(short.slice(at, at + 2), 16));
  return (text.match(/[\d.]+/g) ?? ["0", "0", "0", "0"]).map(Number);
}

/** @param {Rgb} colour @returns {number} relative luminance, 0 (black) to 1 (white) */
export function luminance(colour) {
  const [red, green, blue] = colour.map((part) => ((part / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** @param {Rgb} colour @returns {string} the ink that reads best on it */
export function inkOn(colour) {
  return luminance(colour) > 0.179 ? "#000000" : "#ffffff";
}

/**
 * @param {Rgb[]} colours @param {number} share 0 to 1 along the ramp; outside is clipped
 * @returns {Rgb}
 */
export function colourAt(colours, share) {
  return colours[Math.max(0, Math.min(255, Math.round(share * 255)))];
}

/**
 * A colour bar with numbers.
 * @returns {{el: HTMLElement, update: (spec: {kind: "seq" | "div", ticks: {at: number, text: string}[], unit: string, note?: string}) => void}}
 *   `at` is 0 to 1 along the bar
 */
export function legend() {
  const bar = h("div", { class: "iw-legend__bar" });
  const ticks = h("div", { class: "iw-legend__ticks" });
  const unit = h("span", { class: "iw-legend__unit" });
  const el = h("div", { class: "iw-legend", role: "img" }, h("div", { class: "iw-legend__scale" }, bar, ticks), unit);
  return {
    el,
    update(spec) {
      bar.dataset.kind = spec.kind;
      fill(ticks, ...spec.ticks.map(({ at, text }, index) => {
        const side = index === 0 ? "start" : index === spec.ticks.length - 1 ? "end" : "middle";
        return h("span", { class: "iw-legend__tick", "data-side": side, style: `left:${100 * at}%` }, text);
      }));
      fill(unit, spec.unit, spec.note ? h("span", { class: "iw-legend__note" }, ` · ${spec.note}`) : null);
      el.setAttribute("aria-label", `colour scale: ${spec.unit}, ${spec.ticks.map((tick) => tick.text).join(", ")}${spec.note ? `, ${spec.note}` : ""}`);
    },
  };
}

/**
 * Evenly spaced ticks of a square-root scale.
 * @param {number} bound @param {boolean} signed
 */
export function rootTicks(bound, signed) {
  const write = (/** @type {number} */ value) => (value === 0 ? "0" : value.toFixed(bound < 0.1 ? 3 : 2).replace(/^0\./, "."));
  if (!signed) return [0, 0.25, 0.5, 0.75, 1].map((at) => ({ at, text: write(at * at * bound) }));
  // Three digits at the quarters would run into those at the ends.
  return (bound < 0.1 ? [-1, 0, 1] : [-1, -0.5, 0, 0.5, 1]).map((at) => ({ at: (at + 1) / 2, text: (at < 0 ? "−" : at > 0 ? "+" : "") + write(at * at * bound) }));
}
