// The one DOM helper: elements from plain data, text only ever as text nodes.

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [props] attributes; `on*` functions become handlers that die with the element,
 *   so a rebuilt row leaves nothing registered on a longer-lived signal. null, undefined and false are left out.
 * @param {...(Node | string | number | null | undefined | false)} children strings become text, never markup
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") /** @type {any} */ (element)[name.toLowerCase()] = value;
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : String(value));
  }
  fill(element, ...children);
  return element;
}

/**
 * An element of a drawing.
 * @param {string} tag
 * @param {Record<string, string | number | undefined>} props attributes; undefined ones are left out
 * @param {...(Node | string)} children
 * @returns {SVGElement}
 */
export function vector(tag, props, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) if (value !== undefined) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * Replace what is inside an element.
 * @param {Element} element
 * @param {...(Node | string | number | null | undefined | false)} children
 */
export function fill(element, ...children) {
  const nodes = children.filter((child) => child !== null && child !== undefined && child !== false);
  element.replaceChildren(...nodes.map((child) => (child instanceof Node ? child : String(child))));
}

/**
 * Set or remove an attribute, touching the document only when it changes.
 * @param {Element} element
 * @param {string} name
 * @param {string | number | boolean | null | undefined} value false, null and undefined remove it
 */
export function attribute(element, name, value) {
  if (value === false || value === null || value === undefined) element.removeAttribute(name);
  else {
    const text = value === true ? "" : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/**
 * How many times its own size an element is shown, by CSS zoom of its own or around it.
 * @param {Element} element
 * @returns {number}
 */
export function enlarged(element) {
  return /** @type {Element & {currentCSSZoom?: number}} */ (element).currentCSSZoom ?? 1;
}

/** @param {Element} element @returns {number} pixels of the screen to one of the element's own */
export function pixelsOf(element) {
  return (window.devicePixelRatio || 1) * enlarged(element);
}

/**
 * Run `update` once in the next animation frame however often it is asked for, so that a message which changes
 * six traits is drawn once and whole.
 * @param {() => void} update
 * @param {AbortSignal} signal
 * @returns {() => void}
 */
export function coalesce(update, signal) {
  let frame = 0;
  signal.addEventListener("abort", () => cancelAnimationFrame(frame));
  return () => {
    if (frame || signal.aborted) return;
    frame = requestAnimationFrame(() => {
      frame = 0;
      update();
    });
  };
}

/**
 * A row of mutually exclusive buttons.
 * @template {string} V
 * @param {{label: string, options: {value: V, text: string, title?: string}[], onChoose: (value: V) => void}} spec
 * @returns {{el: HTMLElement, update: (value: V, disabled?: Partial<Record<V, string>>, titles?: Partial<Record<V, string>>) => void}}
 *   `disabled` maps a value to the reason why it cannot be chosen now; `titles` replace those of the options
 */
export function choice({ label, options, onChoose }) {
  const buttons = options.map(({ value, text, title }) =>
    h("button", { type: "button", class: "iw-button iw-choice__option", title, "aria-pressed": "false", onclick: () => onChoose(value) }, text),
  );
  return {
    el: h("div", { class: "iw-choice", role: "group", "aria-label": label }, ...buttons),
    update(value, disabled = {}, titles = {}) {
      options.forEach((option, index) => {
        const reason = disabled[option.value];
        attribute(buttons[index], "aria-pressed", option.value === value ? "true" : "false");
        attribute(buttons[index], "aria-disabled", reason ? "true" : null);
        attribute(buttons[index], "title", reason ?? titles[option.value] ?? option.title);
        buttons[index].onclick = reason ? null : () => onChoose(option.value);
      });
    },
  };
}

/**
 * A labelled drop-down.
 * @param {{label: string, options: [value: string, text: string][], onChoose: (value: string) => void, hidden?: boolean}} spec
 *   with `hidden` the label is for screen readers only
 * @returns {{el: HTMLElement, update: (value: string, options?: [value: string, text: string][]) => void}}
 */
export function dropdown({ label, options, onChoose, hidden = false }) {
  const make = (/** @type {[string, string][]} */ list) => list.map(([value, text]) => h("option", { value }, text));
  const select = h("select", { class: "iw-select", "aria-label": label, onchange: () => onChoose(select.value) }, ...make(options));
  let shown = JSON.stringify(options);
  return {
    el: h("label", { class: "iw-field" }, hidden ? null : h("span", { class: "iw-field__label" }, label), select),
    update(value, list) {
      if (list && JSON.stringify(list) !== shown) {
        shown = JSON.stringify(list);
        fill(select, ...make(list));
      }
      select.value = value;
    },
  };
}

/**
 * Rebuild part of the document without losing the keyboard's place: focus returns to the element with the same `data-key`,
 * "kind index", or to the one whose key its own begins with, as a menu's button, or to the last of its kind.
 * @param {Element} container
 * @param {() => void} rebuild
 * @param {(key: string) => string} [follow] what has become of a `data-key`
 */
export function keepFocus(container, rebuild, follow = (key) => key) {
  const root = /** @type {Document | ShadowRoot} */ (container.getRootNode());
  const key = container.contains(root.activeElement) ? root.activeElement?.getAttribute("data-key") : null;
  rebuild();
  if (!key) return;
  const held = follow(key);
  const keyed = /** @type {HTMLElement[]} */ ([...container.querySelectorAll("[data-key]")]);
  const kind = held.split(" ")[0];
  const alike = keyed.filter((element) => element.dataset.key?.split(" ")[0] === kind);
  const opener = keyed.filter((element) => held.startsWith(`${element.dataset.key} `)).pop();
  (keyed.find((element) => element.dataset.key === held) ?? opener ?? alike[alike.length - 1] ?? keyed[keyed.length - 1])?.focus();
}

/**
 * Esc closes what a button opens, from inside and from the button, and leaves the keyboard there.
 * @param {HTMLElement} button @param {HTMLElement} panel hidden while it is closed @param {() => void} close
 */
export function closeWithEscape(button, panel, close) {
  for (const each of [button, panel]) each.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape" || panel.hidden) return;
    close();
    button.focus();
  });
}
