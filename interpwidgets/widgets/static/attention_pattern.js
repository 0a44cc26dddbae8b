// AttentionPattern: all heads at a glance, one head large, what the model predicts; ablate a head, cut an edge.
import { h, fill, attribute, coalesce, choice, dropdown } from "./dom.js";
import { cellsOf, hasAll, range, tokenAt } from "./attention_cells.js";
import { baselineWords, nowWords } from "./baseline.js";
import { colourAt, legend, rootTicks } from "./color.js";
import { createFrame } from "./frame.js";
import { createHeadGrid } from "./heads.js";
import { createMatrix, divergingColour, NUMBERED, widestCell } from "./matrix.js";
import { createMinimap } from "./minimap.js";
import { answerCaption, predictionTable } from "./predictions.js";
import { promptPair } from "./prompt.js";
import { detailOf, overviewOf } from "./weights.js";

/**
 * @typedef {import("./weights.js").Head} Head
 * @typedef {{id: number, rows: import("./predictions.js").Row[], note: string}} Predictions
 * @typedef {"whole" | "cells" | "values"} Zoom of a long prompt: bins on one screen, single cells, and cells wide enough for their weights
 * @typedef {{query: number, key: number, at?: {x: number, y: number}}} Anchor positions that stay `at` a place of the view while it zooms, or come to its middle
 */

/** Pixels of a cell at each zoom; of a bin at most. */
const CELL = { whole: 3, cells: 10, values: 30 };
/** Pixels of a single cell at least and at most; it is wide enough for its weight from `WRITTEN` on. */
const [CLOSE, CLOSEST, WRITTEN] = [4, 48, 24];
/** Pixels of the large matrix at most, and of what its labels take of them. */
const [TALLEST, AROUND] = [760, 96];
/** Tokens from which on the whole has cells too small to be hit at ease, so that one may zoom in. */
const ZOOMED = 60;
/** Milliseconds that the view or the pointer rests before weights are asked for. */
const REST = 60;

export default { render };

/** @param {import("./frame.js").RenderArguments} host */
function render(host) {
  const frame = createFrame(host, { name: "attention", onTheme: () => redraw(), picture: () => matrix.canvas, onHover: showHover });
  const { wire, signal } = frame;
  const { model } = wire;
  /** @type {import("./weights.js").Overview | null} */
  let overview = null;
  /** @type {import("./weights.js").Detail | null} */
  let detail = null;
  /** @type {number | null} pixels of a single cell; null for the whole */
  let size = null;
  /** @type {Anchor | null} of what has been zoomed since it was last drawn */
  let anchor = null;
  let resting = 0;
  signal.addEventListener("abort", () => clearTimeout(resting));
  /** @type {Predictions | null} */
  let predicted = null;
  /** @type {Head} */
  let selected = { layer: model.get("layer") ?? 0, head: model.get("head") ?? 0 };
  let asked = 0;
  let version = 0;
  const redraw = coalesce(draw, signal);
  const redrawMatrix = coalesce(() => {
    drawMatrix(view());
    point(matrix.active());
  }, signal);
  /** @type {{of: unknown[], bound: number}} the largest of a long prompt's pattern, and what it is of */
  let extreme = { of: [], bound: 0 };
  /** @type {unknown[]} what the minimap shows */
  let mapped = [];

  const prompt = promptPair({
    run: (text) => wire.request("run", { prompt: text }),
    onHover(position) {
      hoverPosition(position);
      frame.hover({ position });
    },
    onHoverSource: (position) => hover(prompt.source, stack() === "encoder" ? "both" : stack() === "cross" ? "columns" : null, position),
  });
  const heads = createHeadGrid({
    signal,
    palette: frame.palette,
    maxHeight: 470,
    onPoint(cell, source) {
      tell(cell && { layer: cell.col, head: cell.row });
      if (cell && source === "keyboard") select({ layer: cell.col, head: cell.row });
    },
    onActivate(cell, event) {
      if (event.type === "click") select({ layer: cell.col, head: cell.row });
      else ablate();
    },
  });
  const matrix = createMatrix({
    signal,
    maxLabel: 88,
    palette: frame.palette,
    maxHeight: TALLEST,
    // What is called whole does not scroll.
    cellWidth: () => (size && zooms() ? [Math.round(size), Math.round(size)] : zooms() ? [1, Math.min(binned() ? CELL.whole : CELL.cells, (TALLEST - AROUND) / (binned() ? edges()[0].length : queries()))] : [6, widestCell(keys() - hidden())]),
    onPoint(cell) {
      point(cell);
      tell(cell && { ...selected, position: cells().positions(0, cell.row)[0] });
    },
    onActivate: (cell) => (binned() ? closer(cell) : cut(cell.row + hidden(), cell.col + hidden())),
    onZoom: zoomBy,
    onView({ top, bottom, left, right }) {
      if (!zooms() || size === null) return;
      const [rows, cols] = [queries() - hidden(), keys() - hidden()];
      minimap.look({ top: top / rows, bottom: bottom / rows, left: left / cols, right: right / cols });
      want([top + hidden(), bottom + hidden()], [left + hidden(), right + hidden()]);
    },
  });
  const minimap = createMinimap({
    signal, palette: frame.palette,
    onMove: (row, col) => matrix.scrollTo({ row: Math.floor(row * (queries() - hidden())), col: Math.floor(col * (keys() - hidden())) }),
  });
  const table = predictionTable({ label: "Predictions" });

  const views = choice({
    label: "What to show",
    options: [
      { value: "now", text: "Now", title: "The pattern with the experiments that are on" },
      { value: "difference", text: "Difference from baseline" },
      { value: "baseline", text: "Baseline" },
    ],
    onChoose: (value) => wire.set("view", value),
  });
  const zoom = choice({
    label: "Zoom",
    options: [
      { value: "whole", text: "Whole", title: "The whole pattern on one screen" },
      { value: "cells", text: "Cells", title: "A cell for each pair of tokens" },
      { value: "values", text: "Values", title: "Cells with their weights written in" },
    ],
    onChoose: (value) => magnify(value === "whole" ? null : CELL[value]),
  });
  const stacks = choice({
    label: "Whose attention",
    options: [
      { value: "encoder", text: "Encoder", title: "The source's attention to itself" },
      { value: "cross", text: "Cross", title: "From the target, what the decoder reads, to the source" },
      { value: "decoder", text: "Decoder", title: "The target's attention to itself" },
    ],
    onChoose: (value) => wire.set("stack", value),
  });
  const sink = h("button", { type: "button", class: "iw-button", title: "Leave position 0 out of the picture: most heads rest there",
    onclick: () => wire.set("hide_bos", !model.get("hide_bos")) }, "Hide BOS");
  const how = dropdown({ label: "How a head is ablated", hidden: true, options: [["zero", "to zero"], ["mean", "to its mean"]], onChoose: (value) => wire.set("how", value) });
  const rest = dropdown({ label: "cut edge:", options: [["true", "rest renormalised"], ["false", "rest left as it is"]], onChoose: (value) => wire.set("renormalize", value === "true") });
  const knock = h("button", { type: "button", class: "iw-button iw-button--primary", onclick: () => ablate() });
  const [headCaption, matrixCaption, tableCaption] = [h("p", { class: "iw-caption" }), h("p", { class: "iw-caption" }), h("p", { class: "iw-caption" })];
  const readout = h("p", { class: "iw-readout", "data-idle": "true" });
  const [headLegend, matrixLegend] = [legend(), legend()];

  frame.prompts.append(prompt.el);
  frame.body.append(
    h("section", { class: "iw-attention__heads", "aria-label": "All heads" },
      h("div", { class: "iw-controls" }, stacks.el, views.el, sink, headLegend.el), headCaption, h("div", { class: "iw-veil" }, heads.el)),
    h("section", { class: "iw-attention__head", "aria-label": "Selected head" },
      h("div", { class: "iw-controls" }, matrixCaption, zoom.el, h("span", { class: "iw-attention__ablate" }, knock, how.el)),
      readout, h("div", { class: "iw-veil" }, matrix.el), h("div", { class: "iw-attention__under" }, matrixLegend.el, rest.el, minimap.el)),
    h("section", { class: "iw-attention__next iw-veil", "aria-label": "Predictions" }, tableCaption, table.el));

  /** @param {number | null} position of the prompt */
  const hoverPosition = (position) => hover(prompt, stack() === "encoder" ? null : stack() === "cross" ? "rows" : "both", position);
  const stack = () => overview?.stack ?? "decoder";
  const queries = () => overview?.edges[overview.edges.length - 1] ?? 0;
  const keys = () => overview?.key_edges[overview.key_edges.length - 1] ?? 0;
  const hidden = () => (model.get("hide_bos") && overview?.rests ? 1 : 0);
  const read = (/** @type {boolean} */ ofSource) => /** @type {import("./tokens.js").Token[]} */ ((ofSource ? model.get("_prompt")?.source : model.get("_prompt"))?.tokens ?? []);
  const queryTokens = () => read(stack() === "encoder");
  const keyTokens = () => read(stack() !== "decoder");
  const causal = () => overview?.causal ?? true;
  const isLong = () => !!detail?.coarse;
  const binned = () => isLong() && size === null;
  const zooms = () => Math.max(queries(), keys()) > ZOOMED;
  const sized = () => !!detail && detail.queries === queries() && detail.keys === keys();
  /** Where the rows and columns of bins begin, position 0 among them. */
  const edges = () => (sized() && detail ? [detail.edges, detail.keyEdges] : [overview?.edges ?? [0], overview?.key_edges ?? [0]]);
  const name = () => `${stack() === "decoder" ? "" : `${stack()} `}L${selected.layer}H${selected.head}`;
  const isAblated = () => !!overview?.ablated.some(([layer, head]) => layer === selected.layer && head === selected.head);
  const view = () => /** @type {"now" | "difference" | "baseline"} */ (overview?.acts ? model.get("view") : "now");
  /** What has come of the selected head; nothing while it is on its way. */
  const current = () => (detail && sized() && detail.stack === stack() && detail.layer === selected.layer && detail.head === selected.head ? detail : null);
  const cells = () => cellsOf({ overview, head: current(), selected, edges: edges(), binned: binned(), first: hidden(), tokens: [queryTokens(), keyTokens()], shown: view() });

  /** @param {Head} head */
  function select(head) {
    if (head.layer === selected.layer && head.head === selected.head) return;
    selected = head;
    frame.announce(heads.select(head));
    asked = wire.request("select", { ...head, stack: stack() });
    redraw();
  }
  function ablate() {
    wire.request("ablate", { ...selected, how: model.get("how"), stack: stack() });
  }
  /** @param {number} query @param {number} key */
  function cut(query, key) {
    if (!cells().masked(query, key)) wire.request("cut", { ...selected, query, key, renormalize: model.get("renormalize"), stack: stack() });
  }
  /**
   * @param {{highlight: (positions: number[]) => void}} row the text that is pointed at
   * @param {"rows" | "columns" | "both" | null} axis where its tokens are
   * @param {number | null} position
   */
  function hover(row, axis, position) {
    const at = position === null || position < hidden() || !axis ? null : cells().indexOf(axis === "columns" ? 1 : 0, position);
    matrix.emphasise(axis === "columns" ? null : at, axis === "rows" ? null : at);
    row.highlight(position === null ? [] : [position]);
  }
  /** Tell linked widgets what is pointed at: an encoder's layers and positions are not theirs. @param {Partial<import("./hover.js").Place> | null} place */
  function tell(place) {
    frame.hover(stack() === "encoder" ? null : place);
  }
  /** @param {import("./hover.js").Place} place */
  function showHover({ layer, head, position }) {
    const at = stack() !== "encoder" && layer !== null && layer >= 0 && layer < (overview?.layers ?? 0) && (head ?? 0) < (overview?.heads ?? 0);
    heads.emphasise(at ? { layer, head } : { layer: null, head: null });
    hoverPosition(position !== null && position >= 0 && position < (model.get("_prompt")?.tokens.length ?? 0) ? position : null);
  }
  /** @param {import("./matrix.js").Cell | null} cell */
  function point(cell) {
    attribute(readout, "data-idle", cell ? null : "true");
    if (!cell) {
      fill(readout, binned() ? "Point at a cell for its largest weight. A click, Enter or + zooms in there, as does the wheel with Ctrl or ⌘." : "Point at a cell for its weight. A click, or Enter, cuts that edge and runs the model.");
      light([], []);
      return;
    }
    const { positions, isBlank, describe } = cells();
    const [rows, cols] = [positions(0, cell.row), positions(1, cell.col)];
    fill(readout, describe(cell.row, cell.col));
    light(range(rows), range(cols));
    if (binned() && !isBlank(cell.row, cell.col)) want(rows, cols);
  }
  /** Point at the cell's tokens. @param {number[]} query @param {number[]} key */
  function light(query, key) {
    prompt.highlight(stack() === "encoder" ? [] : query, stack() === "decoder" ? key : []);
    prompt.source.highlight(stack() === "encoder" ? query : [], stack() === "decoder" ? [] : key);
  }
  /** Zoom in on the positions of a bin. @param {import("./surface.js").Cell} cell */
  function closer({ row, col }) {
    if (!cells().isBlank(row, col)) magnify(CELL.cells, { row, col });
  }
  /** @param {number} factor 0 for the whole @param {import("./surface.js").Cell} cell @param {{x: number, y: number}} [at] */
  function zoomBy(factor, cell, at) {
    if (!zooms()) return false;
    const next = factor && (size === null ? (factor > 1 ? CLOSE : 0) : Math.min(CLOSEST, size * factor));
    if (next >= CLOSE) magnify(next, cell, at);
    else if (size !== null) magnify(null, cell);
    return true;
  }
  /** @param {number | null} next pixels of a single cell @param {import("./surface.js").Cell} [cell] what stays where it is @param {{x: number, y: number}} [at] its place */
  function magnify(next, cell = matrix.cursor(), at) {
    // What is zoomed twice between two frames keeps the cell that was drawn.
    const { positions } = cells();
    anchor ??= { query: positions(0, cell.row)[0], key: positions(1, cell.col)[0], at };
    size = next;
    const [row, col] = [cells().indexOf(0, anchor.query), cells().indexOf(1, anchor.key)];
    matrix.lookAt({ row, col }, anchor.at);
    redrawMatrix();
  }
  /**
   * Ask for exact weights, once the view or the pointer rests.
   * @param {[number, number]} rows @param {[number, number]} cols positions, first and end
   */
  function want(rows, cols) {
    clearTimeout(resting);
    const head = current();
    if (!head?.coarse || hasAll(head, rows, cols)) return;
    resting = window.setTimeout(() => {
      if (head === current() && !hasAll(head, rows, cols)) wire.set("_asked", { version: head.version, rows, cols });
    }, REST);
  }

  function draw() {
    const shown = view();
    const words = baselineWords(model);
    const none = overview?.acts ? undefined : `What acts now is the baseline (${words}): nothing differs`;
    views.update(/** @type {"now"} */ (shown), { difference: none, baseline: none }, { difference: `Now minus the baseline: ${words}`, baseline: `The baseline: ${words}` });
    const unseen = overview && !overview.stacks.includes("encoder") ? "This encoder's attention shows no pattern" : undefined;
    stacks.el.hidden = (overview?.stacks.length ?? 1) < 2;
    stacks.update(stack(), { encoder: unseen });
    sink.hidden = overview?.rests === false;
    fill(sink, stack() === "decoder" && causal() ? "Hide BOS" : `Hide ${tokenAt(queryTokens(), 0)}`);
    attribute(sink, "aria-pressed", model.get("hide_bos") ? "true" : "false");
    how.update(model.get("how") ?? "zero");
    rest.update(String(model.get("renormalize") ?? true));
    fill(knock, isAblated() ? `Restore ${name()}` : `Ablate ${name()}`);
    how.el.hidden = isAblated();
    zoom.el.hidden = !zooms();
    prompt.update(model.get("_prompt") ?? {});
    drawHeads(shown);
    drawMatrix(shown);
    fill(tableCaption, ...answerCaption(model.get("_header"), model.get("_prompt")));
    const changed = predicted?.rows.some((row) => row.now !== null && row.now !== undefined);
    table.update(predicted?.rows ?? [], [{ key: "baseline", label: "baseline", title: words, quiet: true }, { key: "now", label: changed ? nowWords(model) : "now: the same" }], predicted?.note, "token");
    point(matrix.active());
  }

  /** @param {string} shown */
  function drawHeads(shown) {
    if (!overview) {
      fill(headCaption, "all heads");
      headLegend.update({ kind: "seq", ticks: rootTicks(1, false), unit: "attention weight, square-root scale" });
      return;
    }
    const { now, baseline, changed, present, layers, heads: count, bins, keyBins } = overview;
    const { masked } = cells();
    const difference = shown === "difference";
    const skip = Math.min(hidden(), bins - 1);
    const bound = difference ? Math.max(0.01, largest(changed?.data ?? [])) : null;
    /** @type {import("./weights.js").Read} */
    const value = difference ? (layer, head, query, key) => now(layer, head, query, key) - baseline(layer, head, query, key) : shown === "baseline" ? baseline : now;
    const change = (/** @type {number} */ layer, /** @type {number} */ head) => changed?.data[layer * count + head] ?? 0;
    const small = bins < queries() || keyBins < keys();
    const binning = !small ? "" : `, ${difference ? "largest now − largest in the baseline," : "largest"} of each ${together(queries(), bins)} × ${together(keys(), keyBins)} positions`;
    heads.update({
      version: `${version} ${shown} ${frame.root.dataset.iwTheme} ${frame.root.dataset.iwPalette}`,
      layers, heads: count, bins, keyBins, causal: causal(), present, skip, bound, value, selected, changed: change,
      ablated: new Set(overview.ablated.map(([layer, head]) => `${layer},${head}`)),
      cut: new Set(overview.cut.map(([layer, head]) => `${layer},${head}`)),
      describe(layer, head) {
        if (!present[layer]) return `L${layer} has no attention pattern`;
        let most = 0;
        for (let query = skip; query < bins; query++) for (let key = skip; key < keyBins && !masked(query, key); key++) most = Math.max(most, Math.abs(value(layer, head, query, key)));
        const by = change(layer, head) ? ` · changed by ${overview?.exact ? "up to" : "at least"} ${change(layer, head).toFixed(2)}` : "";
        return `L${layer} H${head} · ${!difference ? "max" : small ? "largest weights differ by at most" : "largest difference"} ${most.toFixed(2)}${by}`;
      },
    });
    attribute(frame.root, "data-shape", layers <= 16 ? "compact" : "wide");
    fill(headCaption, `all ${layers * count} heads${binning}`, skip ? " · position 0 hidden" : "",
      overview.ablated.length ? " · struck out: ablated" : "", overview.cut.length ? " · ×: an edge is cut" : "", h("span", { class: "iw-guide" }, " · click or arrow keys select, Enter ablates"));
    headLegend.update({ kind: bound ? "div" : "seq", ticks: rootTicks(bound ?? 1, !!bound), unit: `${bound ? "now − baseline" : "attention weight"}, square-root scale`, note: bound ? "outlined: changed by 0.01 or more" : undefined });
  }

  /** The largest weight, or difference, of what is drawn. @param {boolean} difference @param {number} rows @param {number} cols */
  function extent(difference, rows, cols) {
    const { masked, isBlank, weightsOf } = cells();
    const [first, head] = [hidden(), current()];
    const kinds = /** @type {("now" | "baseline" | "difference")[]} */ (difference ? ["difference"] : ["now", "baseline"]);
    // Single cells of a long prompt are many, and no larger than their bins.
    const bins = head?.coarse ? [head.edges, head.keyEdges].map((edges) => edges.length - 1 - first) : [rows, cols];
    const blank = head?.coarse ? masked : isBlank;
    let most = 0;
    for (const kind of kinds) {
      const read = head?.coarse ? (/** @type {number} */ row, /** @type {number} */ col) => head.binned[kind](row + first, col + first) : weightsOf(kind);
      for (let row = 0; row < bins[0]; row++) for (let col = 0; col < bins[1] && !blank(row, col); col++) most = Math.max(most, Math.abs(read(row, col)));
    }
    return most;
  }

  /** @param {"now" | "difference" | "baseline"} shown */
  function drawMatrix(shown) {
    anchor = null;
    const { masked, positions, indexOf, isBlank, isCut, weightsOf } = cells();
    zoom.update(size === null ? "whole" : size < WRITTEN ? "cells" : "values");
    const first = hidden();
    const ends = binned() ? edges().map((starts) => starts.length - 1) : [queries(), keys()];
    const [rows, cols] = ends.map((end) => Math.max(0, end - first));
    const difference = shown === "difference";
    const value = weightsOf(shown);
    const of = [current(), difference, first];
    if (!isLong() || isNew(of, extreme.of)) extreme = { of, bound: Math.max(difference ? 0.01 : 0.001, extent(difference, rows, cols)) };
    const { bound } = extreme;
    const colours = frame.palette();
    const labels = (/** @type {import("./tokens.js").Token[]} */ tokens, /** @type {number} */ length, /** @type {0 | 1} */ axis) =>
      Array.from({ length }, (_, index) => (binned() ? { text: String(positions(axis, index)[0]) } : { text: tokenAt(tokens, index + first), faint: tokens[index + first]?.special }));
    const head = current();
    // Without numbers in them, faint patterns would look empty beside their thumbnails.
    const root = widestCell(Math.max(rows, cols)) < NUMBERED;
    const paint = (/** @type {number} */ weight) => {
      const share = root ? Math.sign(weight) * Math.sqrt(Math.abs(weight) / bound) : weight / bound;
      return difference ? divergingColour(colours, share, 1) : colourAt(colours.sequential, share);
    };
    minimap.el.hidden = !zooms() || size === null;
    const pictured = [head, shown, first, frame.root.dataset.iwTheme, frame.root.dataset.iwPalette];
    if (head && !minimap.el.hidden && isNew(pictured, mapped)) {
      mapped = pictured;
      minimap.update(head.edges.length - 1 - first, head.keyEdges.length - 1 - first, (row, col) =>
        (masked(head.edges[row + first + 1] - 1, head.keyEdges[col + first]) ? null : paint(head.binned[shown](row + first, col + first))));
    }
    /** @param {number[]} edge @param {"cross" | "selected"} kind */
    const marked = (edge, kind) => {
      const [row, col] = edge.map((position, axis) => indexOf(axis, position));
      return { row, col, kind };
    };
    frame.root.style.setProperty("--iw-natural", `${zooms() ? 260 * CELL.whole + 96 : Math.max(420, widestCell(cols) * cols + 96)}px`);
    matrix.update(`${name()} attention pattern`, {
      rows, cols, rowLabels: labels(queryTokens(), rows, 0), colLabels: labels(keyTokens(), cols, 1), rowTitle: "query ↓", colTitle: "key →",
      colour(row, col) {
        if (isBlank(row, col)) return null;
        const weight = value(row, col);
        return paint(weight);
      },
      text(row, col, letters) {
        if (!head?.has(row + first, col + first) || masked(row, col) || isCut(row + first, col + first)) return "";
        const weight = value(row, col);
        if (Math.abs(weight) < bound * 0.05) return "";
        const written = [3, 2, 1].map((digits) => weight.toFixed(digits).replace(/^(-?)0\./, "$1.")).slice(bound < 0.1 ? 0 : 1).find((number) => number.length <= letters - Number(difference && weight > 0));
        return written && Number(written) ? written.replace("-", "−") : "";
      },
      below: difference ? (row, col) => !isBlank(row, col) && value(row, col) <= -0.05 * bound : undefined,
      marks: [
        ...(overview?.cut ?? []).filter(([layer, head]) => layer === selected.layer && head === selected.head).map(([, , query, key]) => marked([query, key], "cross")),
        ...(head && model.get("edge")?.length ? [marked(model.get("edge"), "selected")] : []),
      ].filter(({ row, col }) => row >= 0 && row < rows && col >= 0 && col < cols),
      describe: (row, col) => cells().describe(row, col),
    });
    const shared = head && model.get("_header")?.kv_heads !== model.get("_header")?.heads ? `, key/value head ${head.kv_head}` : "";
    const each = binned() && head ? ` · a cell is the largest of ${together(queries(), head.edges.length - 1)} × ${together(keys(), head.keyEdges.length - 1)}` : "";
    fill(matrixCaption, h("b", {}, name()), shared, isAblated() ? " · ablated" : "", head || !overview ? each : model.get("_offline") ? " · preview: exact weights need the kernel" : " · preview");
    matrixLegend.update({
      kind: difference ? "div" : "seq",
      ticks: root ? rootTicks(bound, difference) : difference ? [{ at: 0, text: `−${bound.toFixed(2)}` }, { at: 0.5, text: "0" }, { at: 1, text: `+${bound.toFixed(2)}` }]
        : [{ at: 0, text: "0" }, { at: 0.5, text: (bound / 2).toFixed(2) }, { at: 1, text: bound.toFixed(2) }],
      unit: `${difference ? "now − baseline" : "attention weight"}${root ? ", square-root scale" : ""}`,
      note: first ? `range without ${stack() === "decoder" && causal() ? "BOS" : tokenAt(queryTokens(), 0)}; weights not rescaled` : undefined,
    });
  }

  wire.on(["_prompt", "_header", "_pinned", "_experiments", "edge", "hide_bos", "view", "how", "renormalize"], redraw);
  wire.on(["layer", "head"], () => {
    // An answer to an earlier arrow key must not pull the selection back.
    if (wire.status().id < asked) return;
    selected = { layer: model.get("layer"), head: model.get("head") };
    redraw();
  });
  // What belongs together comes in one message, but not in one event.
  for (const part of ["_baseline_overview", "_overview"]) {
    wire.results(part, () => {
      version += 1;
      overview = overviewOf(model.get("_baseline_overview"), model.get("_overview"));
      redraw();
    });
  }
  for (const part of ["_baseline_detail", "_detail"]) {
    wire.results(part, () => {
      detail = detailOf(model.get("_baseline_detail"), model.get("_detail")) ?? detail;
      detail?.take(model.get("_window"));
      redraw();
    });
  }
  wire.on("_window", () => {
    if (detail?.take(model.get("_window"))) redrawMatrix();
  });
  wire.results("_predictions", (/** @type {Predictions} */ result) => {
    predicted = result;
    redraw();
  });
  redraw();
  return frame.dispose;
}

/** @param {unknown[]} one @param {unknown[]} other */
function isNew(one, other) {
  return one.length !== other.length || one.some((part, index) => part !== other[index]);
}

/** How many positions go into a bin. @param {number} positions @param {number} bins */
function together(positions, bins) {
  return Math.ceil((positions - 1) / Math.max(1, bins - 1));
}

/** @param {ArrayLike<number>} values */
function largest(values) {
  let most = 0;
  for (let index = 0; index < values.length; index++) most = Math.max(most, Math.abs(values[index]));
  return most;
}
