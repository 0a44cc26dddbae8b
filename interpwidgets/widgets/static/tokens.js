// Tokens: how one is written, and the strip that shows what the model really reads.
import { h, fill, attribute } from "./dom.js";

/** @typedef {{id: number, text: string, raw?: string, special?: boolean}} Token */

/**
 * Shorten from the middle, where tokens of one word family differ least.
 * @param {string} text
 * @param {number} length characters to keep, with the ellipsis
 * @returns {string}
 */
export function elide(text, length) {
  const characters = [...text];
  if (characters.length <= length) return text;
  if (length < 2) return "…";
  const head = Math.ceil((length - 1) / 2);
  return characters.slice(0, head).join("") + "…" + characters.slice(characters.length - (length - 1 - head)).join("");
}

/**
 * What a tooltip says about a token.
 * @param {Token} token
 * @param {number} position
 * @returns {string}
 */
export function tokenTitle(token, position) {
  return `position ${position} · ${token.text} · id ${token.id}${token.special ? " · special token" : ""}`;
}

/**
 * The tokens of a prompt in reading order, each with its position below.
 * @param {{label: string, onToken?: (position: number, element: HTMLElement) => void, onHover?: (position: number | null) => void}} spec
 *   with `onToken` each token is a button
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
      items = tokens.map((token, position) => {
        const title = tokenTitle(token, position);
        const text = h("span", { class: "iw-token__text" }, elide(token.text, 24));
        const index = h("span", { class: "iw-token__index", "aria-hidden": "true" }, position);
        const kind = `iw-token${token.special ? " iw-token--special" : ""}${marked.has(position) ? " iw-token--marked" : ""}`;
        /** @type {HTMLElement} */
        const item = onToken
          ? h("button", { type: "button", class: kind, title, "aria-label": title, "data-key": position, onclick: () => onToken(position, item) }, text, index)
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
