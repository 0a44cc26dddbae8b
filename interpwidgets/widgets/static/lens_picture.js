// How a logit lens is painted: the colour, the text and the marks of every cell, and the legend that explains them.
import { colourAt, inkOn, rgba } from "./color.js";
import { divergingColour } from "./matrix.js";
import { changeLegend, largestKnown, metricChange, metricSays, metricScale } from "./lens_metrics.js";
import { isTouched, topToken, wordOf } from "./lens_reading.js";

/**
 * @typedef {import("./lens_reading.js").Reading} Reading
 * @typedef {import("./lens_reading.js").Cell} Cell
 * @typedef {import("./color.js").Rgb} Rgb
 * @typedef {import("./matrix.js").Mark} Mark
 * @typedef {{colour: (row: number, col: number) => Rgb | null, text: (row: number, col: number) => string, marks: Mark[],
 *   legend: {kind: "seq" | "div", ticks: {at: number, text: string}[], unit: string, note?: string}}} Picture
 */

/** @param {number} rows @param {number} cols @returns {Cell[]} */
export function everyCell(rows, cols) {
  return Array.from({ length: rows * cols }, (_, at) => ({ row: Math.floor(at / cols), col: at % cols }));
}

/**
 * The values of one run.
 * @param {Reading | null} reading null paints nothing but the legend
 * @param {{metric: string, palette: import("./color.js").Palette, runs: (Reading | null)[], before?: Reading | null}} about
 *   `runs` share the colour scale; with `before`, top tokens that differ from it are marked
 * @returns {Picture}
 */
export function valuePicture(reading, { metric, palette, runs, before = null }) {
  const values = reading?.metrics[metric];
  const { share, ticks } = metricScale(metric, largestKnown(...runs.map((run) => run?.metrics[metric])));
  const blank = plainColour(palette);
  /** @type {Picture["colour"]} */
  const colour = (row, col) => {
    if (!reading || topToken(reading, { row, col }) < 0) return null;
    const value = values?.[row * reading.cols + col] ?? NaN;
    return Number.isNaN(value) ? blank : colourAt(palette.sequential, share(value));
  };
  return {
    colour,
    text: (row, col) => (reading ? wordAt(reading, { row, col }) : ""),
    marks: reading ? everyCell(reading.rows.length, reading.cols).flatMap((cell) => marksOf(reading, before, cell, colour)) : [],
    legend: {
      kind: "seq", ticks, unit: metricSays(metric) + (reading?.units[metric] ? `, ${reading.units[metric]}` : ""),
      note: reading && !values ? "not computed yet" : undefined,
    },
  };
}

/**
 * What the experiments changed: neutral where nothing did, hatched where nothing could.
 * @param {Reading} before @param {Reading} after
 * @param {{metric: string, palette: import("./color.js").Palette}} about
 * @returns {Picture}
 */
export function changePicture(before, after, { metric, palette }) {
  const cells = everyCell(after.rows.length, after.cols);
  const [values, old] = [after.metrics[metric], before.metrics[metric]];
  const changes = cells.map((_, at) => metricChange(metric, values?.[at] ?? NaN, old?.[at] ?? NaN));
  const bound = Math.max(0.01, largestKnown(changes));
  const blank = plainColour(palette);
  /** @type {Picture["colour"]} */
  const colour = (row, col) => {
    if (!isTouched(after, { row, col })) return blank;
    if (topToken(after, { row, col }) < 0) return null;
    const change = changes[row * after.cols + col];
    return Number.isNaN(change) ? blank : divergingColour(palette, change, bound);
  };
  return {
    colour,
    text: (row, col) => (isTouched(after, { row, col }) ? wordAt(after, { row, col }) : ""),
    marks: cells.flatMap((cell) => (isTouched(after, cell) ? marksOf(after, before, cell, colour) : [{ ...cell, kind: "hatch", colour: palette.line }])),
    legend: { kind: "div", ...changeLegend(metric, bound) },
  };
}

/** @param {Reading} reading @param {Cell} cell */
function wordAt(reading, cell) {
  const top = topToken(reading, cell);
  return top < 0 ? "" : wordOf(reading, top);
}

/** @param {Reading} reading @param {Reading | null} before @param {Cell} cell @param {Picture["colour"]} colour @returns {Mark[]} */
function marksOf(reading, before, cell, colour) {
  const behind = colour(cell.row, cell.col);
  if (!behind) return [];
  const [top, ink] = [topToken(reading, cell), inkOn(behind)];
  /** @type {Mark[]} */
  const marks = top === reading.target[cell.col] ? [{ ...cell, kind: "ring", colour: ink }] : [];
  if (before && top !== topToken(before, cell)) marks.push({ ...cell, kind: "corner", colour: ink });
  return marks;
}

/** @param {import("./color.js").Palette} palette @returns {Rgb} of a cell that has a token but no value */
function plainColour(palette) {
  return /** @type {Rgb} */ (rgba(palette.bg).slice(0, 3));
}
