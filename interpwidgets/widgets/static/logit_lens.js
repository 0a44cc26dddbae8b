// LogitLens: what the model would predict after every layer; replace a token, transplant a hidden state, track a token.
import { h, fill, attribute, coalesce, choice, keepFocus } from "./dom.js";
import { baselineWords, nowWords, pinnedIn, untouchedWords } from "./baseline.js";
import { bandLabel, bandName, createFold } from "./bands.js";
import { decode } from "./wire.js";
import { legend } from "./color.js";
import { createFrame } from "./frame.js";
import { createMatrix } from "./matrix.js";
import { promptPair } from "./prompt.js";
import { percent } from "./predictions.js";
import { bandValue, isKept, takeCells } from "./lens_bands.js";
import { LENS_METRICS, metricSays, writeAbout, writeMetric } from "./lens_metrics.js";
import { createCellPanel } from "./lens_panel.js";
import { isTouched, readLens, rowName, topToken, topTokens, withRows, withRowsBefore, wordOf } from "./lens_reading.js";
import { changePicture, isReached, valuePicture } from "./lens_picture.js";
import { createTracks } from "./lens_tracks.js";
import { createReplace } from "./replace.js";
import { isolated } from "./tokens.js";

/**
 * @typedef {import("./lens_reading.js").Reading} Reading
 * @typedef {import("./lens_reading.js").Cell} Cell
 * @typedef {import("./matrix.js").Mark} Mark
 */

/** Rows that are drawn at most: of a deeper model, every second layer, or third. */
const MOST_ROWS = 46;
/** Pixels of a cell at least: where all fit that way, and where they scroll. */
const [SLIM, WIDE] = [38, 46];
/** Milliseconds that the view or the pointer rests before cells are asked for. */
const ASK_AFTER = 60;

export default { render };

/** @param {import("./frame.js").RenderArguments} host */
function render(host) {
  const frame = createFrame(host, { name: "logit-lens", onTheme: () => redraw(), picture: () => (now ? second : grid).canvas, onHover: showHover });
  const { wire, signal } = frame;
  const { model } = wire;
  /** @type {Reading | null} */
  let baseline = null;
  /** @type {Reading | null} */
  let now = null;
  /** @type {Reading | null} `now` as it came: it may be of another prompt than the grid for a moment */
  let latest = null;
  /** @type {any} the newest `_now`: what of it came */
  let changed = null;
  /** @type {import("./lens_tracks.js").Tracks | null} */
  let tracks = null;
  /** @type {Cell | null} */
  let pointed = null;
  /** @type {{row: number, span: import("./bands.js").Span} | null} what is pointed at, where it is several positions */
  let band = null;
  let everyLayer = false;
  let asking = 0;
  signal.addEventListener("abort", () => clearTimeout(asking));
  /** @type {(() => void) | null} what waits for cells that were asked for */
  let waiting = null;
  const fold = createFold();
  let width = 0;
  /** Whether all columns fit if they are slim. */
  let slim = false;
  /** @type {Cell | null} the cell whose hidden state is to be transplanted, while its target is picked */
  let source = null;
  /** @type {"change" | "value"} */
  let view = "change";
  const redraw = coalesce(draw, signal);
  const show = coalesce(showCell, signal);

  const prompt = promptPair({
    run: (text) => wire.request("run", { prompt: text }),
    onToken(position, anchor) {
      const open = () => replace.open({ position, anchor, token: tokens()[position], byId: model.get("_header")?.tokenizer === false, alternatives: alternatives(position) });
      open();
      const before = causal() ? position - 1 : position;
      if (before < 0 || !baseline?.folded || isKnown(before)) return;
      waiting = () => isKnown(before) && !replace.el.hidden && replace.position() === position && open();
      wantColumns(before);
    },
    onHover(position) {
      emphasise(null, position);
      frame.hover({ position });
    },
  });
  const replace = createReplace({ signal, onReplace: (replacement) => wire.request("replace", { ...replacement }) });
  const makeMatrix = () => createMatrix({
    signal, palette: frame.palette, upward: true, labelsOnTop: true, maxHeight: 660, maxLabel: () => (fold.anyBand() ? 88 : 70),
    cellWidth: () => [slim ? SLIM : WIDE, 72],
    cellHeight: () => (drawnRows().length > 36 ? 14 : 17),
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
  const closeBands = h("button", { type: "button", class: "iw-button", title: "Fold all positions into bands again; Esc folds the last ones", onclick: () => foldAgain(true) }, "Fold all");
  const layers = h("button", { type: "button", class: "iw-button", onclick: () => {
    everyLayer = !everyLayer;
    redraw();
  } }, "All layers");
  const banner = h("p", { class: "iw-lens__banner" });
  const readout = h("p", { class: "iw-readout" });
  const [gridLegend, secondLegend] = [legend(), legend()];
  const key = (/** @type {string} */ kind, /** @type {string} */ text) => h("span", { class: "iw-lens__key", "data-kind": kind }, text);
  const secondKeys = h("p", { class: "iw-caption" });
  const gridVeil = h("div", { class: "iw-veil" }, grid.el);
  const secondVeil = h("div", { class: "iw-veil" }, second.el);
  const [gridCaption, secondCaption] = [h("p", { class: "iw-caption" }), h("p", { class: "iw-caption" })];
  const secondPart = h("section", { class: "iw-lens__grid iw-lens__second" },
    h("div", { class: "iw-controls iw-lens__head" }, secondCaption, views.el, secondLegend.el), secondVeil, secondKeys);

  const [written, targetKey, targetNote] = [h("span", { class: "iw-lens__written" }, "written: the top token · "), key("target", ""), h("span")];

  frame.prompts.append(prompt.el, replace.el);
  frame.body.append(
    h("div", { class: "iw-controls iw-lens__colours" }, h("span", { class: "iw-field__label" }, "colour by"), metrics.el, layers, closeBands),
    h("div", { class: "iw-lens__act" }, transplant, banner), readout,
    h("section", { class: "iw-lens__grid", "aria-label": "Baseline" },
      h("div", { class: "iw-controls iw-lens__head" }, gridCaption, gridLegend.el), gridVeil,
      h("p", { class: "iw-caption" }, written, targetKey, targetNote)),
    secondPart, h("div", { class: "iw-lens__side" }, panel.el, tracked.el));

  const tokens = () => /** @type {import("./tokens.js").Token[]} */ (model.get("_prompt")?.tokens ?? []);
  const word = (/** @type {number} */ position) => (tokens().length === cols() ? tokens()[position]?.text : undefined) ?? "";
  const metric = () => {
    const chosen = /** @type {string} */ (model.get("metric") ?? "probability");
    // On a page without a kernel, what a recorded result lacks does not come.
    return model.get("_offline") && baseline && !(chosen in baseline.metrics) ? "probability" : chosen;
  };
  /** The frame stands before the numbers come: its size is known from the header and the prompt. */
  const rows = () => baseline?.rows ?? (model.get("_header")?.layers ? ["emb", ...Array.from({ length: model.get("_header").layers }, (_, layer) => String(layer))] : []);
  const cols = () => baseline?.cols ?? tokens().length;
  const rowStep = () => (everyLayer ? 1 : Math.ceil(rows().length / MOST_ROWS));
  /** The rows that are drawn: counted from the last, with the embedding. */
  const drawnRows = () => rows().map((_, row) => row).filter((row) => row === 0 || (rows().length - 1 - row) % rowStep() === 0);
  const drawn = () => ({ rows: drawnRows(), columns: fold.spans() });
  /** @param {Cell} cell @returns {Cell} where it is drawn, or nearest to there */
  const placeOf = ({ row, col }) => {
    return { row: drawnRows().filter((each) => each <= row).length - 1, col: fold.indexOf(col) };
  };
  const hasCome = (/** @type {Cell} */ cell) => [baseline, now].every((reading) => !reading || topToken(reading, cell) >= 0);
  const isKnown = (/** @type {number} */ position) => hasCome({ row: rows().length - 1, col: position }) && hasCome({ row: 0, col: position });
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

  /** @param {number | null} row @param {number | null} position */
  function emphasise(row, position) {
    const [at, col] = [row === null ? null : placeOf({ row, col: 0 }).row, position === null ? null : fold.indexOf(position)];
    for (const matrix of [grid, second]) matrix.emphasise(at, col);
    prompt.highlight(position === null ? [] : [position]);
  }
  /** @param {import("./hover.js").Place} place */
  function showHover({ layer, position }) {
    emphasise(layer !== null && layer + 1 < rows().length ? layer + 1 : null, position !== null && position >= 0 && position < cols() ? position : null);
  }
  /** @param {string} value */
  function colourBy(value) {
    model.set("metric", value);
    if (baseline && [baseline, now].some((reading) => reading && !(value in reading.metrics))) wire.request("compute", { metric: value });
    else model.save_changes();
  }
  /** @param {Cell | null} at where it is drawn @param {"pointer" | "keyboard"} from */
  function point(at, from) {
    const [row, span] = at ? [drawnRows()[at.row], fold.spans()[at.col]] : [0, undefined];
    const single = span && span[1] - span[0] === 1;
    pointed = single ? { row, col: span[0] } : null;
    band = span && !single ? { row, span } : null;
    frame.hover(span ? { layer: row - 1, position: span[0] } : null);
    if (from === "keyboard" && at) {
      if (pointed && !source) select(pointed);
      frame.announce(describe(at.row, at.col));
    }
    show();
    want();
  }
  /** @param {Cell} at where it is drawn @param {MouseEvent | KeyboardEvent} event */
  function activate(at, event) {
    const [row, [col]] = [drawnRows()[at.row], fold.spans()[at.col]];
    const cell = { row, col };
    if (fold.open(at.col, event.shiftKey)) {
      [band, pointed] = [null, null];
      frame.announce(`opened: columns from position ${col} on`);
      if (!source) select(cell);
      redraw();
      return;
    }
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
  /** @param {boolean} all bands, or those opened last @returns {boolean} whether any was open */
  function foldAgain(all) {
    const any = fold.anyOpen();
    if (all) fold.closeAll();
    else fold.close();
    [band, pointed] = [null, null];
    if (any) redraw();
    return any;
  }
  /** Ask for the exact cells that are missing in view, once the pointer rests: of open bands, of the selection, of what is pointed at. */
  function want() {
    clearTimeout(asking);
    if (baseline?.folded) asking = window.setTimeout(askNext, ASK_AFTER);
  }
  function askNext() {
    if (!baseline?.folded || baseline.filling !== undefined) return;
    const missing = fold.spans().find(([first, end]) => end - first === 1 && !isKnown(first))?.[0] ?? (isKnown(selected().col) ? undefined : selected().col);
    if (missing !== undefined) wantColumns(missing);
    else if (band && !hasAll(band)) ask([band.row, band.row + 1], band.span);
  }
  /** @param {number} position asks for its band, all layers */
  function wantColumns(position) {
    const { edges } = /** @type {NonNullable<Reading["folded"]>} */ (baseline?.folded);
    const at = edges.filter((edge) => edge <= position).length - 1;
    ask([0, rows().length], [edges[at], edges[at + 1]]);
  }
  /** @param {[number, number]} asked rows @param {import("./bands.js").Span} cols */
  function ask(asked, cols) {
    // With a number, or the same question asked again would be no change that Python hears of.
    wire.set("_asked", { number: Date.now(), reading: baseline?.folded?.number, rows: asked, cols });
  }
  /** @param {{row: number, span: import("./bands.js").Span}} at */
  function hasAll({ row, span: [first, end] }) {
    for (let col = first; col < end; col++) if (!hasCome({ row, col })) return false;
    return true;
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
    else if (event.key === "Escape") foldAgain(false);
    else if (event.key.toLowerCase() === "t" && !source) startPicking();
  }, { signal });

  /** @param {Cell} cell @returns {string} a cell in one line */
  function sentence(cell) {
    const start = `${rowName(rows(), cell.row)} position ${cell.col} ${isolated(word(cell.col))}`;
    const say = (/** @type {Reading} */ reading) => {
      const top = topToken(reading, cell);
      return top < 0 ? "not known yet" : `${isolated(wordOf(reading, top))} ${percent(reading.p[(cell.row * reading.cols + cell.col) * reading.k])}`;
    };
    if (!baseline) return start;
    const name = metric();
    const at = cell.row * baseline.cols + cell.col;
    const written = [baseline, now].filter((reading) => reading !== null).map((reading) => writeMetric(name, reading.metrics[name]?.[at]));
    const unit = baseline.units[name] && name !== "rank" ? ` ${baseline.units[name]}` : "";
    const measured = name === "probability" ? "" : ` · ${LENS_METRICS.find(({ value }) => value === name)?.text} ${written.join(" → ")}${unit}`;
    if (!now) return `${start}: ${say(baseline)}${measured}`;
    return isTouched(now, cell) ? `${start}: ${say(baseline)} → ${say(now)}${measured}` : `${start}: ${say(baseline)} · ${untouchedWords(model, "untouched by the experiments")}`;
  }

  /** @param {number} row @param {number} col where it is drawn @returns {string} */
  function describe(row, col) {
    const [at, span] = [drawnRows()[row], fold.spans()[col]];
    return span[1] - span[0] === 1 ? sentence({ row: at, col: span[0] }) : bandSentence({ row: at, span });
  }
  /** @param {{row: number, span: import("./bands.js").Span}} at @returns {string} several positions in one line: without "about" only what has come exactly */
  function bandSentence({ row, span }) {
    const start = `${rowName(rows(), row)} positions ${bandName(span)}`;
    if (now && !isReached(now, row, span)) return `${start}: ${untouchedWords(model, "untouched by the experiments")}`;
    const name = metric();
    const bands = baseline?.folded?.bands[name];
    if (!baseline || !bands) return start;
    const said = `${start}, ${bands.kept} ${metricSays(name)}`;
    if (!hasAll({ row, span })) {
      const values = [baseline, now].filter((reading) => reading !== null).map((reading) => writeAbout(name, bandValue(reading, "bands", name, row, span)));
      const unit = baseline.units[name] && name !== "rank" ? ` ${baseline.units[name]}` : "";
      return `${said} about ${values.join(" → ")}${unit} · a click opens it`;
    }
    let found = span[0];
    const values = baseline.metrics[name];
    for (let col = span[0]; col < span[1]; col++) {
      const [value, other] = [values[row * baseline.cols + col], values[row * baseline.cols + found]];
      if (Number.isNaN(other) || isKept(bands.kept, value, other)) found = col;
    }
    const mean = (/** @type {Reading} */ { metrics, cols }) => metrics[name].subarray(row * cols + span[0], row * cols + span[1]).reduce((sum, value) => sum + value, 0) / (span[1] - span[0]);
    const means = bands.kept === "mean" ? ` ${[baseline, now].filter((reading) => reading !== null).map((reading) => writeMetric(name, mean(reading))).join(" → ")}, largest` : "";
    return `${said}${means} at ${sentence({ row, col: found }).replace(/^\S+ /, "")}`;
  }
  /** What follows the pointer and the selection; the grids' cells stay as they are. */
  function showCell() {
    // A cell of the prompt before may lie outside this one.
    const inside = (/** @type {Cell | null} */ at) => (at && at.row < rows().length && at.col < cols() ? at : null);
    [source, pointed] = [inside(source), inside(pointed)];
    const cell = pointed ?? selected();
    const next = causal() && cell.col + 1 < cols() ? word(cell.col + 1) : "";
    panel.update(baseline, now, cell, { place: place(cell), word: word(cell.col), next, of: causal() ? "next token" : "token here", tracked: new Set(model.get("tracked") ?? []), untouched: untouchedWords(model), compared: baselineWords(model) });
    tracked.update(tracks && tracks.first <= cell.col && cell.col < tracks.first + tracks.probability.shape[2] ? tracks : null, cell, rows().map((_, row) => rowName(rows(), row)), `position ${cell.col} ${word(cell.col)}`);
    fill(readout, band ? bandSentence(band) : cols() ? sentence(cell) : "");
    prompt.highlight(band ? Array.from({ length: band.span[1] - band.span[0] }, (_, at) => /** @type {NonNullable<typeof band>} */ (band).span[0] + at) : pointed ? [cell.col] : []);
    fill(transplant, source ? "Cancel transplant" : cols() ? `Transplant from ${place(selected())}` : "Transplant from here");
    attribute(transplant, "aria-pressed", source ? "true" : "false");
    transplant.disabled = !baseline;
    attribute(banner, "data-picking", source ? "true" : null);
    fill(banner, source ? `pick a target for ${place(source)} ${word(source.col)}: click it, or arrow keys and Enter · Esc cancels`
      : `a click or the arrow keys select a cell · T or Enter transplants its hidden state${fold.anyBand() ? " · a narrow column opens on a click or Enter, with Shift beside the others; Esc folds it" : ""}`);
    const target = source && pointed && (pointed.row !== source.row || pointed.col !== source.col) ? pointed : null;
    const marks = [...(target ? cone(target) : []), ...(source ? [mark(source, "ring")] : []), ...(cols() ? [mark(source ?? selected(), "selected")] : [])];
    grid.mark([...gridMarks, ...marks]);
    second.mark([...secondMarks, ...marks]);
    if (!source && !band) for (const matrix of [grid, second]) matrix.moveTo(placeOf(selected()));
  }
  /** @param {Cell} cell @param {Mark["kind"]} kind @returns {Mark} */
  function mark(cell, kind) {
    return { ...placeOf(cell), kind };
  }
  /** @param {Cell} target @returns {Mark[]} the cells that a state written there can change */
  function cone(target) {
    const from = causal() ? fold.indexOf(target.col) : 0;
    const above = drawnRows().flatMap((row, at) => (row > target.row ? [/** @type {Mark} */ ({ row: at, col: from, span: fold.spans().length - from, kind: "shade" })] : []));
    return [...above, mark(target, "shade")];
  }

  /** @type {any} */
  let shownPrompt = null;
  /** @type {Mark[]} */
  let gridMarks = [];
  /** @type {Mark[]} */
  let secondMarks = [];

  const resized = new ResizeObserver((entries) => {
    width = entries[entries.length - 1].contentRect.width;
    if (arrange()) redraw();
  });
  resized.observe(frame.root);
  signal.addEventListener("abort", () => resized.disconnect());
  /** Where the panels stand depends on how many columns there are, which no container query knows. @returns {boolean} whether cells have another size */
  function arrange() {
    const least = Math.max(250, Math.min(700, WIDE * fold.spans().length + 90));
    const room = width - 24 - 24 - 300;
    const slimmest = fold.spans().reduce((sum, _, col) => sum + (fold.isBand(col) ? 22 : SLIM), 90);
    const both = !secondPart.hidden;
    const layout = both && room >= 2 * least + 24 ? "row" : both && width - 48 >= 2 * slimmest ? "pair" : room < least ? "stacked" : "beside";
    attribute(frame.root, "data-layout", layout);
    const before = slim;
    slim = slimmest <= { row: (room - 24) / 2, pair: (width - 48) / 2, stacked: width - 24, beside: room }[layout];
    frame.root.style.setProperty("--iw-natural", `${Math.max(330, 72 * fold.spans().length + 100)}px`);
    return slim !== before;
  }

  function draw() {
    now = latest && baseline && latest.cols === baseline.cols && latest.rows.length === baseline.rows.length ? latest : null;
    if (shownPrompt !== model.get("_prompt")) {
      shownPrompt = model.get("_prompt");
      replace.close();
      keepFocus(prompt.el, () => prompt.update(shownPrompt ?? {}));
    }
    metrics.update(metric());
    if (fold.update(baseline?.folded?.edges ?? null, cols()) && baseline?.folded) fold.reveal(selected().col);
    closeBands.hidden = !baseline?.folded || !fold.anyOpen();
    layers.hidden = rows().length <= MOST_ROWS;
    attribute(layers, "aria-pressed", everyLayer ? "true" : "false");
    drawGrid();
    drawSecond();
    if (arrange()) {
      drawGrid();
      drawSecond();
    }
    showCell();
    want();
  }
  /** @param {HTMLElement} veil @param {Reading | null} reading a picture that fills up is veiled no more */
  function unveil(veil, reading) {
    attribute(veil, "data-filling", reading && wire.pending() && reading.id >= (model.get("_request")?.id ?? 0) ? "true" : null);
  }
  /** @returns {Pick<import("./matrix.js").MatrixData, "rows" | "cols" | "rowLabels" | "colLabels" | "rowTitle" | "colTitle">} */
  function axes() {
    const { rows: shown, columns } = drawn();
    const step = rowStep();
    return {
      rows: shown.length, cols: columns.length, rowTitle: `layer ↑${step > 1 ? ` every ${step === 2 ? "2nd" : step === 3 ? "3rd" : `${step}th`}` : ""}`, colTitle: "position →",
      rowLabels: shown.map((row) => ({ text: rowName(rows(), row) })),
      colLabels: columns.map(([first, end], col) => (fold.isBand(col) ? bandLabel([first, end], word(first)) : { text: word(first), index: first, faint: tokens()[first]?.special })),
    };
  }
  /**
   * @param {import("./lens_picture.js").Picture} picture
   * @returns {import("./matrix.js").MatrixData}
   */
  function filled({ colour, text, below, marks }) {
    return { ...axes(), colour, text, below, marks, narrow: fold.isBand, describe };
  }
  function drawGrid() {
    const pinned = pinnedIn(model).labels.length ? `: ${baselineWords(model)}` : "";
    fill(gridCaption, h("b", {}, now || pinned ? "baseline" : "the model as it is"), pinned);
    written.hidden = !frame.palette().written;
    fill(targetKey, causal() ? "the top token is the actual next one" : "the top token is the token itself");
    fill(targetNote, causal() ? " (at the last position: the model's own choice)" : " (under a mask: the model's own choice)");
    const picture = valuePicture(baseline, { metric: metric(), palette: frame.palette(), drawn: drawn(), runs: [baseline, now] });
    gridMarks = picture.marks;
    grid.update(`logit lens${pinned && ` of the baseline${pinned}`}, layer by position`, filled(picture));
    gridLegend.update(picture.legend);
    unveil(gridVeil, baseline);
  }
  function drawSecond() {
    const asked = model.get("_request")?.op === "transplant_cells" || pinnedIn(model).differs;
    fill(secondCaption, h("b", {}, nowWords(model)));
    attribute(secondPart, "aria-label", nowWords(model).replace(/^./, (letter) => letter.toUpperCase()));
    secondPart.hidden = !now && !(baseline && asked && wire.pending() && wire.connected());
    views.update(view);
    const about = { metric: metric(), palette: frame.palette(), drawn: drawn() };
    const picture = view === "change" && baseline && now ? changePicture(baseline, now, about)
      : valuePicture(now, { ...about, runs: [baseline, now], before: baseline });
    secondMarks = picture.marks;
    second.update(`${nowWords(model)}, layer by position`, filled(picture));
    secondLegend.update(picture.legend);
    fill(secondKeys, frame.palette().written ? h("span", { class: "iw-lens__written" }, "written: the top token now · ") : null, key("changed", "another top token than in the baseline"),
      ...(view === "change" ? [" · ", key("untouched", untouchedWords(model))] : []));
    unveil(secondVeil, now);
  }

  wire.on(["_prompt", "_header", "_pinned", "_experiments", "metric"], redraw);
  wire.on(["cell", "tracked"], show);
  wire.watch(redraw);
  const takeGrid = (/** @type {any} */ result) => {
    const [next, held] = [readLens(result), baseline];
    // What an experiment leaves alone does not come again, nor do its cells.
    const same = next?.folded && held?.filling === undefined && held?.folded?.number === next.folded.number;
    baseline = next && held && same ? { ...next, top: held.top, p: held.p, metrics: held.metrics, target: held.target, texts: held.texts } : next;
    takeNow();
  };
  function takeNow() {
    latest = withRowsBefore(changed, baseline);
    takeWindow();
  }
  /** Exact cells of a long prompt, of both runs. */
  function takeWindow() {
    const result = model.get("_window");
    takeCells(baseline, result, result?.baseline, null);
    takeCells(latest, result, result?.now, result?.touched);
    waiting?.();
    redraw();
  }
  wire.results("_grid", takeGrid);
  wire.on("_window", takeWindow);
  wire.results("_part", (result) => {
    baseline = withRows(baseline, result);
    if (baseline?.folded) baseline.filling = result.reading;
    redraw();
  });
  // The whole grid holds again; it has not come again if it is the one that was there before the parts.
  wire.on("_part", () => {
    if (model.get("_part")?.id !== undefined) return;
    takeGrid(model.get("_grid"));
  });
  wire.results("_now", (result) => {
    changed = result;
    takeNow();
  });
  wire.results("_tracks", (/** @type {any} */ result) => {
    const [probability, rank] = [decode(result.probability), decode(result.rank)];
    tracks = probability && rank && { ...result, probability, rank, nowProbability: decode(result.now_probability), nowRank: decode(result.now_rank) };
    show();
  });
  // An empty trait carries no id: the experiments are off, or nothing is tracked any more.
  wire.on("_now", () => {
    if (model.get("_now")?.id !== undefined) return;
    changed = null;
    takeNow();
  });
  wire.on("_tracks", () => {
    if (model.get("_tracks")?.id !== undefined) return;
    tracks = null;
    show();
  });
  redraw();
  return frame.dispose;
}
