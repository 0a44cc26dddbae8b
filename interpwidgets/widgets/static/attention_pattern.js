// AttentionPattern: all heads at a glance, one head large, what the model predicts; ablate a head, cut an edge.
import { h, fill, attribute, coalesce, choice, dropdown } from "./dom.js";
import { decode } from "./wire.js";
import { colourAt, legend, rootTicks } from "./color.js";
import { createFrame } from "./frame.js";
import { createHeadGrid } from "./heads.js";
import { createMatrix, divergingColour, widestCell } from "./matrix.js";
import { answerCaption, predictionOf, predictionTable } from "./predictions.js";
import { promptPair } from "./prompt.js";

/**
 * @typedef {import("./wire.js").Decoded} Decoded
 * @typedef {"decoder" | "encoder" | "cross"} Stack whose attention: "cross" is from the decoder to the encoder
 * @typedef {{id: number, stack: Stack, stacks: Stack[], causal: boolean, rests: boolean, edges: number[], key_edges: number[], present: boolean[],
 *   now: Decoded, baseline: Decoded | null, changed: Decoded | null, ablated: [number, number, string][],
 *   cut: [number, number, number, number][]}} Overview of one stack; arrays are (layer, head, query bin, key bin) with 255 for a weight of 1;
 *   `changed` is (layer, head); `rests`: heads rest on position 0, which may be hidden
 * @typedef {{id: number, stack: Stack, layer: number, head: number, kv_head: number, now: Decoded, baseline: Decoded | null}} Detail (query, key)
 * @typedef {{id: number, rows: import("./predictions.js").Row[], note: string}} Predictions
 * @typedef {{layer: number, head: number}} Head
 */

export default { render };

/** @param {import("./frame.js").RenderArguments} host */
function render(host) {
  const frame = createFrame(host, { name: "attention", onTheme: () => redraw() });
  const { wire, signal } = frame;
  const { model } = wire;
  /** @type {Overview | null} */
  let overview = null;
  /** @type {Detail | null} */
  let detail = null;
  /** @type {Predictions | null} */
  let predicted = null;
  /** @type {Head} */
  let selected = { layer: model.get("layer") ?? 0, head: model.get("head") ?? 0 };
  let asked = 0;
  let version = 0;
  const redraw = coalesce(draw, signal);

  const prompt = promptPair({
    run: (text) => wire.request("run", { prompt: text }),
    onHover: (position) => hover(prompt, stack() === "encoder" ? null : stack() === "cross" ? "rows" : "both", position),
    onHoverSource: (position) => hover(prompt.source, stack() === "encoder" ? "both" : stack() === "cross" ? "columns" : null, position),
  });
  const heads = createHeadGrid({
    signal,
    palette: frame.palette,
    maxHeight: 430,
    onPoint(cell, source) {
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
    maxHeight: 760,
    cellWidth: () => [6, widestCell(keys() - hidden())],
    onPoint: (cell) => point(cell),
    onActivate: (cell) => cut(cell.row + hidden(), cell.col + hidden()),
  });
  const table = predictionTable({ label: "Predictions" });

  const views = choice({
    label: "What to show",
    options: [
      { value: "now", text: "Now", title: "The pattern with the experiments that are on" },
      { value: "difference", text: "Difference from baseline", title: "Now minus the model as it is" },
      { value: "baseline", text: "Baseline", title: "The model as it is" },
    ],
    onChoose: (value) => wire.set("view", value),
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
      h("div", { class: "iw-controls" }, matrixCaption, h("span", { class: "iw-attention__ablate" }, knock, how.el), rest.el),
      readout, h("div", { class: "iw-veil" }, matrix.el), matrixLegend.el),
    h("section", { class: "iw-attention__next iw-veil", "aria-label": "Predictions" }, tableCaption, table.el));

  const stack = () => overview?.stack ?? "decoder";
  const queries = () => overview?.edges[overview.edges.length - 1] ?? 0;
  const keys = () => overview?.key_edges[overview.key_edges.length - 1] ?? 0;
  const hidden = () => (model.get("hide_bos") && overview?.rests ? 1 : 0);
  const read = (/** @type {boolean} */ ofSource) => /** @type {import("./tokens.js").Token[]} */ ((ofSource ? model.get("_prompt")?.source : model.get("_prompt"))?.tokens ?? []);
  const queryTokens = () => read(stack() === "encoder");
  const keyTokens = () => read(stack() !== "decoder");
  const word = (/** @type {import("./tokens.js").Token[]} */ tokens, /** @type {number} */ position) => tokens[position]?.text ?? String(position);
  const causal = () => overview?.causal ?? true;
  const masked = (/** @type {number} */ query, /** @type {number} */ key) => causal() && key > query;
  const name = () => `${stack() === "decoder" ? "" : `${stack()} `}L${selected.layer}H${selected.head}`;
  const isAblated = () => !!overview?.ablated.some(([layer, head]) => layer === selected.layer && head === selected.head);
  const isCut = (/** @type {number} */ query, /** @type {number} */ key) =>
    !!overview?.cut.some(([layer, head, from, to]) => layer === selected.layer && head === selected.head && from === query && to === key);
  const view = () => (overview?.baseline ? /** @type {string} */ (model.get("view")) : "now");

  /** @param {Head} head */
  function select(head) {
    if (head.layer === selected.layer && head.head === selected.head) return;
    selected = head;
    heads.select(head);
    asked = wire.request("select", { ...head, stack: stack() });
    redraw();
  }
  function ablate() {
    wire.request("ablate", { ...selected, how: model.get("how"), stack: stack() });
  }
  /** @param {number} query @param {number} key */
  function cut(query, key) {
    if (!masked(query, key)) wire.request("cut", { ...selected, query, key, renormalize: model.get("renormalize"), stack: stack() });
  }
  /**
   * @param {{highlight: (positions: number[]) => void}} row the text that is pointed at
   * @param {"rows" | "columns" | "both" | null} axis where its tokens are
   * @param {number | null} position
   */
  function hover(row, axis, position) {
    matrix.emphasise(position === null || position < hidden() || !axis ? null : position - hidden(), axis ?? "both");
    row.highlight(position === null ? [] : [position]);
  }
  /** @param {import("./matrix.js").Cell | null} cell */
  function point(cell) {
    attribute(readout, "data-idle", cell ? null : "true");
    if (!cell) {
      fill(readout, "Point at a cell for its weight. A click, or Enter, cuts that edge and runs the model.");
      light([], []);
      return;
    }
    const [query, key] = [cell.row + hidden(), cell.col + hidden()];
    fill(readout, sentence(query, key));
    light([query], [key]);
  }
  /** Point at the cell's tokens. @param {number[]} query @param {number[]} key */
  function light(query, key) {
    prompt.highlight(stack() === "encoder" ? [] : query, stack() === "decoder" ? key : []);
    prompt.source.highlight(stack() === "encoder" ? query : [], stack() === "decoder" ? [] : key);
  }
  /** @param {number} query @param {number} key */
  function sentence(query, key) {
    const edge = `query ${query} ${word(queryTokens(), query)} → key ${key} ${word(keyTokens(), key)}`;
    if (masked(query, key)) return `${edge}: masked, a query cannot look ahead`;
    const { now, baseline, exact } = weights();
    const digits = exact ? 4 : 2;
    const before = baseline ? ` (baseline ${baseline(query, key).toFixed(digits)})` : "";
    return `${edge}: ${exact ? "" : "about "}${now(query, key).toFixed(digits)}${before}${isCut(query, key) ? " · cut" : ""}`;
  }

  /** The selected head's weights: exact when they have come, until then read off the thumbnail. */
  function weights() {
    const width = keys();
    if (detail && detail.stack === stack() && detail.layer === selected.layer && detail.head === selected.head && detail.now.shape[0] === queries() && detail.now.shape[1] === width) {
      const at = (/** @type {Decoded} */ array) => (/** @type {number} */ query, /** @type {number} */ key) => array.data[query * width + key];
      return { exact: true, now: at(detail.now), baseline: detail.baseline ? at(detail.baseline) : null };
    }
    if (!overview) return { exact: false, now: () => 0, baseline: null };
    const [queryBin, keyBin] = [binOf(overview.edges), binOf(overview.key_edges)];
    const at = (/** @type {Decoded} */ array) => (/** @type {number} */ query, /** @type {number} */ key) => binned(array, selected.layer, selected.head, queryBin[query], keyBin[key]);
    return { exact: false, now: at(overview.now), baseline: overview.baseline ? at(overview.baseline) : null };
  }

  function draw() {
    const shown = view();
    const none = overview?.baseline ? undefined : "No experiment is on: nothing differs from the baseline";
    views.update(/** @type {"now"} */ (shown), { difference: none, baseline: none });
    const unseen = overview && !overview.stacks.includes("encoder") ? "This encoder's attention shows no pattern" : undefined;
    stacks.el.hidden = (overview?.stacks.length ?? 1) < 2;
    stacks.update(stack(), { encoder: unseen });
    sink.hidden = overview?.rests === false;
    fill(sink, stack() === "decoder" && causal() ? "Hide BOS" : `Hide ${word(queryTokens(), 0)}`);
    attribute(sink, "aria-pressed", model.get("hide_bos") ? "true" : "false");
    how.update(model.get("how") ?? "zero");
    rest.update(String(model.get("renormalize") ?? true));
    fill(knock, isAblated() ? `Restore ${name()}` : `Ablate ${name()}`);
    how.el.hidden = isAblated();
    prompt.update(model.get("_prompt") ?? {});
    drawHeads(shown);
    drawMatrix(shown);
    fill(tableCaption, ...answerCaption(model.get("_header"), model.get("_prompt")));
    const changed = predicted?.rows.some((row) => row.now !== null && row.now !== undefined);
    table.update(predicted?.rows ?? [], [{ key: "baseline", label: "baseline", quiet: true }, { key: "now", label: changed ? "with experiments" : "now" }], predicted?.note, predictionOf(model.get("_header")));
    point(matrix.active());
  }

  /** @param {string} shown */
  function drawHeads(shown) {
    if (!overview) {
      fill(headCaption, "all heads");
      headLegend.update({ kind: "seq", ticks: rootTicks(1, false), unit: "attention weight, square-root scale" });
      return;
    }
    const { now, baseline, changed, present } = overview;
    const [layers, count, bins, keyBins] = now.shape;
    const difference = shown === "difference" && !!baseline;
    const skip = Math.min(hidden(), bins - 1);
    const bound = difference ? Math.max(0.01, largest(changed?.data ?? [])) : null;
    const shownArray = shown === "baseline" && baseline ? baseline : now;
    const value = (/** @type {number} */ layer, /** @type {number} */ head, /** @type {number} */ query, /** @type {number} */ key) =>
      binned(shownArray, layer, head, query, key) - (difference && baseline ? binned(baseline, layer, head, query, key) : 0);
    const change = (/** @type {number} */ layer, /** @type {number} */ head) => changed?.data[layer * count + head] ?? 0;
    const together = (/** @type {number} */ positions, /** @type {number} */ into) => Math.ceil((positions - 1) / Math.max(1, into - 1));
    const binning = bins < queries() || keyBins < keys() ? `, largest of each ${together(queries(), bins)} × ${together(keys(), keyBins)} positions` : "";
    heads.update({
      version: `${version} ${shown} ${frame.root.dataset.iwTheme}`,
      layers, heads: count, bins, keyBins, causal: causal(), present, skip, bound, value, selected, changed: change,
      ablated: new Set(overview.ablated.map(([layer, head]) => `${layer},${head}`)),
      cut: new Set(overview.cut.map(([layer, head]) => `${layer},${head}`)),
      describe(layer, head) {
        if (!present[layer]) return `L${layer} has no attention pattern`;
        let most = 0;
        for (let query = skip; query < bins; query++) for (let key = skip; key < keyBins && !masked(query, key); key++) most = Math.max(most, Math.abs(value(layer, head, query, key)));
        const by = change(layer, head) ? ` · changed by up to ${change(layer, head).toFixed(2)}` : "";
        return `L${layer} H${head} · ${difference ? "largest difference" : "max"} ${most.toFixed(2)}${by}`;
      },
    });
    attribute(frame.root, "data-shape", layers <= 16 ? "compact" : "wide");
    fill(headCaption, `all ${layers * count} heads${binning}`, skip ? " · position 0 hidden" : "", " · click or arrow keys select, Enter ablates");
    headLegend.update({ kind: bound ? "div" : "seq", ticks: rootTicks(bound ?? 1, !!bound), unit: `${bound ? "now − baseline" : "attention weight"}, square-root scale` });
  }

  /** @param {string} shown */
  function drawMatrix(shown) {
    const { exact, now, baseline } = weights();
    const first = hidden();
    const [rows, cols] = [Math.max(0, queries() - first), Math.max(0, keys() - first)];
    const difference = shown === "difference" && !!baseline;
    /** @param {number} query @param {number} key */
    const value = (query, key) => (difference && baseline ? now(query, key) - baseline(query, key) : shown === "baseline" && baseline ? baseline(query, key) : now(query, key));
    let most = 0;
    for (let query = first; query < first + rows; query++) {
      for (let key = first; key < first + cols && !masked(query, key); key++) {
        most = Math.max(most, difference ? Math.abs(value(query, key)) : Math.max(now(query, key), baseline?.(query, key) ?? 0));
      }
    }
    const bound = Math.max(difference ? 0.01 : 0.001, most);
    const colours = frame.palette();
    const labels = (/** @type {import("./tokens.js").Token[]} */ tokens, /** @type {number} */ length) =>
      Array.from({ length }, (_, index) => ({ text: word(tokens, index + first), faint: tokens[index + first]?.special }));
    frame.root.style.setProperty("--iw-natural", `${Math.max(420, widestCell(cols) * cols + 96)}px`);
    matrix.update(`${name()} attention pattern`, {
      rows, cols, rowLabels: labels(queryTokens(), rows), colLabels: labels(keyTokens(), cols), rowTitle: "query ↓", colTitle: "key →",
      colour(row, col) {
        if (masked(row, col)) return null;
        const weight = value(row + first, col + first);
        return difference ? divergingColour(colours, weight, bound) : colourAt(colours.sequential, weight / bound);
      },
      text(row, col, letters) {
        const weight = value(row + first, col + first);
        if (masked(row, col) || Math.abs(weight) < bound * 0.05 || isCut(row + first, col + first)) return "";
        const written = [3, 2, 1].map((digits) => weight.toFixed(digits).replace(/^(-?)0\./, "$1.")).slice(bound < 0.1 ? 0 : 1).find((number) => number.length <= letters);
        return written && Number(written) ? written.replace("-", "−") : "";
      },
      marks: (overview?.cut ?? []).filter(([layer, head]) => layer === selected.layer && head === selected.head)
        .map(([, , query, key]) => ({ row: query - first, col: key - first, kind: /** @type {"cross"} */ ("cross") })).filter(({ row, col }) => row >= 0 && col >= 0),
      describe: (row, col) => sentence(row + first, col + first),
    });
    const shared = detail?.kv_head !== undefined && exact && model.get("_header")?.kv_heads !== model.get("_header")?.heads ? `, key/value head ${detail.kv_head}` : "";
    fill(matrixCaption, h("b", {}, name()), shared, isAblated() ? " · ablated" : "", exact || !overview ? "" : " · preview");
    matrixLegend.update({
      kind: difference ? "div" : "seq",
      ticks: difference ? [{ at: 0, text: `−${bound.toFixed(2)}` }, { at: 0.5, text: "0" }, { at: 1, text: `+${bound.toFixed(2)}` }]
        : [{ at: 0, text: "0" }, { at: 0.5, text: (bound / 2).toFixed(2) }, { at: 1, text: bound.toFixed(2) }],
      unit: difference ? "now − baseline" : "attention weight",
      note: first ? `range without ${stack() === "decoder" && causal() ? "BOS" : word(queryTokens(), 0)}; weights not rescaled` : undefined,
    });
  }

  wire.on(["_prompt", "_header", "hide_bos", "view", "how", "renormalize"], redraw);
  wire.on(["layer", "head"], () => {
    // An answer to an earlier arrow key must not pull the selection back.
    if (wire.status().id < asked) return;
    selected = { layer: model.get("layer"), head: model.get("head") };
    redraw();
  });
  wire.results("_overview", (/** @type {any} */ result) => {
    const now = decode(result.now);
    version += 1;
    overview = now && { ...result, now, baseline: decode(result.baseline), changed: decode(result.changed) };
    redraw();
  });
  wire.results("_detail", (/** @type {any} */ result) => {
    const now = decode(result.now);
    detail = now && { ...result, now, baseline: decode(result.baseline) };
    redraw();
  });
  wire.results("_predictions", (/** @type {Predictions} */ result) => {
    predicted = result;
    redraw();
  });
  redraw();
  return frame.dispose;
}

/** @param {Decoded} array @param {number} layer @param {number} head @param {number} query @param {number} key */
function binned(array, layer, head, query, key) {
  const [, heads, bins, keyBins] = array.shape;
  return array.data[((layer * heads + head) * bins + query) * keyBins + key] / 255;
}

/** The bin of each position. @param {number[]} edges */
function binOf(edges) {
  const bins = new Uint16Array(edges[edges.length - 1]);
  for (let bin = 0; bin + 1 < edges.length; bin++) bins.fill(bin, edges[bin], edges[bin + 1]);
  return bins;
}

/** @param {ArrayLike<number>} values */
function largest(values) {
  let most = 0;
  for (let index = 0; index < values.length; index++) most = Math.max(most, Math.abs(values[index]));
  return most;
}
