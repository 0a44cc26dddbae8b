// Lines over layers: a small chart with axes, for a few tokens at a time.
import { h, coalesce, vector } from "./dom.js";

/**
 * @typedef {{values: ArrayLike<number>, slot: number, quiet: boolean}} Line NaN is a gap; `slot` chooses colour and dashes;
 *   `quiet` is the run that another is compared with
 * @typedef {{label: string, names: string[], lines: Line[], share: (value: number) => number, ticks: {at: number, text: string}[], at: number}} ChartData
 *   `share` and `ticks` go from 0, the bottom, to 1; `at` is the pointed row
 */

const CHART_HEIGHT = 128;
const MARGIN = { left: 36, right: 10, top: 8, bottom: 22 };

/** @param {number} slot @returns {{stroke: string, dashes: string}} one look for each tracked token, told apart without colour too */
export function lineLook(slot) {
  return { stroke: `var(--iw-track-${slot % 6})`, dashes: ["none", "7 3", "2 2.5", "9 3 2 3", "4 2", "1 4"][(slot + Math.floor(slot / 6)) % 6] };
}

/** @param {AbortSignal} signal */
export function lineChart(signal) {
  const svg = vector("svg", { class: "iw-chart__svg", role: "img", height: CHART_HEIGHT });
  const el = h("div", { class: "iw-chart" }, svg);
  /** @type {ChartData | null} */
  let data = null;
  let width = 0;

  const redraw = coalesce(() => {
    if (!data || width <= 0) return;
    svg.setAttribute("width", String(width));
    svg.setAttribute("aria-label", data.label);
    svg.replaceChildren(...drawAxes(data, width), ...data.lines.flatMap((line) => drawLine(line, /** @type {ChartData} */ (data), width)));
  }, signal);
  const observer = new ResizeObserver((entries) => {
    width = Math.floor(entries[entries.length - 1].contentRect.width);
    redraw();
  });
  observer.observe(el);
  signal.addEventListener("abort", () => observer.disconnect());
  return {
    el,
    /** @param {ChartData} next */
    update(next) {
      data = next;
      redraw();
    },
  };
}

/** @param {ChartData} data @param {number} width @param {number} row */
function acrossChart(data, width, row) {
  return MARGIN.left + (row / Math.max(1, data.names.length - 1)) * (width - MARGIN.left - MARGIN.right);
}

/** @param {number} share */
function upChart(share) {
  return MARGIN.top + (1 - Math.max(0, Math.min(1, share))) * (CHART_HEIGHT - MARGIN.top - MARGIN.bottom);
}

/** @param {ChartData} data @param {number} width @returns {SVGElement[]} */
function drawAxes(data, width) {
  const floor = CHART_HEIGHT - MARGIN.bottom;
  const grid = data.ticks.flatMap(({ at, text }) => [
    vector("line", { class: "iw-chart__grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: upChart(at), y2: upChart(at) }),
    vector("text", { class: "iw-chart__tick", x: MARGIN.left - 5, y: upChart(at) + 3.5, "text-anchor": "end" }, text),
  ]);
  const step = [1, 2, 5, 10, 20].find((size) => (acrossChart(data, width, size) - MARGIN.left) >= 26) ?? 40;
  // Row 0 is the embedding: counting from row 1 puts the ticks at layers 0, 5, 10.
  const layers = data.names.map((_, row) => row).filter((row) => row === 0 || ((row - 1) % step === 0 && acrossChart(data, width, row) - MARGIN.left >= 26));
  const names = layers.map((row) => vector("text", { class: "iw-chart__tick", x: acrossChart(data, width, row), y: floor + 14, "text-anchor": "middle" }, data.names[row]));
  const x = acrossChart(data, width, data.at);
  return [...grid, ...names, vector("line", { class: "iw-chart__here", x1: x, x2: x, y1: MARGIN.top, y2: floor })];
}

/** @param {Line} line @param {ChartData} data @param {number} width @returns {SVGElement[]} */
function drawLine({ values, slot, quiet }, data, width) {
  let path = "";
  for (let row = 0; row < values.length; row++) {
    if (Number.isNaN(values[row])) continue;
    const joined = row > 0 && !Number.isNaN(values[row - 1]);
    path += `${joined ? "L" : "M"}${acrossChart(data, width, row).toFixed(1)} ${upChart(data.share(values[row])).toFixed(1)}`;
  }
  const { stroke, dashes } = lineLook(slot);
  const style = `stroke:${stroke};fill:${stroke};stroke-dasharray:${dashes}`;
  const kind = quiet ? "iw-chart__line iw-chart__line--quiet" : "iw-chart__line";
  const here = values[data.at];
  const drawn = [vector("path", { class: kind, d: path || "M0 0", style })];
  if (here !== undefined && !Number.isNaN(here) && !quiet)
    drawn.push(vector("circle", { class: "iw-chart__dot", cx: acrossChart(data, width, data.at), cy: upChart(data.share(here)), r: 2.75, style }));
  return drawn;
}
