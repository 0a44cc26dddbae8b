// Tokens: how one is written, and the strip that shows what the model really reads.
import { h, fill, attribute } from "./dom.js";

/** @typedef {{id: number, text: string, raw?: string, special?: boolean}} Token */

/** A letter of a script that runs from right to left. */
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const isolate = (/** @type {string} */ text) => (RIGHT_TO_LEFT.test(text) ? `\u2068${text}\u2069` : text);
/** Of part of a character, ⟨א 1/2⟩, which part it is stays behind the character. @param {string} text */
const partsBehind = (text) => text.replace(/⟨(.)(?= \d+\/\d+⟩)/gu, (_, character) => `⟨${isolate(character)}`);
/**
 * A token among other words, whose order it leaves as it is: numbers behind it would go to its other side.
 * @param {string} text
 * @returns {string}
 */
export function isolated(text) {
  return isolate(partsBehind(text));
}

/**
 * Shorten from the middle, where tokens of one word family differ least.
 * @param {string} text
 * @param {number} length characters to keep, with the ellipsis
 * @returns {string}
 */
export function elide(text, length) {
  const characters = [...text];
  if (characters.length <= length) return partsBehind(text);
  if (length < 2) return "…";
  const head = Math.ceil((length - 1) / 2);
  return partsBehind(characters.slice(0, head).join("") + "…" + characters.slice(characters.length - (length - 1 - head)).join(""));
}

/**
 * What a tooltip says about a token.
 * @param {Token} token
 * @param {number} position
 * @returns {string}
 */
export function tokenTitle(token, position) {
  return `position ${position} · ${token.text} · id ${token.id}${token.special ? " · special token" : ""}${token.raw === undefined || token.raw === token.text ? "" : ` · raw ${token.raw}`}`;
}

/**
 * The tokens of a prompt in reading order, each with its position below.
 * @param {{label: string, onToken?: (position: number, element: HTMLElement) => void, onHover?: (position: number | null) => void}} spec
 *   with `onToken` each token is a button: Tab goes to one of them, arrows, Home and End from one to the next
 */
export function tokenStrip({ label, onToken, onHover }) {
  const el = h("div", { class: "iw-strip", role: "list", "aria-label": label });
  /** @type {HTMLElement[]} */
  let items = [];
  /** @type {Token[] | null} */
  let shown = null;
  let marks = "";
  /** @type {number[]} positions that are pointed at */
  let lit = [];
  /** @param {number} position a strip that scrolls shows it in its middle */
  const reveal = (position) => {
    const place = items[position]?.parentElement;
    if (place && el.scrollHeight > el.clientHeight) el.scrollTop = place.offsetTop - el.clientHeight / 2;
  };
  /** A strip has a size only once it is attached. @param {number} position */
  const revealAttached = (position) => {
    const attached = new ResizeObserver(() => {
      if (!el.clientHeight) return;
      attached.disconnect();
      reveal(position);
    });
    attached.observe(el);
  };
  // What scrolls is a stop of Tab, or the keyboard could not scroll it; so is a token that is a button.
  if (!onToken) new ResizeObserver(() => attribute(el, "tabindex", el.scrollHeight > el.clientHeight ? 0 : null)).observe(el);
  let current = 0;
  if (onToken) {
    el.addEventListener("focusin", ({ target }) => {
      if (items[current]) items[current].tabIndex = -1;
      current = Math.max(0, items.indexOf(/** @type {HTMLElement} */ (target)));
      items[current].tabIndex = 0;
    });
    el.onkeydown = ({ key, altKey, ctrlKey, metaKey }) => {
      const to = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: items.length - 1 }[key];
      if (to !== undefined && !altKey && !ctrlKey && !metaKey) items[to]?.focus();
    };
  }
  if (onHover) {
    el.onpointerover = (event) => {
      const item = event.target instanceof Element ? event.target.closest(".iw-token") : null;
      onHover(item ? items.indexOf(/** @type {HTMLElement} */ (item)) : null);
    };
    el.onpointerleave = () => onHover(null);
  }
  return {
    el,
    /**
     * @param {Token[]} tokens
     * @param {Set<number>} [marked] positions that differ from another prompt
     */
    update(tokens, marked = new Set()) {
      const next = [...marked].join();
      if (tokens === shown && next === marks) return;
      [shown, marks, lit] = [tokens, next, []];
      current = Math.min(current, Math.max(0, tokens.length - 1));
      items = tokens.map((token, position) => {
        const title = tokenTitle(token, position);
        const text = h("span", { class: "iw-token__text" }, elide(token.text, 24));
        const index = h("span", { class: "iw-token__index", "aria-hidden": "true" }, position);
        const kind = `iw-token${token.special ? " iw-token--special" : ""}${marked.has(position) ? " iw-token--marked" : ""}`;
        /** @type {HTMLElement} */
        const item = onToken
          ? h("button", { type: "button", class: kind, title, "aria-label": title, "data-key": position, tabindex: position === current ? 0 : -1, onclick: () => onToken(position, item) }, text, index)
          : h("span", { class: kind, title }, text, index);
        return item;
      });
      fill(el, ...items.map((item) => h("span", { role: "listitem", class: "iw-strip__item" }, item)));
      if (marked.size) revealAttached(Math.min(...marked));
    },
    /**
     * Point at tokens from elsewhere in the widget.
     * @param {Iterable<number>} primary
     * @param {Iterable<number>} [secondary]
     */
    highlight(primary, secondary = []) {
      const first = [...primary];
      const kinds = /** @type {Map<number, string>} */ (new Map(/** @type {[number, string][]} */ ([...[...secondary].map((position) => [position, "secondary"]), ...first.map((position) => [position, "primary"])])));
      for (const position of lit) if (!kinds.has(position)) attribute(items[position], "data-point", null);
      lit = [...kinds.keys()].filter((position) => items[position]);
      for (const position of lit) attribute(items[position], "data-point", kinds.get(position));
      if (!el.matches(":hover")) reveal(first[0]);
    },
    /** @param {number} position @returns {HTMLElement | undefined} */
    item: (position) => items[position],
  };
}
