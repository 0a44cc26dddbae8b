// One matrix on one canvas, for every widget: coloured cells, labels on both axes, crosshair, marks, keyboard.
import { colourAt, inkOn } from "./color.js";
import { pixelsOf } from "./dom.js";
import { createSurface } from "./surface.js";
import { elide } from "./tokens.js";

/**
 * @typedef {import("./surface.js").Cell} Cell
 * @typedef {import("./color.js").Rgb} Rgb
 * @typedef {import("./color.js").Palette} Palette
 * @typedef {{text: string, title?: string, strong?: boolean, warn?: boolean, faint?: boolean, index?: number}} Label `warn`: differs from another prompt's; `index`: a column's number,
 *   written small between its label and its cells (with `labelsOnTop`)
 * @typedef {{row: number, col: number, kind: "selected" | "ring" | "cross" | "hatch" | "estimate" | "corner" | "shade", colour?: string, span?: number}} Mark
 *   `colour` in place of the kind's own; `span`: columns, 1 if not given
 * @typedef {{rows: number, cols: number, colour: (row: number, col: number) => Rgb | null, text?: (row: number, col: number, letters: number) => string,
 *   rowLabels: Label[], colLabels: Label[], rowTitle: string, colTitle: string, marks?: Mark[],
 *   below?: (row: number, col: number) => boolean, narrow?: (col: number) => boolean, describe: (row: number, col: number) => string}} MatrixData `colour` null leaves a cell
 *   blank; `below`: whether a value is below zero by more than a trace, which a dash says where no number does, for hue alone must not; `narrow`: a column that holds several;
 *   `text` is told how many letters fit: longer text is elided, so a number that does not fit must be rounded or left out
 * @typedef {{signal: AbortSignal, palette: () => Palette, cellWidth: () => [min: number, max: number], cellHeight?: number | (() => number),
 *   upward?: boolean, labelsOnTop?: boolean, maxHeight?: number, maxLabel?: number | (() => number), onView?: (seen: Range) => void,
 *   onPoint?: (cell: Cell | null, source: "pointer" | "keyboard") => void,
 *   onZoom?: (factor: number, cell: Cell, at?: {x: number, y: number}) => boolean, onActivate?: (cell: Cell, event: MouseEvent | KeyboardEvent) => void}} MatrixSpec
 *   without `cellHeight` cells are square; `upward` draws row 0 lowest; heights above `maxHeight` scroll; `onView` is told at every painting which cells are seen
 * @typedef {{top: number, bottom: number, left: number, right: number}} Range of drawn rows and columns; the ends are not in it
 * @typedef {{left: number, top: number, bottom: number, right: number, cell: number, tall: number, angle: 0 | 45 | 90, starts: Float64Array}} Plan `starts`: where columns begin, right of `left`,
 *   and the end of the last
 */

const LABEL_SIZE = 11;
/** Pixels from label to label, where not every row or column has one. */
const LABEL_ROOM = 15;
const TITLE_SIZE = 14;
const NUMBER_SIZE = 9;
/** Pixels of a cell from which on it shows its number. */
export const NUMBERED = 22;
/** Pixels of a cell from which on a dash says that its value is below zero. */
const SIGNED = 8;
/** Pixels of a narrow column: at least what its upright label needs. */
const NARROW = [LABEL_SIZE + 1, 22];
/** Cells up to which the whole matrix is painted at once: of larger ones only what is seen. */
const PAINTED_AT_ONCE = 66000;

/** @param {MatrixSpec} spec */
export function createMatrix(spec) {
  const { signal, palette, upward = false, labelsOnTop = false } = spec;
  const longest = () => (typeof spec.maxLabel === "function" ? spec.maxLabel() : spec.maxLabel ?? 96);
  /** @type {MatrixData} */
  let data = { rows: 0, cols: 0, colour: () => null, rowLabels: [], colLabels: [], rowTitle: "", colTitle: "", describe: () => "" };
  /** @type {Plan} */
  let plan = { left: 0, top: 0, bottom: 0, right: 0, cell: 1, tall: 1, angle: 0, starts: new Float64Array(1) };
  /** @type {number | null} */
  let emphasis = null;
  /** @type {number | null} */
  let emphasisedRow = null;
  const image = document.createElement("canvas");
  /** @type {Range | null} the cells on `image` */
  let painted = null;
  /** @type {Map<string, number>} */
  const widths = new Map();
  const measure = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
  const labelFont = () => `${LABEL_SIZE}px ${palette().mono}`;
  const numbers = () => (labelsOnTop && data.colLabels.some(({ index }) => index !== undefined) ? NUMBER_SIZE + 2 : 0);
  const drawnRow = (/** @type {number} */ row) => (upward ? data.rows - 1 - row : row);

  /** @param {string} text */
  const widthOf = (text) => {
    const known = widths.get(text);
    if (known !== undefined) return known;
    measure.font = labelFont();
    const { width } = measure.measureText(text);
    widths.set(text, width);
    return width;
  };

  /** @param {number} available */
  const layout = (available) => {
    if (widths.size > 4000) widths.clear();
    const widest = (/** @type {Label[]} */ labels) => labels.reduce((most, label) => Math.max(most, widthOf(label.text)), 0);
    const limit = Math.min(longest(), available * 0.3);
    const [rowWidth, colWidth] = [Math.min(limit, widest(data.rowLabels)), Math.min(longest(), widest(data.colLabels))];
    const left = Math.ceil(rowWidth) + 8;
    const [asked, most] = spec.cellWidth();
    // On paper nothing scrolls.
    const least = surface.el.closest("[data-iw-figure]") ? 1 : asked;
    const snap = (/** @type {number} */ size) => Math.floor(size * pixelsOf(surface.el)) / pixelsOf(surface.el);
    const { narrow } = data;
    const bands = narrow ? data.colLabels.reduce((count, _, col) => count + Number(narrow(col)), 0) : 0;
    const wide = data.cols - bands;
    const slim = Math.max(NARROW[0], Math.min(NARROW[1], snap((available - left - wide * least) / Math.max(1, bands))));
    const sized = (/** @type {number} */ before, /** @type {number} */ after) => Math.max(least, Math.min(most, snap((available - before - after - bands * slim) / Math.max(1, wide))));
    let cell = sized(left, 0);
    const angle = bands ? 90 : colWidth + 6 <= cell ? 0 : cell >= 16 ? 45 : 90;
    const lean = angle === 45 ? colWidth * 0.71 : 0;
    const right = labelsOnTop ? Math.ceil(lean) : 2;
    // Leaning labels of the first columns reach left of their cells.
    const reach = angle !== 45 || labelsOnTop ? 0 : data.colLabels.reduce((most, label, col) =>
      Math.max(most, Math.min(longest(), widthOf(label.text)) * 0.71 + 4 - (col + 0.5) * cell), 0);
    const start = Math.max(left, Math.ceil(reach));
    cell = sized(start, right);
    const across = Math.ceil(angle === 0 ? LABEL_SIZE + 6 : angle === 45 ? lean + LABEL_SIZE + 4 : colWidth + 8) + numbers();
    const tall = (typeof spec.cellHeight === "function" ? spec.cellHeight() : spec.cellHeight) ?? cell;
    const starts = new Float64Array(data.cols + 1);
    for (let col = 0; col < data.cols; col++) starts[col + 1] = starts[col] + (narrow?.(col) ? slim : cell);
    plan = { left: start, right, cell, tall, angle, starts, top: TITLE_SIZE + 4 + (labelsOnTop ? across : 0), bottom: labelsOnTop ? 2 : across };
    return { width: plan.left + starts[data.cols] + right, height: plan.top + data.rows * tall + plan.bottom };
  };

  /** @param {Cell} cell */
  const boxOf = ({ row, col }) => ({ x: xOf(col), y: plan.top + drawnRow(row) * plan.tall, width: xOf(col + 1) - xOf(col), height: plan.tall });
  const xOf = (/** @type {number} */ col) => plan.left + (plan.starts[Math.min(col, data.cols)] ?? 0);
  /** @param {number} x right of the labels @returns {number} the column there, as many as there are columns beyond the last */
  const colAt = (x) => {
    let [low, high] = [0, data.cols];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (plan.starts[middle + 1] > x) high = middle;
      else low = middle + 1;
    }
    return low;
  };

  const surface = createSurface({
    signal,
    maxHeight: spec.maxHeight,
    layout,
    boxOf,
    grid: () => ({ rows: data.rows, cols: data.cols, upward }),
    sticky: () => ({ left: plan.left, top: plan.top, bottom: plan.bottom }),
    describe: ({ row, col }) => data.describe(row, col),
    cellAt(x, y) {
      const [col, drawn] = [colAt(x - plan.left), Math.floor((y - plan.top) / plan.tall)];
      const row = drawnRow(drawn);
      return x >= plan.left && y >= plan.top && row >= 0 && row < data.rows && col < data.cols ? { row, col } : null;
    },
    onPoint: spec.onPoint,
    onActivate: spec.onActivate,
    onZoom: spec.onZoom,
    draw,
  });

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {import("./surface.js").View} view
   * @param {Cell | null} active
   */
  function draw(context, view, active) {
    const colours = palette();
    const area = { x: plan.left, y: plan.top, width: Math.min(view.width - plan.left, plan.starts[data.cols] - view.left), height: view.height - plan.top - plan.bottom };
    context.save();
    context.beginPath();
    context.rect(area.x - 1, area.y - 1, area.width + 2, area.height + 2);
    context.clip();
    context.translate(-view.left, -view.top);
    drawCells(context, colours, view);
    for (const mark of data.marks ?? []) {
      const box = { ...boxOf(mark), width: xOf(mark.col + (mark.span ?? 1)) - xOf(mark.col) };
      if (outside(box, view)) continue;
      drawMark(context, box, mark.kind, mark.colour ? { ...colours, fg: mark.colour, faint: mark.colour, accent: mark.colour } : colours);
    }
    if (active) drawCrosshair(context, boxOf(active), colours);
    context.restore();
    drawLabels(context, view, active, colours);
  }

  /** @param {import("./surface.js").View} view @returns {Range} */
  function seenOf({ left, top, width, height }) {
    const within = (/** @type {number} */ at, /** @type {number} */ end) => Math.max(0, Math.min(end, at));
    return {
      top: within(Math.floor(top / plan.tall), data.rows), bottom: within(Math.ceil((top + height - plan.top - plan.bottom) / plan.tall), data.rows),
      left: colAt(left), right: within(colAt(left + width - plan.left - 1e-6) + 1, data.cols),
    };
  }

  /** @param {CanvasRenderingContext2D} context @param {Palette} colours @param {import("./surface.js").View} view */
  function drawCells(context, colours, view) {
    context.imageSmoothingEnabled = false;
    const seen = seenOf(view);
    const wanted = data.rows * data.cols <= PAINTED_AT_ONCE ? { top: 0, bottom: data.rows, left: 0, right: data.cols } : seen;
    if (!painted || Object.entries(wanted).some(([side, at]) => painted?.[/** @type {keyof Range} */ (side)] !== at)) {
      painted = wanted;
      paintImage(image, data, painted, drawnRow);
    }
    const y = plan.top + painted.top * plan.tall;
    // One piece for each run of columns of one width.
    for (let from = painted.left, to = from; image.height && from < painted.right; from = to) {
      for (to = from + 1; to < painted.right && !data.narrow?.(to) === !data.narrow?.(from); to++);
      context.drawImage(image, from - painted.left, 0, to - from, image.height, xOf(from), y, xOf(to) - xOf(from), image.height * plan.tall);
    }
    if (Math.min(plan.cell, plan.tall) >= 6) {
      context.fillStyle = colours.bg;
      for (let col = Math.max(1, seen.left); col < seen.right; col++) context.fillRect(xOf(col) - 0.5, plan.top, 1, data.rows * plan.tall);
      for (let row = Math.max(1, seen.top); row < seen.bottom; row++) context.fillRect(plan.left, plan.top + row * plan.tall - 0.5, plan.starts[data.cols], 1);
    }
    spec.onView?.(seen);
    const { text, below } = data;
    const writes = text && colours.written && plan.cell >= NUMBERED && plan.tall >= 12;
    if (!writes && !(below && Math.min(plan.cell, plan.tall) >= SIGNED)) return;
    const size = Math.min(11, Math.floor(plan.tall * 0.72));
    context.font = `${size}px ${colours.mono}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const letters = Math.floor((plan.cell - 4) / (context.measureText("0").width || 6));
    for (let drawn = seen.top; drawn < seen.bottom; drawn++) {
      const [row, y] = [drawnRow(drawn), plan.top + (drawn + 0.5) * plan.tall];
      for (let col = seen.left; col < seen.right; col++) {
        const written = !writes || data.narrow?.(col) ? "" : text(row, col, letters);
        const behind = written || below?.(row, col) ? data.colour(row, col) : null;
        if (!behind) continue;
        context.fillStyle = inkOn(behind);
        const [x, dash] = [(xOf(col) + xOf(col + 1)) / 2, Math.min(8, (xOf(col + 1) - xOf(col)) / 2)];
        if (written) context.fillText(elide(written, letters), x, y + 0.5);
        else context.fillRect(x - dash / 2, y - 0.5, dash, 1);
      }
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {import("./surface.js").View} view
   * @param {Cell | null} active
   * @param {Palette} colours
   */
  function drawLabels(context, view, active, colours) {
    const { cell, tall, left, top, bottom, angle } = plan;
    const letter = measureLetter(context, labelFont());
    const floor = view.height - bottom;
    const right = Math.min(view.width - (labelsOnTop ? 0 : plan.right), left + plan.starts[data.cols]);
    context.textBaseline = "middle";
    /** @param {Label} label @param {boolean} on */
    const style = (label, on) => {
      context.fillStyle = on || label.strong ? colours.accent : label.warn ? colours.warn : label.faint ? colours.mute : colours.fg;
      context.font = (on ? "600 " : "") + labelFont();
    };
    context.textAlign = "right";
    const everyRow = tall < LABEL_SIZE ? Math.ceil(LABEL_ROOM / tall) : 1;
    data.rowLabels.forEach((label, row) => {
      const y = top + (drawnRow(row) + 0.5) * tall - view.top;
      const on = active?.row === row || emphasisedRow === row;
      if (y < top || y > floor || !(on || (row % everyRow === 0 && !crowded(active?.row, row, everyRow)))) return;
      style(label, on);
      context.fillText(elide(label.text, Math.floor((left - 8) / letter)), left - 5, y);
    });
    const everyCol = angle === 90 && cell < LABEL_SIZE + 1 ? Math.ceil(LABEL_ROOM / cell) : 1;
    const room = Math.floor((angle === 0 ? cell : longest()) / letter);
    data.colLabels.forEach((label, col) => {
      const x = (xOf(col) + xOf(col + 1)) / 2 - view.left;
      const on = active?.col === col || emphasis === col;
      if (x < left || x > right || !(on || (col % everyCol === 0 && !crowded(active?.col, col, everyCol)))) return;
      style(label, on);
      context.save();
      context.translate(x, labelsOnTop ? top - 5 - numbers() : floor + (angle === 0 ? 9 : 5));
      if (angle) context.rotate((-angle * Math.PI) / 180);
      context.textAlign = angle === 0 ? "center" : labelsOnTop ? "left" : "right";
      // Slanted labels lean over the view's right edge when it scrolls.
      const leaning = angle === 45 && labelsOnTop ? Math.floor(((view.width - x) / 0.71 - 6) / letter) : room;
      context.fillText(elide(label.text, Math.min(room, leaning)), 0, angle === 0 && labelsOnTop ? -4 : 0);
      context.restore();
      if (!numbers() || label.index === undefined) return;
      context.font = `${NUMBER_SIZE}px ${colours.ui}`;
      context.fillStyle = on ? colours.accent : colours.mute;
      context.textAlign = "center";
      context.fillText(String(label.index), x, top - 6);
    });
    context.font = `10.5px ${colours.ui}`;
    context.fillStyle = colours.mute;
    context.textAlign = "left";
    context.fillText(`${data.rowTitle}   ${data.colTitle}`, 2, 8);
  }

  return {
    el: surface.el,
    canvas: surface.canvas,
    /**
     * @param {string} label what the grid is, for screen readers
     * @param {MatrixData} next
     */
    update(label, next) {
      data = next;
      surface.label(label);
      painted = null;
      surface.refresh();
    },
    /** @param {number | null} row @param {number | null} col of which the labels are emphasised */
    emphasise(row, col) {
      [emphasisedRow, emphasis] = [row, col];
      surface.repaint();
    },
    /** @param {Mark[]} marks drawn from now on; the cells stay */
    mark(marks) {
      data = { ...data, marks };
      surface.repaint();
    },
    repaint: surface.repaint,
    moveTo: surface.moveTo,
    lookAt: surface.lookAt,
    scrollTo: surface.scrollTo,
    cursor: surface.cursor,
    focus: surface.focus,
    active: surface.active,
  };
}

/** @param {number | undefined} active @param {number} index @param {number} every keeps the pointed label's place free */
function crowded(active, index, every) {
  return active !== undefined && every > 1 && index !== active && Math.abs(index - active) < every;
}

/** @param {import("./surface.js").Box} box @param {import("./surface.js").View} view */
function outside(box, view) {
  return box.x + box.width < view.left || box.x > view.left + view.width || box.y + box.height < view.top || box.y > view.top + view.height;
}

/** @param {CanvasRenderingContext2D} context @param {string} font */
function measureLetter(context, font) {
  context.font = font;
  return context.measureText("m").width || 7;
}

/**
 * One pixel a cell; the canvas scales it up.
 * @param {HTMLCanvasElement} image
 * @param {MatrixData} data
 * @param {Range} range what to paint
 * @param {(row: number) => number} drawnRow its own inverse
 */
function paintImage(image, data, { top, bottom, left, right }, drawnRow) {
  [image.width, image.height] = [right - left, bottom - top];
  if (right <= left || bottom <= top) return;
  const context = /** @type {CanvasRenderingContext2D} */ (image.getContext("2d"));
  const pixels = context.createImageData(image.width, image.height);
  for (let drawn = top; drawn < bottom; drawn++) {
    for (let col = left; col < right; col++) {
      const rgb = data.colour(drawnRow(drawn), col);
      if (!rgb) continue;
      const at = 4 * ((drawn - top) * image.width + col - left);
      [pixels.data[at], pixels.data[at + 1], pixels.data[at + 2], pixels.data[at + 3]] = [rgb[0], rgb[1], rgb[2], 255];
    }
  }
  context.putImageData(pixels, 0, 0);
}

/** @param {CanvasRenderingContext2D} context @param {import("./surface.js").Box} box @param {Palette} colours */
function drawCrosshair(context, box, colours) {
  context.strokeStyle = colours.accent;
  context.lineWidth = 1;
  context.globalAlpha = 0.35;
  context.strokeRect(-9, box.y + 0.5, 1e5, box.height - 1);
  context.strokeRect(box.x + 0.5, -9, box.width - 1, 1e5);
  context.globalAlpha = 1;
  drawRing(context, box, colours);
}

/**
 * The mark of what is selected: accent over a halo, so that it shows on any colour.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./surface.js").Box} box
 * @param {Palette} colours
 */
export function drawRing(context, box, colours) {
  context.strokeStyle = colours.halo;
  context.lineWidth = 3;
  context.strokeRect(box.x, box.y, box.width, box.height);
  context.strokeStyle = colours.accent;
  context.lineWidth = 1.5;
  context.strokeRect(box.x, box.y, box.width, box.height);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import("./surface.js").Box} box
 * @param {Mark["kind"]} kind
 * @param {Palette} colours
 */
export function drawMark(context, box, kind, colours) {
  const { x, y, width, height } = box;
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  if (kind === "selected") drawRing(context, box, colours);
  else if (kind === "ring") {
    context.strokeStyle = colours.fg;
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  } else if (kind === "hatch") {
    context.clip();
    drawHatch(context, box, colours.faint, 4);
  } else if (kind === "estimate") {
    context.clip();
    // A light line beside a dark one: one of them shows on whatever colour the cell has.
    context.globalAlpha = 0.65;
    drawHatch(context, box, colours.halo, 6);
    context.globalAlpha = 0.22;
    drawHatch(context, box, colours.fg, 6, 1);
  } else if (kind === "cross") {
    const inset = Math.max(1, Math.min(width, height) * 0.22);
    for (const [colour, line] of /** @type {[string, number][]} */ ([[colours.halo, 3.5], [colours.warn, 1.75]])) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.beginPath();
      context.moveTo(x + inset, y + inset);
      context.lineTo(x + width - inset, y + height - inset);
      context.moveTo(x + width - inset, y + inset);
      context.lineTo(x + inset, y + height - inset);
      context.stroke();
    }
  } else if (kind === "shade") {
    context.globalAlpha = 0.14;
    context.fillStyle = colours.accent;
    context.fillRect(x, y, width, height);
  } else {
    const side = Math.min(7, height * 0.5);
    context.fillStyle = colours.accent;
    context.beginPath();
    context.moveTo(x + width - side, y);
    context.lineTo(x + width, y);
    context.lineTo(x + width, y + side);
    context.fill();
  }
  context.restore();
}

/**
 * Slanted lines, in steps of the page and not of the cell: neighbouring hatched cells join into one area.
 * @param {CanvasRenderingContext2D} context @param {import("./surface.js").Box} box @param {string} colour
 * @param {number} step pixels from line to line @param {number} [shift] to the right
 */
function drawHatch(context, { x, y, width, height }, colour, step, shift = 0) {
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  for (let sum = Math.floor((x + y) / step) * step + shift; sum < x + y + width + height + shift; sum += step) {
    context.moveTo(sum - y, y);
    context.lineTo(sum - y - height, y + height);
  }
  context.stroke();
}

/**
 * The colour of an effect: neutral at zero, symmetric.
 * @param {Palette} palette @param {number} value @param {number} bound the value at the ends of the palette
 */
export function divergingColour(palette, value, bound) {
  return colourAt(palette.diverging, 0.5 + value / (2 * bound || 1));
}

/** @param {number} length @returns {number} pixels of a cell when there is room: a short prompt does not fill the page, a longer one shows its numbers while they fit */
export function widestCell(length) {
  return Math.min(40, Math.max(11, Math.floor(Math.max(480, Math.min(600, NUMBERED * length)) / Math.max(1, length))));
}
