// A widget on a page of its own, without a kernel: a model that answers from recorded results, and says what it cannot do.
import { h, fill, dropdown } from "./dom.js";

/**
 * @typedef {{code: string, on: boolean}} Entry
 * @typedef {{question: Record<string, any>, label: string, experiments: Entry[], traits: Record<string, number>}} Result traits by their place in `values`
 * @typedef {{esm: string, values: any[], results: Result[], answers: Record<string, Record<string, number>>, makes: Record<string, string>,
 *   chooses: Record<string, string[]>}} PageData as `page.py` describes it; the last result is shown first
 * @typedef {ReturnType<typeof createOfflineModel>} OfflineModel
 */

/** JSON with sorted keys, as Python's `canonical` writes it. @param {any} value @returns {string} */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
}

/** A value as Python writes it. @param {any} value @returns {string} */
export function asPython(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(asPython).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, entry]) => `${JSON.stringify(key)}: ${asPython(entry)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/**
 * The experiments that a request leaves; null if it is not about them.
 * @param {Entry[]} entries @param {string} op @param {Record<string, any>} args @param {Record<string, string>} makes
 * @returns {Entry[] | null}
 */
export function experimentsAfter(entries, op, args, makes) {
  if (op === "clear") return [];
  if (op === "toggle") return entries.map((entry, index) => (index === args.index ? { ...entry, on: !entry.on } : entry));
  if (op === "remove") return entries.filter((_, index) => index !== args.index);
  const code = makes[canonical({ op, ...args })];
  if (code === undefined) return null;
  return entries.some((entry) => entry.code === code) ? entries.filter((entry) => entry.code !== code) : [...entries, { code, on: true }];
}

/**
 * The recorded result that answers a request.
 * @param {Result[]} results @param {Result} shown @param {string} op @param {Record<string, any>} args @param {Record<string, string>} makes
 * @returns {Result | null}
 */
export function recordedAnswer(results, shown, op, args, makes) {
  const entries = experimentsAfter(shown.experiments, op, args, makes);
  const asked = Object.fromEntries(Object.entries(entries ? {} : args).map(([name, value]) => [name, Array.isArray(value) && !value.length ? null : value]));
  if (!entries && !(Object.keys(asked).length && Object.keys(asked).every((name) => name in shown.question))) return null;
  const wanted = canonical(entries ?? shown.experiments);
  // What is not asked for stays as it is, or is closed: another site shows no patched cells.
  const fits = (/** @type {Result} */ { question, experiments }, /** @type {boolean} */ closed) => canonical(experiments) === wanted &&
    Object.entries(question).every(([name, value]) => (name in asked ? canonical(value) === canonical(asked[name]) : canonical(value) === canonical(shown.question[name]) || (closed && value === null)));
  return results.find((result) => fits(result, false)) ?? results.find((result) => fits(result, true)) ?? null;
}

/**
 * @param {PageData} data
 * @param {(code: string | null) => void} say is told what needs a kernel, as Python; null when a request was answered
 */
export function createOfflineModel(data, say) {
  const { values, results, answers, makes, chooses } = data;
  /** @type {Map<string, Set<() => void>>} */
  const handlers = new Map();
  /** @type {Record<string, any>} `_offline` tells a view that what it waits for does not come */
  const state = { _offline: true };
  const read = (/** @type {Record<string, number>} */ traits) => Object.fromEntries(Object.entries(traits).map(([name, at]) => [name, values[at]]));
  const opening = results[results.length - 1];
  let shown = opening;
  /** @type {Result[]} */
  let past = [];
  /** @type {Result[]} */
  let future = [];
  /** @type {Set<string>} */
  let pending = new Set();
  const fire = (/** @type {string} */ name) => [...(handlers.get(`change:${name}`) ?? [])].forEach((handler) => handler());

  /** Answer the request: nothing shown may be older than it. @param {number} id */
  function settle(id) {
    for (const [name, value] of Object.entries(state)) if (value?.id !== undefined && name !== "_request") state[name] = { ...value, id };
    state._status = { id, state: "idle", done: 0, total: 0, message: "", ms: 0, error: null };
    state._history = { undo: past.length > 0, redo: future.length > 0 };
    Object.keys(state).filter((name) => name !== "_request").forEach(fire);
  }
  /** @param {Result} next keeps what only the reader chose: zoom, selection, colours */
  function load(next) {
    shown = next;
    for (const [name, value] of Object.entries(read(next.traits))) if (name.startsWith("_") || name in next.question || !(name in state)) state[name] = value;
  }
  /** @param {Result} next */
  function go(next) {
    past.push(shown);
    future = [];
    load(next);
  }
  /** @param {{id: number, op: string} & Record<string, any>} request */
  function answer({ id, op, ...args }) {
    const back = op === "undo" ? past.pop() : op === "redo" ? future.pop() : null;
    if (back) {
      (op === "undo" ? future : past).push(shown);
      load(back);
    } else {
      const chosen = chooses[op] ?? [];
      const own = shown === opening ? answers[canonical({ op, ...args })] : undefined;
      const next = recordedAnswer(results, shown, op, args, makes);
      if (next) go(next);
      else if (own || (chosen.length && Object.entries(args).every(([name, value]) => chosen.includes(name) || state[name] === value)))
        Object.assign(state, Object.fromEntries(Object.entries(args).filter(([name]) => chosen.includes(name))), own && read(own));
      else {
        settle(id);
        return say(`widget.${op}(${Object.entries(args).map(([name, value]) => `${name}=${asPython(value)}`).join(", ")})`);
      }
    }
    settle(id);
    say(null);
  }
  /** A setting that Python would compute from. @param {string} name */
  function setAside(name) {
    const next = recordedAnswer(results, shown, "set", { [name]: state[name] }, makes);
    if (next && next !== shown) go(next);
    else if (!next) say(`widget.${name} = ${asPython(state[name])}`);
    state[name] = shown.question[name];
    settle(Number(state._status.id));
  }

  load(opening);
  settle(0);
  return {
    get: (/** @type {string} */ name) => state[name],
    set(/** @type {string} */ name, /** @type {any} */ value) {
      state[name] = value;
      pending.add(name);
      fire(name);
    },
    save_changes() {
      const changed = pending;
      pending = new Set();
      for (const name of changed) {
        if (name === "_request") answer(state._request);
        else if (name in shown.question) setAside(name);
      }
    },
    send() {},
    on: (/** @type {string} */ event, /** @type {() => void} */ handler) => void handlers.set(event, (handlers.get(event) ?? new Set()).add(handler)),
    off: (/** @type {string} */ event, /** @type {() => void} */ handler) => void handlers.get(event)?.delete(handler),
    shown: () => results.indexOf(shown),
    /** @param {number} index shows a recorded result */
    show(index) {
      if (results[index] === shown) return;
      go(results[index]);
      settle(Number(state._status.id));
      say(null);
    },
  };
}

/** Draw the page's widget, and above it what the page holds. */
export async function openPage() {
  /** @type {PageData} */
  const data = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("iw-page-data")).textContent ?? "");
  const html = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  /** @type {"light" | "dark" | null} what the reader chose */
  let chosen = null;
  const main = h("main", { class: "iw-page__main" });
  const toggle = h("button", { type: "button", class: "iw-button iw-page__theme", onclick: () => {
    chosen = html.dataset.theme === "dark" ? "light" : "dark";
    paint();
  } });
  const notice = h("p", { class: "iw-page__notice", role: "alert" });
  const picker = dropdown({ label: "recorded:", options: data.results.map(({ label }, index) => [String(index), label]), onChoose: (value) => model.show(Number(value)) });
  picker.el.hidden = data.results.length < 2;
  const bar = h("header", { class: "iw-root iw-page__bar" }, h("span", { class: "iw-hint" }, "A saved page: no kernel, no network."), picker.el, toggle, notice);
  function paint() {
    const theme = chosen ?? (dark.matches ? "dark" : "light");
    html.dataset.theme = bar.dataset.iwTheme = theme;
    html.style.colorScheme = theme;
    fill(toggle, theme === "dark" ? "Light theme" : "Dark theme");
  }
  const model = createOfflineModel(data, (code) => {
    fill(notice, ...(code === null ? [] : ["This page has no kernel: run the notebook to do this, or in Python ", h("code", { class: "iw-page__code" }, code)]));
    picker.update(String(model.shown()));
  });
  dark.addEventListener("change", paint);
  paint();
  picker.update(String(model.shown()));
  main.append(bar);
  document.body.append(main);
  const url = URL.createObjectURL(new Blob([data.esm], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  URL.revokeObjectURL(url);
  const el = h("div");
  main.append(el);
  await widget.render({ model, el });
}
