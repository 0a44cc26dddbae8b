// LogitLens: what the model would predict after every layer; replace a token, transplant a hidden state, track a token.
import { h, fill, attribute, coalesce, choice, keepFocus } from "./dom.js";
import { decode } from "./wire.js";
import { legend } from "./color.js";
import { createFrame } from "./frame.js";
import { createMatrix } from "./matrix.js";
import { promptPair } from "./prompt.js";
import { percent } from "./predictions.js";
import { LENS_METRICS, writeMetric } from "./lens_metrics.js";
import { createCellPanel } from "./lens_panel.js";
import { isTouched, readLens, rowName, topToken, topTokens, withRows, wordOf } from "./lens_reading.js";
import { changePicture, everyCell, valuePicture } from "./lens_picture.js";
import { createTracks } from "./lens_tracks.js";
import { createReplace } from "./replace.js";

/**
 * @typedef {import("./lens_reading.js").Reading} Reading
 * @typedef {import("./lens_reading.js").Cell} Cell
 * @typedef {import("./matrix.js").Mark} Mark
 */

export default { render };

/** @param {import("./frame.js").RenderArguments} host */
function render(host) {
  const frame = createFrame(host, { name: "logit-lens", onTheme: () => redraw(), picture: () => (now ? second : grid).canvas });
  const { wire, signal } = frame;
  const { model } = wire;
  /** @type {Reading | null} */
  let baseline = null;
  /** @type {Reading | null} */
  let now = null;
  /** @type {Reading | null} `now` as it came: it may be of another prompt than the grid for a moment */
  let latest = null;
  /** @type {import("./lens_tracks.js").Tracks | null} */
  let tracks = null;
  /** @type {Cell | null} */
  let pointed = null;
  /** @type {Cell | null} the cell whose hidden state is to be transplanted, while its target is picked */
  let source = null;
  /** @type {"change" | "value"} */
  let view = "change";
  const redraw = coalesce(draw, signal);
  const show = coalesce(showCell, signal);

  const prompt = promptPair({
    run: (text) => wire.request("run", { prompt: text }),
    onToken: (position, anchor) => replace.open({
      position, anchor, token: tokens()[position], byId: model.get("_prompt")?.text === null,
      alternatives: alternatives(position),
    }),
    onHover(position) {
      for (const matrix of [grid, second]) matrix.emphasise(position, "columns");
      prompt.highlight(position === null ? [] : [position]);
    },
  });
  const replace = createReplace({ signal, onReplace: (replacement) => wire.request("replace", { ...replacement }) });
  const makeMatrix = () => createMatrix({
    signal, palette: frame.palette, upward: true, labelsOnTop: true, maxHeight: 660, maxLabel: 70,
    cellWidth: () => [46, 72],
    cellHeight: () => (rows().length > 36 ? 14 : 17),
    onPoint: point,
    onActivate: activate,
  });
  const [grid, second] = [makeMatrix(), makeMatrix()];
  const panel = createCellPanel({ onTrack: (token) => wire.request((model.get("tracked") ?? []).includes(token) ? "untrack" : "track", { token }) });
  const tracked = createTracks({ signal, onRemove: (token) => wire.request("untrack", { token }) });
  const metrics = choice({ label: "Colour by", options: LENS_METRICS.map(({ value, text, says }) => ({ value, text, title: says })), onChoose: colourBy });
  const views = choice({
    label: "What the second grid shows",
    options: [{ value: "change", text: "Change" }, { value: "value", text: "Value" }],
    onChoose(value) {
      view = value;
      redraw();
    },
  });
  const transplant = h("button", { type: "button", class: "iw-button iw-button--primary", onclick: () => (source ? endPicking() : startPicking()) });
  const banner = h("p", { class: "iw-lens__banner" });
  const readout = h("p", { class: "iw-readout" });
  const [gridLegend, secondLegend] = [legend(), legend()];
  const key = (/** @type {string} */ kind, /** @type {string} */ text) => h("span", { class: "iw-lens__key", "data-kind": kind }, text);
  const secondKeys = h("p", { class: "iw-caption" });
  const gridVeil = h("div", { class: "iw-veil" }, grid.el);
  const secondVeil = h("div", { class: "iw-veil" }, second.el);
  const secondPart = h("section", { class: "iw-lens__grid iw-lens__second", "aria-label": "With experiments" },
    h("div", { class: "iw-controls iw-lens__head" }, h("p", { class: "iw-caption" }, h("b", {}, "with experiments")), views.el, secondLegend.el), secondVeil, secondKeys);

  const [targetKey, targetNote] = [key("target", ""), h("span")];

  frame.prompts.append(prompt.el, replace.el);
  frame.body.append(
    h("div", { class: "iw-controls" }, h("span", { class: "iw-field__label" }, "colour by"), metrics.el),
    h("div", { class: "iw-lens__act" }, transplant, banner), readout,
    h("section", { class: "iw-lens__grid", "aria-label": "Baseline" },
      h("div", { class: "iw-controls iw-lens__head" }, h("p", { class: "iw-caption" }, h("b", {}, "baseline")), gridLegend.el), gridVeil,
      h("p", { class: "iw-caption" }, "top token of each cell · ", targetKey, targetNote)),
    secondPart, h("div", { class: "iw-lens__side" }, panel.el, tracked.el));

  const tokens = () => /** @type {import("./tokens.js").Token[]} */ (model.get("_prompt")?.tokens ?? []);
  const word = (/** @type {number} */ position) => (tokens().length === cols() ? tokens()[position]?.text : undefined) ?? "";
  const metric = () => /** @type {string} */ (model.get("metric") ?? "probability");
  /** The frame stands before the numbers come: its size is known from the header and the prompt. */
  const rows = () => baseline?.rows ?? (model.get("_header")?.layers ? ["emb", ...Array.from({ length: model.get("_header").layers }, (_, layer) => String(layer))] : []);
  const cols = () => baseline?.cols ?? tokens().length;
  const selected = () => {
    const [row = Infinity, col = Infinity] = model.get("cell") ?? [];
    return { row: Math.max(0, Math.min(row, rows().length - 1)), col: Math.max(0, Math.min(col, cols() - 1)) };
  };
  const causal = () => model.get("_header")?.causal !== false;
  /** @param {number} position @returns what the model expects there: a causal model, after the token before */
  function alternatives(position) {
    const col = causal() ? position - 1 : position;
    return baseline && col >= 0 && col < baseline.cols ? topTokens(baseline, null, { row: baseline.rows.length - 1, col }) : [];
  }
  const place = (/** @type {Cell} */ cell) => `${rowName(rows(), cell.row)} · position ${cell.col}`;

  /** @param {string} value */
  function colourBy(value) {
    model.set("metric", value);
    if (baseline && [baseline, now].some((reading) => reading && !(value in reading.metrics))) wire.request("compute", { metric: value });
    else model.save_changes();
  }
  /** @param {Cell | null} cell @param {"pointer" | "keyboard"} from */
  function point(cell, from) {
    pointed = cell;
    if (cell && from === "keyboard") {
      if (!source) select(cell);
      frame.announce(sentence(cell));
    }
    show();
  }
  /** @param {Cell} cell @param {Event} event */
  function activate(cell, event) {
    if (!source) {
      select(cell);
      if (event.type !== "click") startPicking();
    } else if (cell.row === source.row && cell.col === source.col) frame.announce("source and target are the same cell");
    else {
      wire.request("transplant_cells", { source: [source.row, source.col], target: [cell.row, cell.col] });
      endPicking();
    }
  }
  /** @param {Cell} cell */
  function select(cell) {
    wire.set("cell", [cell.row, cell.col]);
    show();
  }
  function startPicking() {
    if (!baseline) return;
    source = selected();
    grid.focus();
    show();
    frame.announce(`pick a target for ${place(source)} ${word(source.col)}`);
  }
  function endPicking() {
    source = null;
    show();
  }
  frame.body.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /** @type {Element} */ (event.target).matches("input, textarea, select")) return;
    if (event.key === "Escape" && source) endPicking();
    else if (event.key.toLowerCase() === "t" && !source) startPicking();
  }, { signal });

  /** @param {Cell} cell @returns {string} a cell in one line */
  function sentence(cell) {
    const start = `${rowName(rows(), cell.row)} position ${cell.col} ${word(cell.col)}`;
    const say = (/** @type {Reading} */ reading) => {
      const top = topToken(reading, cell);
      return top < 0 ? "not known yet" : `${wordOf(reading, top)} ${percent(reading.p[(cell.row * reading.cols + cell.col) * reading.k])}`;
    };
    if (!baseline) return start;
    const name = metric();
    const at = cell.row * baseline.cols + cell.col;
    const written = [baseline, now].filter((reading) => reading !== null).map((reading) => writeMetric(name, reading.metrics[name]?.[at]));
    const unit = baseline.units[name] && name !== "rank" ? ` ${baseline.units[name]}` : "";
    const measured = name === "probability" ? "" : ` · ${LENS_METRICS.find(({ value }) => value === name)?.text} ${written.join(" → ")}${unit}`;
    if (!now) return `${start}: ${say(baseline)}${measured}`;
    return isTouched(now, cell) ? `${start}: ${say(baseline)} → ${say(now)}${measured}` : `${start}: ${say(baseline)} · untouched by the experiments`;
  }

  /** What follows the pointer and the selection; the grids' cells stay as they are. */
  function showCell() {
    // A cell of the prompt before may lie outside this one.
    const inside = (/** @type {Cell | null} */ at) => (at && at.row < rows().length && at.col < cols() ? at : null);
    [source, pointed] = [inside(source), inside(pointed)];
    const cell = pointed ?? selected();
    const next = causal() && cell.col + 1 < cols() ? word(cell.col + 1) : "";
    panel.update(baseline, now, cell, { place: place(cell), word: word(cell.col), next, of: causal() ? "next token" : "token here", tracked: new Set(model.get("tracked") ?? []) });
    tracked.update(tracks?.probability.shape[2] === cols() ? tracks : null, cell, rows().map((_, row) => rowName(rows(), row)), `position ${cell.col} ${word(cell.col)}`);
    fill(readout, cols() ? sentence(cell) : "");
    prompt.highlight(pointed ? [cell.col] : []);
    fill(transplant, source ? "Cancel transplant" : cols() ? `Transplant from ${place(selected())}` : "Transplant from here");
    attribute(transplant, "aria-pressed", source ? "true" : "false");
    transplant.disabled = !baseline;
    attribute(banner, "data-picking", source ? "true" : null);
    fill(banner, source ? `pick a target for ${place(source)} ${word(source.col)}: click it, or arrow keys and Enter · Esc cancels`
      : "a click or the arrow keys select a cell · T or Enter transplants its hidden state");
    const target = source && pointed && (pointed.row !== source.row || pointed.col !== source.col) ? pointed : null;
    const marks = [...(target ? cone(target) : []), ...(source ? [mark(source, "ring")] : []), ...(cols() ? [mark(source ?? selected(), "selected")] : [])];
    grid.mark([...gridMarks, ...marks]);
    second.mark([...secondMarks, ...marks]);
    if (!source) for (const matrix of [grid, second]) matrix.moveTo(selected());
  }
  /** @param {Cell} cell @param {Mark["kind"]} kind @param {string} [colour] @returns {Mark} */
  function mark({ row, col }, kind, colour) {
    return { row, col, kind, colour };
  }
  /** @param {Cell} target @returns {Mark[]} the cells that a state written there can change */
  function cone(target) {
    return everyCell(rows().length, cols()).filter(({ row, col }) => (row > target.row && (col >= target.col || !causal())) || (row === target.row && col === target.col)).map((cell) => mark(cell, "shade"));
  }

  /** @type {any} */
  let shownPrompt = null;
  /** @type {Mark[]} */
  let gridMarks = [];
  /** @type {Mark[]} */
  let secondMarks = [];

  let width = 0;
  const resized = new ResizeObserver((entries) => {
    width = entries[entries.length - 1].contentRect.width;
    arrange();
  });
  resized.observe(frame.root);
  signal.addEventListener("abort", () => resized.disconnect());
  /** Where the panels stand depends on how many columns there are, which no container query knows. */
  function arrange() {
    const least = Math.max(250, Math.min(700, 46 * cols() + 90));
    const room = width - 24 - 24 - 300;
    attribute(frame.root, "data-layout", room < least ? "stacked" : !secondPart.hidden && room >= 2 * least + 24 ? "row" : "beside");
    frame.root.style.setProperty("--iw-natural", `${Math.max(330, 72 * cols() + 100)}px`);
  }

  function draw() {
    now = latest && baseline && latest.cols === baseline.cols && latest.rows.length === baseline.rows.length ? latest : null;
    if (shownPrompt !== model.get("_prompt")) {
      shownPrompt = model.get("_prompt");
      replace.close();
      keepFocus(prompt.el, () => prompt.update(shownPrompt ?? {}));
    }
    metrics.update(metric());
    drawGrid();
    drawSecond();
    arrange();
    showCell();
  }
  /** @param {HTMLElement} veil @param {Reading | null} reading a picture that fills up is veiled no more */
  function unveil(veil, reading) {
    attribute(veil, "data-filling", reading && wire.pending() && reading.id >= (model.get("_request")?.id ?? 0) ? "true" : null);
  }
  /** @returns {Pick<import("./matrix.js").MatrixData, "rows" | "cols" | "rowLabels" | "colLabels" | "rowTitle" | "colTitle">} */
  function axes() {
    return {
      rows: rows().length, cols: cols(), rowTitle: "layer ↑", colTitle: "position →",
      rowLabels: rows().map((_, row) => ({ text: rowName(rows(), row) })),
      colLabels: Array.from({ length: cols() }, (_, col) => ({ text: word(col), index: col, faint: tokens()[col]?.special })),
    };
  }
  /**
   * @param {import("./lens_picture.js").Picture} picture
   * @returns {import("./matrix.js").MatrixData}
   */
  function filled({ colour, text, marks }) {
    return { ...axes(), colour, text, marks, describe: (row, col) => sentence({ row, col }) };
  }
  function drawGrid() {
    fill(targetKey, causal() ? "it is the actual next token" : "it is the token itself");
    fill(targetNote, causal() ? " (at the last position: the model's own choice)" : " (under a mask: the model's own choice)");
    const picture = valuePicture(baseline, { metric: metric(), palette: frame.palette(), runs: [baseline, now] });
    gridMarks = picture.marks;
    grid.update("logit lens, layer by position", filled(picture));
    gridLegend.update(picture.legend);
    unveil(gridVeil, baseline);
  }
  function drawSecond() {
    const asked = model.get("_request")?.op === "transplant_cells" || (model.get("_experiments") ?? []).some((/** @type {{on: boolean}} */ experiment) => experiment.on);
    secondPart.hidden = !now && !(baseline && asked && wire.pending() && wire.connected());
    views.update(view);
    const about = { metric: metric(), palette: frame.palette() };
    const picture = view === "change" && baseline && now ? changePicture(baseline, now, about)
      : valuePicture(now, { ...about, runs: [baseline, now], before: baseline });
    secondMarks = picture.marks;
    second.update("with experiments, layer by position", filled(picture));
    secondLegend.update(picture.legend);
    fill(secondKeys, "top token now · ", key("changed", "another one than in the baseline"),
      ...(view === "change" ? [" · ", key("untouched", "untouched: the experiments do not reach it")] : []));
    unveil(secondVeil, now);
  }

  wire.on(["_prompt", "_header", "metric"], redraw);
  wire.on(["cell", "tracked"], show);
  wire.watch(redraw);
  wire.results("_grid", (result) => {
    baseline = readLens(result);
    redraw();
  });
  wire.results("_part", (result) => {
    baseline = withRows(baseline, result);
    redraw();
  });
  // The whole grid holds again; it has not come again if it is the one that was there before the parts.
  wire.on("_part", () => {
    if (model.get("_part")?.id !== undefined) return;
    baseline = readLens(model.get("_grid"));
    redraw();
  });
  const takeNow = (/** @type {any} */ result) => {
    latest = readLens(result);
    redraw();
  };
  wire.results("_now", takeNow);
  wire.results("_tracks", (/** @type {any} */ result) => {
    const [probability, rank] = [decode(result.probability), decode(result.rank)];
    tracks = probability && rank && { ...result, probability, rank, nowProbability: decode(result.now_probability), nowRank: decode(result.now_rank) };
    show();
  });
  // An empty trait carries no id: the experiments are off, or nothing is tracked any more.
  wire.on("_now", () => {
    if (model.get("_now")?.id === undefined) takeNow(null);
  });
  wire.on("_tracks", () => {
    if (model.get("_tracks")?.id !== undefined) return;
    tracks = null;
    show();
  });
  redraw();
  return frame.dispose;
}
