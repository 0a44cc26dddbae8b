// The frame of every widget: header, prompt, experiments, body, status; theme, errors and the link to the kernel.
import { h, fill, attribute, closeWithEscape, coalesce } from "./dom.js";
import { createExperiments } from "./experiments.js";
import { createHelp } from "./help.js";
import { createLooks } from "./looks.js";
import { createHistory } from "./history.js";
import { followHover } from "./hover.js";
import { createSaving } from "./saving.js";
import { connect } from "./wire.js";
import { followTheme, readPalette } from "./color.js";

/**
 * @typedef {import("./wire.js").Model} Model
 * @typedef {{model: Model, el: HTMLElement, signal?: AbortSignal}} RenderArguments what an anywidget host passes to `render`
 * @typedef {ReturnType<typeof createFrame>} Frame
 */

/**
 * Draw the frame into `el`. The caller appends to `frame.prompts` and `frame.body`, draws when `onTheme` says so, and returns
 * `frame.dispose` from `render`, for hosts that pass no signal.
 * @param {RenderArguments} host
 * @param {{name: string, onTheme: () => void, picture: () => HTMLCanvasElement, onHover: (place: import("./hover.js").Place) => void}} spec `picture`: the one that stands for a run in the history; `onHover`: is told what is pointed at in a linked widget
 */
export function createFrame(host, { name, onTheme, picture, onHover }) {
  const ending = new AbortController();
  host.signal?.addEventListener("abort", () => ending.abort(), { once: true, signal: ending.signal });
  const { signal } = ending;
  const wire = connect(host.model, signal);
  const live = h("div", { class: "iw-hidden", "aria-live": "polite", role: "status" });
  const prompts = h("div", { class: "iw-prompts" });
  const body = h("div", { class: "iw-body" });
  const saving = createSaving(wire, signal, () => root);
  /** @type {import("./color.js").Palette | null} */
  let palette = null;
  const help = createHelp(wire);
  const looks = createLooks(wire, () => root, () => {
    palette = null;
    onTheme();
  });
  const past = createHistory(wire, picture);
  const parts = [header(wire, help, looks, past, saving.el), help.sheet, help.teaching, prompts, createExperiments(wire, signal), alerts(wire)];
  /** What is to be said: of what is selected or has come of a run, and of the run. They come in any order. */
  let saying = ["", ""];
  const say = coalesce(() => {
    fill(live, saying.filter(Boolean).join(" · "));
    saying = ["", ""];
  }, signal);
  const announce = (/** @type {string} */ text, at = 0) => {
    saying[at] = text;
    say();
  };
  const foot = statusLine(wire, (text) => announce(text, 1));
  const root = h("div", { class: `iw-root iw-${name}`, role: "figure" },
    ...parts.map((part) => ("el" in part ? part.el : part)), body, foot.el, looks.leave, live);
  // A still picture stands in an output of its own, for the day when there is no kernel; it shows when this does not.
  if (/^[\w-]+$/.test(host.model.get("_still") ?? "")) root.append(h("style", {}, `#${host.model.get("_still")} { display: none; }`));

  const watchTheme = followTheme(root, () => {
    palette = null;
    if (root.isConnected) onTheme();
  }, signal);
  // The first size is the first moment at which the host's ancestors and computed colours can be seen.
  const attached = new ResizeObserver(() => {
    palette = null;
    watchTheme();
    onTheme();
    attached.disconnect();
  });
  attached.observe(root);
  signal.addEventListener("abort", () => attached.disconnect());

  const state = () => (wire.pending() ? "pending" : wire.failed() || !wire.connected() || wire.broken() ? "stale" : "fresh");
  // "fresh" is said when the frame that draws the answer has been painted: nobody reads or times a picture that is not there yet.
  const painted = coalesce(() => setTimeout(() => {
    if (state() === "fresh") past.keep();
    attribute(root, "data-state", state());
  }), signal);
  const refresh = () => {
    attribute(root, "aria-label", wire.model.get("_title") || name);
    attribute(root, "data-embedded", wire.model.get("_embedded") ? "true" : null);
    if (state() === "fresh") painted();
    else attribute(root, "data-state", state());
    attribute(body, "aria-busy", wire.pending() && wire.connected() ? "true" : "false");
    for (const part of [help, looks, ...parts, foot]) if ("update" in part) part.update();
  };
  wire.watch(refresh);
  wire.on(["_title", "_header", "_prompt", "_prompts", "_experiments", "_pinned", "_embedded", "_history", "_code", "_code_of_all", "_past", "linked", "_help", "palette", "value_labels", "size", "figure_mode", "teaching"], refresh);
  root.onpointerdown = (event) => looks.shut(/** @type {Node} */ (event.target));
  // Notebook 7 hears keys before the widget does, JupyterLab after it: there the attribute tells it whose they are.
  window.addEventListener("keydown", (event) => {
    const [target] = event.composedPath();
    if (!event.composedPath().includes(root) || !(target instanceof Element)) return;
    const ours = !(event.ctrlKey || event.metaKey || event.altKey) || (!event.altKey && /^[zy]$/i.test(event.key));
    attribute(target, "data-lm-suppress-shortcuts", ours ? "true" : null);
  }, { capture: true, signal });
  root.onkeydown = (event) => {
    if (!(event.ctrlKey || event.metaKey || event.altKey)) {
      // A notebook in command mode would take a letter for itself: b adds a cell, d d deletes this one.
      event.stopPropagation();
      if (event.key === "?" && !typing(event)) help.flip();
      return;
    }
    if (event.altKey || typing(event)) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    wire.request(key === "y" || event.shiftKey ? "redo" : "undo");
  };
  refresh();
  host.el.append(root);
  signal.addEventListener("abort", () => root.remove());

  return {
    root,
    prompts,
    body,
    wire,
    signal,
    palette() {
      if (palette) return palette;
      const read = { ...readPalette(root), written: wire.model.get("value_labels") !== false };
      if (root.isConnected && read.fg) palette = read;
      return read;
    },
    /** Tells linked widgets what is pointed at here. */
    hover: followHover(wire.model, signal, onHover),
    /** @param {string} text says it to a screen reader, once it is quiet */
    announce: (text) => announce(text),
    dispose: () => ending.abort(),
  };
}

/** @param {KeyboardEvent} event @returns {boolean} whether the key belongs to a field that takes text */
function typing({ target }) {
  return /** @type {Element} */ (target).matches("input:not([type=checkbox]), textarea, select");
}

/**
 * @param {import("./wire.js").Wire} wire
 * @param {ReturnType<typeof createHelp>} help
 * @param {import("./looks.js").Looks} looks
 * @param {ReturnType<typeof createHistory>} past
 * @param {HTMLElement} saving
 */
function header(wire, help, looks, past, saving) {
  const ask = (/** @type {string} */ op, /** @type {string} */ text) =>
    h("button", { type: "button", class: "iw-button", onclick: () => wire.request(op) }, text);
  const title = h("span", { class: "iw-header__title", role: "heading", "aria-level": "3" });
  const about = h("span", { class: "iw-header__about" });
  const [undo, redo] = [ask("undo", "Undo"), ask("redo", "Redo")];
  const code = h("code", { class: "iw-code__text" });
  const said = h("span", { class: "iw-hint", role: "status" });
  const panel = h("div", { class: "iw-code", hidden: true },
    h("pre", { class: "iw-code__pre", tabindex: "0", "aria-label": "Python that rebuilds what is shown" }, code),
    h("button", { type: "button", class: "iw-button", onclick: () => copy() }, "Copy"), said);
  const flip = () => {
    panel.hidden = !panel.hidden;
    attribute(show, "aria-expanded", panel.hidden ? "false" : "true");
  };
  const show = h("button", { type: "button", class: "iw-button", "aria-expanded": "false", title: "The Python that rebuilds what is shown", onclick: flip }, "Code");
  closeWithEscape(show, panel, flip);
  const checkSummary = h("summary", { class: "iw-check__summary" });
  const checkList = h("ul", { class: "iw-pop" });
  const check = h("details", { class: "iw-check" }, checkSummary, checkList);
  check.onkeydown = (event) => {
    if (event.key !== "Escape" || !check.open) return;
    check.open = false;
    checkSummary.focus();
  };
  async function copy() {
    // Outside secure contexts there is no clipboard: the selection lets the reader copy by hand.
    getSelection()?.selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      fill(said, "copied");
    } catch {
      fill(said, "selected: press Ctrl+C");
    }
  }
  return {
    el: h("div", { class: "iw-top" },
      h("div", { class: "iw-header" }, title, about, check,
        h("div", { class: "iw-header__buttons", role: "group", "aria-label": "History, view, code and files" }, h("span", { class: "iw-header__shared" }, help.presets, undo, redo), past.button, looks.el, show, saving, help.toggle)), panel, past.el),
    update() {
      const model = wire.model;
      const { check: result, ...facts } = model.get("_header") ?? {};
      const prompt = model.get("_prompt") ?? model.get("_prompts")?.clean ?? {};
      const { source } = prompt;
      const read = prompt.tokens?.length ? `${source ? `${source.tokens.length} + ` : ""}${prompt.tokens.length} tokens` : null;
      const shape = facts.layers ? `${facts.layers} layers of ${facts.heads} heads` : null;
      const shared = facts.kv_heads && facts.kv_heads !== facts.heads ? `${facts.kv_heads} key/value heads` : null;
      fill(title, model.get("_title") || "");
      fill(about, ...[facts.model, facts.dtype, facts.device, read, source?.bos, source ? `target ${prompt.bos}` : prompt.bos].filter(Boolean).map((fact) => h("span", { class: "iw-fact" }, fact)));
      check.hidden = !result?.summary;
      attribute(check, "data-ok", result?.ok ? "true" : "false");
      fill(checkSummary, result?.ok ? "✓ " : "✗ ", result?.summary ?? "");
      fill(checkList, ...(result?.details ?? []).map((/** @type {{name: string, text: string, ok: boolean}} */ line) =>
        h("li", { "data-ok": line.ok ? "true" : "false" }, line.ok ? "✓ " : "✗ ", h("b", {}, line.name), ` ${line.text}`)),
        h("li", {}, [shape, shared, facts.attention && `${facts.attention} attention`, facts.note].filter(Boolean).join(" · ")));
      const history = model.get("_history") ?? {};
      undo.disabled = !history.undo;
      redo.disabled = !history.redo;
      fill(code, model.get("_code_of_all") || model.get("_code") || "");
      past.update();
    },
  };
}

/** @param {import("./wire.js").Wire} wire */
function alerts(wire) {
  const el = h("div", { class: "iw-alerts" });
  let shown = "";
  return {
    el,
    update() {
      const { error, state, message } = wire.status();
      const gone = !wire.connected();
      const broken = wire.broken();
      const key = JSON.stringify([error, gone, broken, state === "closed"]);
      // Rebuilding an alert reads it out again.
      if (key === shown) return;
      shown = key;
      fill(el,
        gone ? h("div", { class: "iw-alert", role: "alert" }, "Not connected to a kernel, or it is busy: a click is answered when the running cell has ended; if none runs, run the cell again to bring this widget back to life") : null,
        broken ? h("div", { class: "iw-alert", role: "alert" }, h("b", {}, "What the kernel sent cannot be drawn"), h("div", {}, broken)) : null,
        state === "closed" ? h("div", { class: "iw-alert", role: "alert" }, message || "This session is closed: make a new one to go on") : null,
        error ? h("div", { class: "iw-alert", role: "alert" }, h("b", {}, error.title),
          h("pre", { class: "iw-alert__text", tabindex: "0" }, error.text), error.hint ? h("div", {}, error.hint) : null) : null);
    },
  };
}

/**
 * @param {import("./wire.js").Wire} wire
 * @param {(text: string) => void} announce
 */
function statusLine(wire, announce) {
  const bar = h("div", { class: "iw-progress", role: "progressbar", "aria-label": "Progress", "aria-valuemin": "0" }, h("div", { class: "iw-progress__fill" }));
  const text = h("span", { class: "iw-status__text" });
  const stop = h("button", { type: "button", class: "iw-button iw-status__stop", onclick: () => wire.request("stop") }, "Stop");
  let waited = false;
  /** What the last run came to: an answer that took none, as to a selection, leaves it there. */
  let [last, about] = ["", ""];
  return {
    el: h("div", { class: "iw-status" }, text, bar, stop),
    update() {
      const status = wire.status();
      const pending = wire.pending();
      const gone = !wire.connected();
      const running = pending && !gone;
      const counted = running && status.total > 0;
      bar.hidden = stop.hidden = !running;
      attribute(bar, "aria-valuemax", counted ? status.total : null);
      attribute(bar, "aria-valuenow", counted ? status.done : null);
      bar.style.setProperty("--iw-share", counted ? String(status.done / status.total) : "");
      attribute(bar, "data-counted", counted ? "true" : "false");
      const time = status.ms > 0 ? `ran in ${status.ms < 10 ? status.ms.toFixed(1) : Math.round(status.ms)} ms` : "";
      const ran = [time, status.message].filter(Boolean).join(" · ");
      const words = gone ? "no answer"
        : running ? [status.state === "queued" ? "queued" : "running", counted ? `${status.done} of ${status.total}` : "", wire.silent() ? "no word from the kernel for 30 s: it computes, or what it says does not arrive here" : status.message].filter(Boolean).join(" · ")
        : status.error ? "failed: the picture is from the run before"
        : status.state === "cancelled" ? `stopped: ${status.message || "the picture is from the run before"}`
        : ran;
      if (ran && words === ran) [last, about] = [ran, status.detail ?? ""];
      fill(text, words || last);
      attribute(text, "title", (words ? status.detail : about) || null);
      if (waited && !pending && words) announce(words);
      waited = pending;
    },
  };
}
