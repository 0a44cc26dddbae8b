// How a logit lens is painted: the colour, the text and the marks of every cell, and the legend that explains them.
import { colourAt, inkOn, rgba } from "./color.js";
import { divergingColour } from "./matrix.js";
import { bandValue } from "./lens_bands.js";
import { changeLegend, largestKnown, metricChange, metricSays, metricScale } from "./lens_metrics.js";
import { isTouched, topToken, wordOf } from "./lens_reading.js";

/**
 * @typedef {import("./lens_reading.js").Reading} Reading
 * @typedef {import("./lens_reading.js").Cell} Cell
 * @typedef {import("./color.js").Rgb} Rgb
 * @typedef {import("./matrix.js").Mark} Mark
 * @typedef {{rows: number[], columns: import("./bands.js").Span[]}} Drawn the reading's rows and positions that the picture's stand for
 * @typedef {{colour: (row: number, col: number) => Rgb | null, text: (row: number, col: number) => string, below?: (row: number, col: number) => boolean, marks: Mark[],
 *   legend: {kind: "seq" | "div", ticks: {at: number, text: string}[], unit: string, note?: string}}} Picture
 */

/** @param {Drawn} drawn @returns {Cell[]} places of the picture */
function everyPlace({ rows, columns }) {
  return Array.from({ length: rows.length * columns.length }, (_, at) => ({ row: Math.floor(at / columns.length), col: at % columns.length }));
}

/** @param {Drawn} drawn @param {number} row @param {number} col @returns {Cell | null} of the reading; null for a column of several positions */
function cellOf({ rows, columns }, row, col) {
  const [first, end] = columns[col];
  return end - first === 1 ? { row: rows[row], col: first } : null;
}

/**
 * The values of one run.
 * @param {Reading | null} reading null paints nothing but the legend
 * @param {{metric: string, palette: import("./color.js").Palette, drawn: Drawn, runs: (Reading | null)[], before?: Reading | null}} about
 *   `runs` share the colour scale; with `before`, top tokens that differ from it are marked
 * @returns {Picture}
 */
export function valuePicture(reading, { metric, palette, drawn, runs, before = null }) {
  const values = reading?.metrics[metric];
  const { share, ticks } = metricScale(metric, Math.max(0, ...runs.map((run) => run?.folded?.most[metric] ?? largestKnown(run?.metrics[metric]))));
  const blank = plainColour(palette);
  /** @type {Picture["colour"]} */
  const colour = (row, col) => {
    const cell = cellOf(drawn, row, col);
    if (!reading || (cell && topToken(reading, cell) < 0)) return null;
    const value = cell ? values?.[cell.row * reading.cols + cell.col] ?? NaN : bandValue(reading, "bands", metric, drawn.rows[row], drawn.columns[col]);
    return Number.isNaN(value) ? blank : colourAt(palette.sequential, share(value));
  };
  return {
    colour,
    text: (row, col) => (reading ? wordAt(reading, cellOf(drawn, row, col)) : ""),
    marks: reading ? everyPlace(drawn).flatMap((place) => marksOf(reading, before, cellOf(drawn, place.row, place.col), place, colour)) : [],
    legend: {
      kind: "seq", ticks, unit: metricSays(metric) + (reading?.units[metric] ? `, ${reading.units[metric]}` : ""),
      note: reading && !values ? "not computed yet" : bandNote(drawn, reading?.folded?.bands[metric]?.kept),
    },
  };
}

/**
 * What the experiments changed: neutral where nothing did, hatched where nothing could.
 * @param {Reading} before @param {Reading} after
 * @param {{metric: string, palette: import("./color.js").Palette, drawn: Drawn}} about
 * @returns {Picture}
 */
export function changePicture(before, after, { metric, palette, drawn }) {
  const places = everyPlace(drawn);
  const [values, old] = [after.metrics[metric], before.metrics[metric]];
  const changes = places.map(({ row, col }) => {
    const cell = cellOf(drawn, row, col);
    const at = cell ? cell.row * after.cols + cell.col : NaN;
    return cell ? metricChange(metric, values?.[at] ?? NaN, old?.[at] ?? NaN) : bandValue(after, "changes", metric, drawn.rows[row], drawn.columns[col]);
  });
  const bound = Math.max(0.01, largestKnown(changes));
  const blank = plainColour(palette);
  const reached = (/** @type {number} */ row, /** @type {number} */ col) => isReached(after, drawn.rows[row], drawn.columns[col]);
  /** @type {Picture["colour"]} */
  const colour = (row, col) => {
    if (!reached(row, col)) return blank;
    const cell = cellOf(drawn, row, col);
    if (cell && topToken(after, cell) < 0) return null;
    const change = changes[row * drawn.columns.length + col];
    return Number.isNaN(change) ? blank : divergingColour(palette, change, bound);
  };
  return {
    colour,
    text: (row, col) => (reached(row, col) ? wordAt(after, cellOf(drawn, row, col)) : ""),
    below: (row, col) => reached(row, col) && changes[row * drawn.columns.length + col] <= -0.05 * bound,
    marks: places.flatMap((place) => (reached(place.row, place.col) ? marksOf(after, before, cellOf(drawn, place.row, place.col), place, colour)
      : [{ ...place, kind: "hatch", colour: palette.line }])),
    legend: { kind: "div", ...changeLegend(metric, bound), note: bandNote(drawn, after.folded && "farthest") },
  };
}

/** @param {Drawn} drawn @param {import("./lens_bands.js").Kept} [kept] @returns {string | undefined} what columns of several positions show */
function bandNote({ columns }, kept) {
  const most = Math.max(1, ...columns.map(([first, end]) => end - first));
  return kept && most > 1 ? `narrow columns: the ${kept === "farthest" ? "largest change" : kept} of ${most} positions` : undefined;
}

/** @param {Reading} reading @param {number} row @param {import("./bands.js").Span} span @returns {boolean} whether an experiment reaches any of these cells */
export function isReached(reading, row, [first, end]) {
  for (let col = first; col < end; col++) if (isTouched(reading, { row, col })) return true;
  return false;
}

/** @param {Reading} reading @param {Cell | null} cell */
function wordAt(reading, cell) {
  const top = cell ? topToken(reading, cell) : -1;
  return top < 0 ? "" : wordOf(reading, top);
}

/** @param {Reading} reading @param {Reading | null} before @param {Cell | null} cell @param {Cell} place where it is drawn @param {Picture["colour"]} colour @returns {Mark[]} */
function marksOf(reading, before, cell, place, colour) {
  const behind = cell && colour(place.row, place.col);
  if (!behind) return [];
  const [top, ink] = [topToken(reading, cell), inkOn(behind)];
  /** @type {Mark[]} */
  const marks = top === reading.target[cell.col] ? [{ ...place, kind: "ring", colour: ink }] : [];
  if (before && top !== topToken(before, cell)) marks.push({ ...place, kind: "corner", colour: ink });
  return marks;
}

/** @param {import("./color.js").Palette} palette @returns {Rgb} of a cell that has a token but no value */
function plainColour(palette) {
  return /** @type {Rgb} */ (rgba(palette.bg).slice(0, 3));
}
