// PatchingHeatmap: what each activation carries of the difference between two prompts; run one patch, several, or a layer's heads.
import { h, fill, attribute, coalesce, choice } from "./dom.js";
import { baselineWords, pinnedIn } from "./baseline.js";
import { bandName, createFold } from "./bands.js";
import { decode } from "./wire.js";
import { legend } from "./color.js";
import { cellName, cellOf, countUnknown, differenceOf, effectBound, effectOf, effectWords, isEstimate, METRIC_NAMES, sameCell, spanName, strongestCell, strongestRow, valueAt, writeNumber } from "./effect.js";
import { effectCells, emptySweep, wholeSweep } from "./effect_map.js";
import { createFrame } from "./frame.js";
import { createMatrix } from "./matrix.js";
import { answerCaption, predictionTable } from "./predictions.js";
import { promptRow, questionOf } from "./prompt.js";
import { taskControls } from "./task.js";
import { isolated } from "./tokens.js";

/**
 * @typedef {import("./effect.js").PatchCell} PatchCell
 * @typedef {import("./effect.js").Sweep} Sweep
 * @typedef {import("./matrix.js").Cell} Cell
 * @typedef {import("./bands.js").Span} Span
 * @typedef {import("./prompt.js").Prompt} Prompt
 * @typedef {"clean" | "corrupted"} Side
 * @typedef {{id: number, cells: PatchCell[], rows: import("./predictions.js").Row[], value: number, effect_text?: string, baseline: number}} Patched
 */

export default { render };

/** @type {Side[]} */
const SIDES = ["clean", "corrupted"];
const BY_HEAD = ["attn_out", "z", "q", "k", "v"];

/** @param {import("./frame.js").RenderArguments} host */
function render(host) {
  const frame = createFrame(host, { name: "patching", onTheme: () => redraw(), picture: () => map.canvas, onHover: showHover });
  const { wire, signal } = frame;
  const { model } = wire;
  /** @type {Sweep | null} */
  let sweep = null;
  /** @type {Sweep | null} the same map in the baseline */
  let before = null;
  /** @type {{of: unknown[], difference: Sweep | null}} */
  let compared = { of: [], difference: null };
  /** @type {Sweep | null} */
  let drill = null;
  /** @type {Patched | null} */
  let patched = null;
  /** @type {PatchCell[]} what is patched jointly, as last clicked */
  let chosen = [];
  let asked = 0;
  /** @type {number | null} the layer that the keyboard or a click was last on */
  let layer = null;
  let everyLayer = false;
  /** @type {Record<string, any>} settings asked for and not answered yet: a button shows at once that it was pressed */
  let wanted = {};
  /** @type {Partial<Record<Side, import("./prompt.js").Question>>} prompts that were asked for and have not run: a pair of another length is edited one by one */
  let drafts = {};
  const redraw = coalesce(draw, signal);
  const redrawMaps = coalesce(drawMaps, signal);
  const redrawControls = coalesce(drawControls, signal);

  const prompts = Object.fromEntries(SIDES.map((side) => [side, promptRow({
    label: side,
    onSubmit(typed) {
      drafts = { ...drafts, [side]: typed };
      const [clean, corrupted] = SIDES.map((each) => drafts[each] ?? questionOf(prompt(each)));
      wire.request("run", { clean, corrupted });
      redraw(); // the editor opens on what was typed last
    },
    onHover(position) {
      showHover({ layer: null, head: null, position });
      frame.hover({ position });
    },
  })]));
  const drafted = h("p", { class: "iw-hint iw-patching__draft" });
  const task = taskControls({ onSet: set, byId: () => model.get("_header")?.tokenizer === false });
  const look = { signal, palette: frame.palette };
  /** @param {Sweep} grid @returns {[number, number]} */
  const widths = (grid) => (folded(grid) ? [26, 46] : [12, Math.max(12, Math.min(64, Math.floor(natural() / grid.values.shape[1])))]);
  const map = createMatrix({
    ...look, upward: true, maxHeight: 640, maxLabel: () => (folded(shown()) ? 106 : 96), cellWidth: () => widths(shown()), cellHeight: () => Math.max(foldsLayers(shown()) ? 12 : 10, Math.min(24, Math.floor(480 / rows(shown()).length))),
    onPoint(cell, source) {
      if (cell && source === "keyboard") layer = strongest(shown(), cell).row;
      point(shown(), readout, cell);
      tell(shown(), cell);
      redrawControls();
    },
    onActivate: (cell, event) => patch(shown(), cell, event),
  });
  const inset = createMatrix({
    ...look, maxHeight: 480, maxLabel: () => (folded(shown()) ? 106 : 96), cellWidth: () => widths(drill ?? shown()), cellHeight: 16,
    onPoint(cell) {
      if (!drill) return;
      point(drill, insetReadout, cell);
      tell(drill, cell);
    },
    onActivate: (cell, event) => drill && patch(drill, cell, event),
  });
  const table = predictionTable({ label: "Predictions" });

  const warning = h("div", { class: "iw-alert", role: "note", hidden: true });
  const [mapCaption, insetCaption, tableCaption] = [h("p", { class: "iw-caption" }), h("p", { class: "iw-caption" }), h("p", { class: "iw-caption" })];
  const readouts = [h("p", { class: "iw-readout", "data-idle": "true" }), h("p", { class: "iw-readout", "data-idle": "true" })];
  const [readout, insetReadout] = readouts;
  const scale = legend();
  const views = choice({
    label: "What to show",
    options: [{ value: "now", text: "Now", title: "Each patch's effect with the experiments that are on" }, { value: "difference", text: "Difference from baseline" }, { value: "baseline", text: "Baseline" }],
    onChoose: (value) => wire.set("view", value),
  });
  const descend = h("button", { type: "button", class: "iw-button", "aria-keyshortcuts": "D", onclick: () => openDrill(drillLayer()) });
  const closeBands = h("button", { type: "button", class: "iw-button", title: "Fold all that was opened again; Esc folds the last", onclick: () => refold(() => [fold, layerFold].forEach((each) => each.closeAll())) }, "Fold all");
  const allLayers = h("button", { type: "button", class: "iw-button", title: "A row for each layer; of several, a row shows the largest effect", onclick: () => refold(() => {
    everyLayer = !everyLayer;
  }) }, "All layers");
  const clear = h("button", { type: "button", class: "iw-button", hidden: true, onclick: () => choose([]) }, "Clear");
  const close = h("button", { type: "button", class: "iw-button", onclick: () => openDrill(null) }, "Close");
  const filling = h("div", { class: "iw-patching__fill", "aria-hidden": "true" });
  const holder = h("div", { onkeydown: (/** @type {KeyboardEvent} */ event) => keyOnMap(event) }, map.el);
  const insetHolder = h("div", {}, inset.el);
  const mapSection = h("section", { class: "iw-patching__map", "aria-label": "Patching map" },
    h("div", { class: "iw-controls" }, mapCaption, views.el, allLayers, closeBands, descend), readout, filling, holder, scale.el);
  const drillSection = h("section", { class: "iw-patching__drill", hidden: true,
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape") return;
      openDrill(null);
    } }, h("div", { class: "iw-controls" }, insetCaption, close), insetReadout, insetHolder);

  frame.prompts.append(prompts.clean.el, prompts.corrupted.el, drafted);
  frame.body.append(
    h("div", { class: "iw-patching__top" }, task.el, warning), mapSection, drillSection,
    h("section", { class: "iw-patching__next", "aria-label": "Predictions of the patched run" },
      h("div", { class: "iw-controls" }, tableCaption, clear), h("div", { class: "iw-veil" }, table.el)));
  // A map of heads is less tall than one of tokens: the place of the taller is kept.
  let [tallest, broad] = [0, 0];
  const keep = new ResizeObserver(() => {
    const { offsetWidth: width, offsetHeight: height } = map.el;
    tallest = width === broad ? Math.max(tallest, height) : height;
    broad = width;
    holder.style.minHeight = `${tallest}px`;
  });
  keep.observe(map.el);
  signal.addEventListener("abort", () => keep.disconnect());

  /** @param {Side} side @returns {Prompt} */
  const prompt = (side) => model.get("_prompts")?.[side] ?? { text: "", bos: "", tokens: [] };
  const words = (/** @type {Side} */ side) => prompt(side).tokens.map((token) => token.text);
  const setting = (/** @type {string} */ name) => (name in wanted ? wanted[name] : model.get(name));
  const share = (/** @type {Sweep} */ grid) => setting("normalize") !== false && !grid.gap_is_zero;
  const positions = () => Math.max(1, prompt("clean").tokens.length);
  const heads = () => Number(model.get("_header")?.heads ?? 1);
  /** @param {number} count columns @param {number} least @param {number} most pixels of each: few fill the place of many */
  const across = (count, least, most) => count * Math.max(least, Math.min(most, Math.floor(760 / count)));
  const natural = () => Math.max(300, fold.anyBand() ? across(fold.spans().length, 24, 46) : across(positions(), positions() > 20 ? 24 : 46, 64), Math.min(12, heads()) * 36);
  const [fold, layerFold] = [createFold(), createFold()];
  /** @param {Sweep} grid */
  const folded = (grid) => grid.dims[1] === "position" && fold.anyBand();
  /** @param {Sweep} grid */
  const foldsLayers = (grid) => grid.dims[0] === "layer" && layerFold.anyBand();
  /** @param {number} count @returns {Span[]} */
  const singly = (count) => Array.from({ length: count }, (_, index) => [index, index + 1]);
  /** @param {Sweep} grid */
  const rows = (grid) => (grid.dims[0] === "layer" ? layerFold.spans() : singly(grid.values.shape[0]));
  /** @param {Sweep} grid */
  const columns = (grid) => (grid.dims[1] === "position" && grid.values.shape[1] === positions() ? fold.spans() : grid.values.data.length ? singly(grid.values.shape[1]) : []);
  /** @param {Sweep} grid @param {Cell} cell where it is drawn @returns {Cell} the sweep's that it shows */
  const strongest = (grid, { row, col }) => strongestCell(grid, rows(grid)[row], columns(grid)[col]);
  /** @returns {Sweep} the newest map, or the empty frame of the one to come */
  const shown = () => {
    const kind = view();
    if (!sweep) return emptySweep(setting("site") ?? "resid_pre", model.get("_header") ?? {}, SIDES.map(words), setting("direction"));
    if (kind === "now") return sweep;
    if (compared.of[0] !== sweep || compared.of[1] !== before) compared = { of: [sweep, before], difference: differenceOf(sweep, before) };
    const difference = /** @type {Sweep} */ (compared.difference);
    return kind === "baseline" ? difference.compared?.before ?? difference : difference;
  };
  /** @returns {"now" | "difference" | "baseline"} */
  const view = () => (pinnedIn(model).differs ? model.get("view") ?? "now" : "now");
  /** What is said of a map in view beside its name. */
  const compares = () => ({ now: "", difference: ", now − baseline", baseline: ", in the baseline" })[view()];
  const pointedLayer = () => {
    const cell = map.active();
    return cell && strongest(shown(), cell).row;
  };
  const drillLayer = () => layer ?? chosen[chosen.length - 1]?.layer ?? (sweep?.dims[0] === "layer" ? strongestRow(sweep) : 0);

  /** @param {Record<string, any>} changes */
  function set(changes) {
    wanted = { ...wanted, ...changes };
    wire.request("set", changes);
    redraw();
  }
  /** @param {Sweep} grid @param {Cell} at where it is drawn @param {MouseEvent | KeyboardEvent} event */
  function patch(grid, at, { shiftKey: jointly }) {
    const [[row, under], [col, end]] = [rows(grid)[at.row], columns(grid)[at.col]];
    if (Math.max(under - row, end - col) > 1) {
      open(grid, at, jointly);
      return;
    }
    const cell = cellOf(grid, row, col);
    layer = cell.layer;
    const others = chosen.filter((each) => !sameCell(each, cell));
    choose(!jointly ? [cell] : others.length < chosen.length ? others : [...chosen, cell]);
  }
  /** @param {Sweep} grid @param {Cell} at where it is drawn @param {boolean} beside */
  function open(grid, at, beside) {
    const [layers, [first, end]] = [rows(grid)[at.row], columns(grid)[at.col]];
    if (isSame(grid, end) && end - first > 1) return frame.announce("the same in both prompts: there is nothing to open");
    /** @type {string[]} */
    const opened = [];
    refold(() => {
      if (grid.dims[0] === "layer" && layerFold.open(at.row, beside)) opened.push(`layers ${bandName(layers)}`);
      if (grid.dims[1] === "position" && fold.open(at.col, beside)) opened.push(`columns from position ${first} on`);
    });
    frame.announce(`opened: ${opened.join(", ")}`);
  }
  /** @param {() => void} change to what is folded; the keyboard stays where it is */
  function refold(change) {
    const places = /** @type {[typeof map, Sweep | null][]} */ ([[map, shown()], [inset, drill]]).map(([matrix, grid]) => {
      const { row, col } = matrix.cursor();
      return { matrix, grid, row: (grid && rows(grid)[row]?.[0]) ?? 0, col: (grid && columns(grid)[col]?.[0]) ?? 0 };
    });
    change();
    drawMaps();
    for (const { matrix, grid, row, col } of places) {
      matrix.moveTo({ row: grid?.dims[0] === "layer" ? layerFold.indexOf(row) : row, col: grid?.dims[1] === "position" ? fold.indexOf(col) : col });
    }
  }
  /** @param {Sweep} grid @param {number} end of a span of positions */
  const isSame = (grid, end) => end <= (grid.first ?? 0);
  /** @param {PatchCell[]} cells */
  function choose(cells) {
    chosen = cells;
    asked = wire.request("patch", { cells });
    frame.announce(cells.length ? `chosen: ${cells.map(cellName).join(", ")}` : "no cell chosen");
    redraw();
  }
  /** What was chosen is no cell of another map. */
  function forget() {
    chosen = patched?.cells ?? [];
    redraw();
  }
  /** @param {number | null} at */
  function openDrill(at) {
    wire.request("drill", { layer: at });
    if (at === null) map.focus();
  }
  /** @param {KeyboardEvent} event */
  function keyOnMap(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && chosen.length) choose([]);
    else if (event.key === "Escape") refold(() => fold.close() ?? layerFold.close());
    else if (event.key.toLowerCase() === "d" && view() === "now" && BY_HEAD.includes(shown().site)) openDrill(pointedLayer() ?? drillLayer());
  }

  /** Tell linked widgets what is pointed at. @param {Sweep} grid @param {Cell | null} cell */
  function tell(grid, cell) {
    if (!cell) return frame.hover(null);
    const { row, col } = strongest(grid, cell);
    const { layer, head, position } = cellOf(grid, row, col);
    frame.hover({ layer, head, position });
  }
  /** @param {import("./hover.js").Place} place */
  function showHover({ layer, head, position }) {
    const inside = position !== null && position >= 0 && position < positions() ? position : null;
    const col = inside === null ? null : fold.indexOf(inside);
    map.emphasise(layer === null ? null : layerFold.indexOf(layer), shown().dims[1] === "position" ? col : head);
    inset.emphasise(drill?.layer === layer ? head : null, col);
    SIDES.forEach((each) => prompts[each].highlight(inside === null ? [] : [inside]));
  }
  /** @param {Sweep} grid @param {HTMLElement} line @param {Cell | null} cell */
  function point(grid, line, cell) {
    attribute(line, "data-idle", cell ? null : "true");
    const hint = grid.doubt ? h("span", { class: "iw-patching__doubt" }, grid.doubt) : `Point at a cell for its value. A click, or Enter, runs that patch; with Shift it joins those chosen before.${folded(grid) ? " A narrow column opens." : ""}${foldsLayers(grid) ? " A row of several layers opens." : ""}`;
    fill(line, cell ? says(grid, cell.row, cell.col) : hint);
    const [first, end] = cell && grid.dims[1] === "position" ? columns(grid)[cell.col] : [0, 0];
    const at = Array.from({ length: end - first }, (_, index) => first + index);
    // The map and its inset share the prompts: the one that is left alone does not wipe what the other points at.
    if (cell || !(map.active() ?? inset.active())) SIDES.forEach((side) => prompts[side].highlight(at));
  }
  /** @param {Sweep} grid @param {number} drawn @param {number} at where it is drawn @returns {string} */
  function says(grid, drawn, at) {
    const [layers, span] = [rows(grid)[drawn], columns(grid)[at]];
    const { row, col } = strongest(grid, { row: drawn, col: at });
    if (Math.max(layers[1] - layers[0], span[1] - span[0]) === 1) return sentence(grid, row, col);
    const place = spanName(grid, layers, span);
    if (span[1] - span[0] > 1 && isSame(grid, span[1])) return `${place}: the same in both prompts, so that a patch changes nothing`;
    const known = !Number.isNaN(valueAt(grid, row * grid.values.shape[1] + col));
    return known ? `${place}, largest effect: ${sentence(grid, row, col)}` : `${place}: not run yet`;
  }
  /** @param {Sweep} grid @param {number} row @param {number} col */
  function sentence(grid, row, col) {
    const cell = cellOf(grid, row, col);
    const [clean, corrupted] = [grid.labels.position?.[col], grid.labels.corrupted?.[col]];
    const tokens = cell.position === null || clean === undefined ? "" : clean === corrupted ? ` ${isolated(clean)}` : ` clean ${isolated(clean)}, corrupted ${isolated(corrupted ?? "")}`;
    const where = `${cellName(cell)}${tokens}${cell.position === null ? ", all positions" : ""}`;
    const index = row * grid.values.shape[1] + col;
    const value = valueAt(grid, index);
    if (Number.isNaN(value)) return `${where}: not run yet${view() === "difference" ? " in both" : ""}`;
    const metric = METRIC_NAMES[grid.metric] ?? grid.metric;
    const units = grid.units ? ` ${grid.units}` : "";
    if (grid.compared) {
      const [now, then] = [grid.compared.now, grid.compared.before].map((each) => writeNumber(effectOf(each, each.values.data[index], false), true));
      const written = writeNumber(effectOf(grid, value, share(grid)), true);
      return `${where}: ${written}${share(grid) ? " of the baseline's gap" : units}, now − baseline\nthe patch changes the ${metric} by ${now}${units} now, by ${then}${units} in the baseline`;
    }
    if (isEstimate(grid, index)) return `${where}: estimate ${effectWords(grid, effectOf(grid, value, share(grid)), share(grid))}\nby attribution patching; has not run yet`;
    return `${where}: ${effectWords(grid, effectOf(grid, value, share(grid)), share(grid))}${compares()}\n` +
      `patched ${metric} ${writeNumber(value)}${units} · clean ${writeNumber(grid.clean)} · corrupted ${writeNumber(grid.corrupted)}`;
  }

  const describe = (/** @type {Sweep} */ grid) => (/** @type {number} */ row, /** @type {number} */ col) => says(grid, row, col).replace("\n", " · ");

  function draw() {
    const differing = new Set(/** @type {number[]} */ (model.get("_prompts")?.differing ?? []));
    for (const side of SIDES) prompts[side].update({ ...prompt(side), text: drafts[side] ?? prompt(side).text }, differing);
    const [first, ...more] = differing;
    prompts.corrupted.say(first === undefined ? (prompt("clean").tokens.length ? "same as clean" : "") : !more.length ? `differs at ${first}` : more[more.length - 1] === first + more.length ? `differ at ${first}–${first + more.length}` : `${more.length + 1} differ, from ${first}`);
    drawControls();
    drawMaps();
    drawTable();
  }

  function drawControls() {
    const asking = model.get("_request")?.op;
    const status = wire.status();
    const running = wire.pending() && wire.connected();
    const own = asking === "patch" || asking === "drill";
    const kept = status.state === "cancelled" && sweep?.stopped;
    const stale = !own && !kept && (running ? (sweep?.id ?? 0) < Math.max(status.id, Number(model.get("_request")?.id ?? 0)) : wire.failed() || !wire.connected());
    for (const element of [holder, insetHolder]) element.classList.toggle("iw-veil", stale);
    attribute(filling, "data-on", running && !own && status.total > 0 ? "true" : "false");
    filling.style.setProperty("--iw-share", String(status.total > 0 ? status.done / status.total : 0));
    const known = model.get("_task")?.answer ? model.get("_task") : null;
    task.update({
      site: setting("site") ?? "resid_pre", sites: model.get("_sites") ?? [], metric: setting("metric") ?? "logit_diff", direction: setting("direction") ?? "denoise",
      normalize: setting("normalize") !== false, answer: wanted.answer ?? known?.answer.text ?? "", foil: wanted.foil ?? known?.foil.text ?? "", task: known,
    });
    const apart = SIDES.filter((side) => drafts[side] !== undefined && String(drafts[side]) !== String(questionOf(prompt(side))));
    drafted.hidden = running || !apart.length;
    fill(drafted, `The tokens above are still those of the run before. Edit ${apart.length === 1 ? SIDES.find((side) => side !== apart[0]) : "either prompt"} to go on: the edited ${apart.join(" and ")} prompt is kept.`);
    descend.hidden = !BY_HEAD.includes(shown().site) || view() !== "now";
    fill(descend, `L${drillLayer()}: heads by position`);
  }

  function drawMaps() {
    fold.update(model.get("_prompts")?.edges ?? null, positions(), model.get("_prompts")?.edges && sweep?.first ? 1 : 0);
    const grid = shown();
    const layerEdges = model.get("_layer_edges") ?? null;
    layerFold.update(everyLayer ? null : layerEdges, grid.values.shape[0]);
    allLayers.hidden = !layerEdges;
    attribute(allLayers, "aria-pressed", everyLayer ? "true" : "false");
    closeBands.hidden = !layerFold.anyOpen() && (!fold.anyOpen() || !(folded(grid) || drill));
    const kind = view();
    views.el.hidden = !pinnedIn(model).differs;
    views.update(kind, {}, { difference: `Now minus the baseline: ${baselineWords(model)}`, baseline: `The baseline: ${baselineWords(model)}` });
    const opened = kind === "now" ? drill : null;
    const grids = opened ? [grid, opened] : [grid];
    const bound = effectBound(grids, share(grid));
    attribute(frame.root, "data-shape", Math.min(positions(), fold.spans().length) > 32 ? "wide" : "compact");
    frame.root.style.setProperty("--iw-natural", `${natural() + 70}px`);
    const style = { colours: frame.palette(), bound, share: share(grid), chosen };
    map.update(`${grid.site} patching effect${compares()}, ${grid.dims.join(" by ")}`, effectCells(grid, { ...style, rows: rows(grid), columns: columns(grid), upward: true, describe: describe(grid) }));
    const unknown = sweep ? countUnknown(grid) : 0;
    const count = grid.values.data.length;
    fill(mapCaption, h("b", {}, grid.site), `, ${grid.dims.join(" by ")}${compares()}${unknown ? `: ${count - unknown} of ${count} cells${grid.stopped ? ", stopped" : ""}` : ""}`);
    const name = METRIC_NAMES[grid.metric] ?? grid.metric;
    const end = String(Number(bound.toPrecision(bound < 10 ? 3 : 4)));
    scale.update({
      kind: "div", ticks: [{ at: 0, text: `−${end}` }, { at: 0.5, text: "0" }, { at: 1, text: `+${end}` }],
      unit: kind === "difference" ? `now − baseline, ${share(grid) ? "share of the gap in the baseline" : `change in ${name}${grid.units ? `, ${grid.units}` : ""}`}`
        : !share(grid) ? `change in ${name}${grid.units ? `, ${grid.units}` : ""}${compares()}`
        : grid.direction === "denoise" ? `share of the clean–corrupted gap${compares()}: 1 = all restored` : `share of the clean–corrupted gap${compares()}: −1 = all lost`,
      note: unknown && kind === "difference" ? "hatched: not run yet in both" : unknown && !grid.estimate && (folded(grid) || foldsLayers(grid)) ? "hatched: not all run yet" : unknown && grid.estimate ? "hatched: estimate (attribution patching)" : unknown || !sweep ? "hatched: not run yet" : undefined,
    });
    warning.hidden = !grid.gap_is_zero;
    fill(warning, grid.gap_is_zero ? `Clean and corrupted score the same${kind === "now" ? "" : " in the baseline"} (${name} ${writeNumber(grid.clean)}${grid.units ? ` ${grid.units}` : ""}): with no gap to divide by, raw changes are shown. Are these the prompts${grid.metric === "kl" ? "" : " and tokens"} you mean?` : "");
    point(grid, readout, map.active());
    drillSection.hidden = !drill;
    insetReadout.hidden = insetHolder.hidden = !opened;
    if (drill) {
      attribute(drillSection, "aria-label", `L${drill.layer} heads`);
      fill(insetCaption, h("b", {}, `L${drill.layer} heads`), `: ${drill.site}, head by position, ${opened ? "in the map's colours" : "of the map of now only: choose Now to see it"}`);
    }
    if (drill && opened) {
      inset.update(`${drill.site} patching effect of L${drill.layer}, head by position`, effectCells(drill, { ...style, rows: rows(drill), columns: columns(drill), describe: describe(drill) }));
      point(drill, insetReadout, inset.active());
    }
    redrawControls();
  }

  function drawTable() {
    const one = chosen.length === 1 ? chosen[0] : null;
    const names = chosen.map((cell) => `${cell.site} ${cellName(cell)}`);
    clear.hidden = !chosen.length;
    attribute(clear, "aria-label", chosen.length > 1 ? `Clear the ${chosen.length} patched cells` : "Clear the patched cell");
    attribute(tableCaption, "title", names.join("\n"));
    fill(tableCaption, ...answerCaption(model.get("_header"), prompt("clean")), one ? h("b", {}, ` with ${names[0]} patched`)
      : chosen.length ? h("b", {}, ` with ${chosen.length} cells patched jointly`) : h("span", { class: "iw-guide" }, " · click a cell to run that patch"));
    const remark = patched && sweep ? patched.effect_text ?? effectText(patched, sweep) : "";
    table.update(patched?.rows ?? model.get("_task")?.rows ?? [], [{ key: "clean", label: "clean", quiet: true }, { key: "corrupted", label: "corrupted", quiet: true }, { key: "patched", label: "patched" }], remark, "token");
  }
  /** @param {Patched} result @param {Sweep} grid */
  function effectText({ value, baseline }, grid) {
    const effect = effectOf({ ...grid, baseline }, value, share(grid));
    return `${METRIC_NAMES[grid.metric] ?? grid.metric} ${writeNumber(value)}${grid.units ? ` ${grid.units}` : ""}: ${effectWords(grid, effect, share(grid))}`;
  }

  /** @param {string} name @param {(result: any) => void} show is also told when Python takes the result back */
  function follow(name, show) {
    wire.results(name, show);
    wire.on(name, () => {
      if (model.get(name)?.id === undefined) show(null);
    });
  }
  /** @param {any} result @returns {Sweep | null} */
  const decoded = (result) => {
    const values = decode(result?.values);
    return values && wholeSweep({ ...result, values, estimate: decode(result.estimate) }, { position: words("clean"), corrupted: words("corrupted") });
  };
  follow("_sweep", (result) => {
    const next = decoded(result);
    if (next && (next.site !== sweep?.site || next.values.shape[0] !== sweep.values.shape[0])) layer = null;
    sweep = next;
    redrawMaps();
  });
  follow("_baseline_sweep", (result) => {
    before = decoded(result);
    redrawMaps();
  });
  follow("_drill", (result) => {
    drill = decoded(result);
    redrawMaps();
  });
  follow("_patched", (/** @type {Patched | null} */ result) => {
    patched = result;
    if (!result || result.id >= asked) chosen = result?.cells ?? [];
    if (result && asked) frame.announce(`${result.cells.map(cellName).join(", ")} patched${sweep ? `: ${effectText(result, sweep)}` : ""}`);
    redraw();
  });
  wire.watch(() => {
    if (!wire.pending() || !wire.connected()) wanted = {};
    redrawControls();
  });
  wire.on(["_header", "_sites", "_task", "_pinned", "metric", "direction", "normalize", "view"], redraw);
  wire.on("_prompts", () => {
    drafts = {};
    tallest = 0;
    forget();
  });
  wire.on("site", forget);
  redraw();
  return frame.dispose;
}
