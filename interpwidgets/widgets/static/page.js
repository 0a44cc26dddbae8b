// Widgets on a page of their own, without a kernel: models that answer from recorded results, and say what they cannot do.
import { h, fill, dropdown } from "./dom.js";

/**
 * @typedef {{code: string, on: boolean}} Entry
 * @typedef {{question: Record<string, any>, label: string, experiments: Entry[], traits: Record<string, number>}} Result traits by their place in `values`
 * @typedef {{file: Record<string, string>, of: Record<string, any>}} Table
 * @typedef {{name: string, esm: string, results: Result[], answers: Record<string, Record<string, number>>, makes: Record<string, string>,
 *   chooses: Record<string, string[]>, owners: Record<string, string>, table: Table | null}} Part as `page.py` describes it; the last result is shown first
 * @typedef {{values: any[], widgets: Part[], code: string | null}} PageData `code`: that of all widgets, as they are shown first
 * @typedef {{id: number, op: string} & Record<string, any>} Request
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
  const [acting, off] = [true, false].map((on) => entries.findIndex((entry) => entry.code === code && entry.on === on));
  if (acting >= 0) return entries.filter((_, index) => index !== acting);
  return off < 0 ? [...entries, { code, on: true }] : entries.map((entry, index) => (index === off ? { ...entry, on: true } : entry));
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

/** The run that a result is of: what acts, and what it is compared with. @param {Result} result */
const runOf = ({ experiments, question }) => canonical([experiments, question.baseline ?? null]);

/**
 * @param {Part} part
 * @param {any[]} values
 * @param {(code: string | null) => void} say is told what needs a kernel, as Python; null when a request was answered
 * @param {(run: string) => void} moved is told of another run than the one that was shown
 */
export function createOfflineModel(part, values, say, moved) {
  const { name: own, results, answers, makes, chooses, owners, table } = part;
  /** @type {Map<string, Set<() => void>>} */
  const handlers = new Map();
  /** @type {Record<string, any>} `_offline` tells a view that what it waits for does not come */
  const state = { _offline: true };
  const read = (/** @type {Record<string, number>} */ traits) => Object.fromEntries(Object.entries(traits).map(([name, at]) => [name, values[at]]));
  const opening = results[results.length - 1];
  let shown = opening;
  let told = runOf(shown);
  /** @type {Result[]} */
  let past = [];
  /** @type {Result[]} */
  let future = [];
  /** @type {Map<string, any>} what was set since it was last saved, with what it was before */
  let pending = new Map();
  const fire = (/** @type {string} */ name) => [...(handlers.get(`change:${name}`) ?? [])].forEach((handler) => handler());

  /** Answer the request: nothing shown may be older than it. @param {number} id */
  function settle(id) {
    for (const [name, value] of Object.entries(state)) if (value?.id !== undefined && name !== "_request") state[name] = { ...value, id };
    state._status = { id, state: "idle", done: 0, total: 0, message: "", ms: 0, error: null };
    state._history = { undo: past.length > 0, redo: future.length > 0 };
    Object.keys(state).filter((name) => name !== "_request").forEach(fire);
    if (runOf(shown) === told) return;
    told = runOf(shown);
    moved(told);
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
  /** @param {number} id @returns {boolean} whether the page has a table of what is shown: what it opened with, chosen as it was */
  function handOver(id) {
    if (!table || shown !== opening || Object.entries(table.of).some(([name, value]) => state[name] !== value)) return false;
    // Taken back as Python does: it is not part of what is shown.
    for (const file of [{ id, ...table.file }, {}]) {
      state._saved = file;
      fire("_saved");
    }
    return true;
  }
  /** @param {Request} request @returns {boolean} whether the page can do it */
  function carryOut({ id, op, ...args }) {
    if (op === "to_csv") return handOver(id);
    const back = op === "undo" ? past.pop() : op === "redo" ? future.pop() : null;
    if (back) {
      (op === "undo" ? future : past).push(shown);
      load(back);
      return true;
    }
    const next = recordedAnswer(results, shown, op, args, makes);
    if (next) {
      go(next);
      return true;
    }
    const chosen = chooses[op] ?? [];
    const ready = shown === opening ? answers[canonical({ op, ...args })] : undefined;
    if (!ready && !(chosen.length && Object.entries(args).every(([name, value]) => chosen.includes(name) || state[name] === value))) return false;
    Object.assign(state, Object.fromEntries(Object.entries(args).filter(([name]) => chosen.includes(name))), ready && read(ready));
    return true;
  }
  /** @param {Request} request @param {Map<string, any>} before what was set along with it, as it was */
  function answer(request, before) {
    const done = carryOut(request);
    const { id, op, ...args } = request;
    if (!done) for (const name of Object.keys(args)) if (before.has(name)) state[name] = before.get(name);
    settle(id);
    say(done ? null : `${owners[op] ?? own}.${op}(${Object.entries(args).map(([name, value]) => `${name}=${asPython(value)}`).join(", ")})`);
  }
  /** A setting that Python would compute from. @param {string} name */
  function setAside(name) {
    const next = recordedAnswer(results, shown, "set", { [name]: state[name] }, makes);
    const refused = next ? null : `${own}.${name} = ${asPython(state[name])}`;
    if (next && next !== shown) go(next);
    state[name] = shown.question[name];
    settle(Number(state._status.id));
    say(refused);
  }

  load(opening);
  settle(0);
  return {
    get: (/** @type {string} */ name) => state[name],
    set(/** @type {string} */ name, /** @type {any} */ value) {
      if (!pending.has(name)) pending.set(name, state[name]);
      state[name] = value;
      fire(name);
    },
    save_changes() {
      const changed = pending;
      pending = new Map();
      for (const name of changed.keys()) {
        if (name === "_request") answer(state._request, changed);
        else if (name in shown.question) setAside(name);
      }
    },
    send() {},
    on: (/** @type {string} */ event, /** @type {() => void} */ handler) => void handlers.set(event, (handlers.get(event) ?? new Set()).add(handler)),
    off: (/** @type {string} */ event, /** @type {() => void} */ handler) => void handlers.get(event)?.delete(handler),
    shown: () => results.indexOf(shown),
    /** Whether it shows what it opened with. */
    opens: () => shown === opening,
    /** @param {string} run shows what there is of it, as like what is shown as can be */
    follow(run) {
      const fits = results.filter((result) => runOf(result) === run);
      if (run === told || !fits.length) return;
      const alike = (/** @type {Result} */ { question }) => Object.keys(question).filter((name) => canonical(question[name]) === canonical(shown.question[name])).length;
      go(fits.reduce((best, each) => (alike(each) > alike(best) ? each : best)));
      told = run;
      settle(Number(state._status.id));
    },
    /** @param {number} index shows a recorded result */
    show(index) {
      if (results[index] === shown) return;
      go(results[index]);
      settle(Number(state._status.id));
      say(null);
    },
  };
}

/** What is chosen in the View menu of one widget holds for all. */
const LOOKS = ["palette", "value_labels", "size", "figure_mode", "teaching"];

/** Draw the page's widgets, and above them what the page holds. */
export async function openPage() {
  /** @type {PageData} */
  const { values, widgets, code } = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("iw-page-data")).textContent ?? "");
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
  const [{ results }] = widgets;
  const picker = dropdown({ label: "recorded:", options: results.map(({ label }, index) => [String(index), label]), onChoose: (value) => models[0].show(Number(value)) });
  picker.el.hidden = results.length < 2;
  const bar = h("header", { class: "iw-root iw-page__bar" }, h("span", { class: "iw-hint" }, "A saved page: no kernel, no network."), picker.el, toggle, notice);
  function paint() {
    const theme = chosen ?? (dark.matches ? "dark" : "light");
    html.dataset.theme = bar.dataset.iwTheme = theme;
    html.style.colorScheme = theme;
    fill(toggle, theme === "dark" ? "Light theme" : "Dark theme");
  }
  const keepUp = () => {
    const [first] = models;
    picker.update(String(first.shown()));
    if (code === null) return;
    // Any mixture of recorded results may be shown, and of each there is its widget's own code.
    first.set("_code_of_all", models.every((model) => model.opens()) ? code : `# This is ${widgets[0].name} alone: what the page opened with has the code of all.\n${first.get("_code")}`);
    first.save_changes();
  };
  const say = (/** @type {string | null} */ python) => {
    fill(notice, ...(python === null ? [] : ["This page has no kernel: run the notebook to do this, or in Python ", h("code", { class: "iw-page__code" }, python)]));
    keepUp();
  };
  const models = widgets.map((part) => createOfflineModel(part, values, say, (run) => models.forEach((model) => model.follow(run))));
  for (const model of models) for (const name of LOOKS) model.on(`change:${name}`, () => {
    for (const other of models) if (other.get(name) !== model.get(name)) other.set(name, model.get(name));
  });
  dark.addEventListener("change", paint);
  paint();
  keepUp();
  const figures = h("div", { class: "iw-page__widgets" });
  main.append(bar, figures);
  document.body.append(main);
  for (const [index, { esm }] of widgets.entries()) {
    const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
    const { default: widget } = await import(url);
    URL.revokeObjectURL(url);
    const el = h("div");
    figures.append(el);
    await widget.render({ model: models[index], el });
  }
}
