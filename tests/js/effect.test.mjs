// The arithmetic and the wording of a patching map.
import assert from "node:assert/strict";
import { test } from "node:test";
import { cellOf, countUnknown, differenceOf, effectBound, effectOf, effectWords, isEstimate, placeOf, spanName, strongestCell, strongestRow, valueAt, writeNumber, writeShort } from "../../interpwidgets/widgets/static/effect.js";
import { effectCells, hatches } from "../../interpwidgets/widgets/static/effect_map.js";

const sweep = (values, changes = {}) => ({
  id: 1, site: "resid_pre", layer: null, dims: ["layer", "position"], values: { data: Float32Array.from(values), shape: [2, 2] },
  clean: 3, corrupted: -1, baseline: -1, direction: "denoise", metric: "logit_diff", units: "logits", gap_is_zero: false, labels: {}, ...changes,
});

test("denoising runs from 0, nothing happened, to 1, all of the gap restored", () => {
  assert.deepEqual([-1, 1, 3].map((value) => effectOf(sweep([]), value, true)), [0, 0.5, 1]);
});

test("noising runs from 0 to -1, all of the gap lost", () => {
  const noise = sweep([], { baseline: 3, direction: "noise" });
  assert.deepEqual([3, 1, -1].map((value) => effectOf(noise, value, true)), [0, -0.5, -1]);
});

test("a raw effect is the change in the metric", () => {
  assert.equal(effectOf(sweep([]), 1.5, false), 2.5);
});

test("rounding is no effect", () => {
  const { baseline } = sweep([], { baseline: -4.773 });
  assert.equal(effectOf(sweep([], { baseline }), Math.fround(baseline), false), 0);
});

test("a metric that falls as the answer is restored has a positive share", () => {
  const kl = { clean: 0, corrupted: 2, baseline: 2 };
  assert.equal(effectOf(kl, 0.5, true), 0.75);
  assert.equal(effectOf(kl, 0.5, false), -1.5);
});

test("colours end at the whole gap unless an effect is larger; unknown cells do not count", () => {
  assert.equal(effectBound([sweep([-1, 1, NaN, 2])], true), 1);
  assert.equal(effectBound([sweep([-1, 1, NaN, 2])], false), 4);
  assert.equal(effectBound([sweep([-1, 5, NaN, -Infinity])], true), 1.5);
  assert.equal(effectBound([sweep([1, 1, 1, 1], { clean: 1, corrupted: 1, baseline: 1 })], false), 1);
});

const estimated = (values, estimate, changes = {}) => sweep(values, { estimate: { data: Float32Array.from(estimate), shape: [2, 2] }, ...changes });

test("a cell that has not run shows its estimate until it has", () => {
  const map = estimated([NaN, 1, NaN, 2], [0, 9, NaN, 9]);
  assert.deepEqual([0, 1, 2, 3].map((index) => isEstimate(map, index)), [true, false, false, false]);
  assert.deepEqual([0, 1, 2, 3].map((index) => valueAt(map, index)), [0, 1, NaN, 2]);
  assert.equal(isEstimate(sweep([NaN, 1, NaN, 2]), 0), false);
  assert.equal(countUnknown(map), 2);
  assert.equal(strongestRow(estimated([-1, -1, NaN, -1], [9, 9, 5, 9])), 1);
});

test("estimates leave the scale alone, and set it only where there is no gap", () => {
  assert.equal(effectBound([estimated([NaN, 1, NaN, 2], [40, 0, -40, 0])], true), 1);
  const same = { clean: 1, corrupted: 1, baseline: 1, gap_is_zero: true };
  assert.equal(effectBound([estimated([NaN, 1, NaN, 1], [1.25, 1, 1, 1], same)], false), 0.25);
});

test("estimates and cells of which nothing is known are hatched apart, neighbours together", () => {
  const marks = (map) => hatches(map, [[0, 1], [1, 2]], [[0, 1], [1, 2]], "#123").map(({ row, col, span, kind }) => [row, col, span, kind]);
  assert.deepEqual(marks(estimated([NaN, NaN, NaN, 2], [0, 0, NaN, 0])), [[0, 0, 2, "estimate"], [1, 0, 1, "hatch"]]);
  assert.deepEqual(marks(estimated([NaN, NaN, NaN, 2], [0, NaN, NaN, 0])), [[0, 0, 1, "estimate"], [0, 1, 1, "hatch"], [1, 0, 1, "hatch"]]);
  assert.deepEqual(marks(sweep([1, 1, 1, 1])), []);
});

test("the strongest row and what is unknown are found in a map that fills", () => {
  assert.equal(strongestRow(sweep([-1, -1.5, NaN, 2])), 1);
  assert.equal(countUnknown(sweep([-1, NaN, NaN, 2])), 2);
});

const deep = (values, changes = {}) => sweep(values, { values: { data: Float32Array.from(values), shape: [4, 2] }, ...changes });
const palette = { diverging: [[0, 0, 0], [100, 100, 100], [200, 200, 200]], line: "#123" };
const drawn = (map, changes = {}) => effectCells(map, { colours: palette, bound: 1, share: true, chosen: [], rows: [[0, 2], [2, 3], [3, 4]], columns: [[0, 1], [1, 2]], upward: true, describe: () => "", ...changes });

test("a row of several layers shows the effect that is largest in size, and loses none", () => {
  const map = deep([-1, 0, -3, -1, 1, -1, -1, -1]);
  assert.deepEqual(strongestCell(map, [0, 2], [0, 1]), { row: 1, col: 0 });
  assert.deepEqual(strongestCell(map, [0, 4], [0, 2]), { row: 1, col: 0 });
  const cells = drawn(map);
  assert.deepEqual([cells.text(0, 0, 4), cells.text(0, 1, 4), cells.text(1, 0, 4)], ["−.50", ".25", ".50"]);
  assert.deepEqual([cells.rows, cells.rowTitle], [3, "layer ↑ 2 a row"]);
  assert.deepEqual(cells.rowLabels.map(({ text }) => text), ["0–1", "L2", "L3"]);
  assert.equal(drawn(map, { rows: [[0, 1], [1, 2], [2, 3], [3, 4]] }).rowTitle, "layer ↑");
});

test("a row of several layers is hatched, and has no number, until all of it has run", () => {
  const map = deep([3, NaN, NaN, 3, NaN, 3, 3, 3], { estimate: { data: Float32Array.of(0, 0, 0, 0, NaN, 0, 0, 0), shape: [4, 2] } });
  assert.deepEqual(hatches(map, [[0, 2], [2, 4]], [[0, 1], [1, 2]], "#123").map(({ row, col, span, kind }) => [row, col, span, kind]), [[0, 0, 2, "estimate"], [1, 0, 1, "hatch"]]);
  const cells = drawn(map, { rows: [[0, 2], [2, 4]] });
  assert.deepEqual([cells.text(0, 0, 4), cells.text(0, 1, 4), cells.text(1, 0, 4), cells.text(1, 1, 4)], ["", "", "", "1.00"]);
});

test("what is chosen is marked on the row that it is in", () => {
  const chosen = [1, 3, 9].map((layer) => ({ site: "resid_pre", layer, head: null, position: 1 }));
  assert.deepEqual(drawn(deep([1, 1, 1, 1, 1, 1, 1, 1]), { chosen }).marks, [0, 2].map((row) => ({ row, col: 1, kind: "selected" })));
});

test("a cell of several is named by its ends", () => {
  const heads = sweep([], { site: "z", dims: ["layer", "head"] });
  const inset = sweep([], { site: "z", layer: 5, dims: ["head", "position"] });
  assert.equal(spanName(sweep([]), [24, 26], [3, 4]), "L24–25 · position 3");
  assert.equal(spanName(sweep([]), [24, 26], [16, 32]), "L24–25 positions 16–31");
  assert.equal(spanName(sweep([]), [24, 25], [16, 32]), "L24 positions 16–31");
  assert.equal(spanName(heads, [24, 26], [3, 4]), "L24–25H3");
  assert.equal(spanName(inset, [3, 4], [16, 32]), "L5H3 positions 16–31");
});

test("cells and places translate into each other on each kind of map", () => {
  const heads = sweep([], { site: "z", dims: ["layer", "head"] });
  const inset = sweep([], { site: "z", layer: 5, dims: ["head", "position"] });
  assert.deepEqual(cellOf(sweep([]), 4, 7), { site: "resid_pre", layer: 4, head: null, position: 7 });
  assert.deepEqual(cellOf(heads, 4, 7), { site: "z", layer: 4, head: 7, position: null });
  assert.deepEqual(cellOf(inset, 4, 7), { site: "z", layer: 5, head: 4, position: 7 });
  for (const map of [sweep([]), heads, inset]) assert.deepEqual(placeOf(map, cellOf(map, 4, 7)), { row: 4, col: 7 });
  assert.equal(placeOf(heads, cellOf(inset, 4, 7)), null);
  assert.equal(placeOf(inset, cellOf(heads, 5, 7)), null);
  assert.equal(placeOf(sweep([]), cellOf(heads, 5, 7)), null);
});

test("a number in a cell is rounded until it fits, and left out when it cannot", () => {
  assert.deepEqual([4, 3, 2, 1].map((letters) => writeShort(1.034, letters)), ["1.03", "1.0", "1", "1"]);
  assert.deepEqual([4, 3, 2].map((letters) => writeShort(-0.534, letters)), ["−.53", "−.5", ""]);
  assert.deepEqual([3, 2].map((letters) => writeShort(0.062, letters)), [".06", ""]);
  assert.deepEqual([2, 2].map((letters, at) => writeShort([0.96, 1.4][at], letters)), ["1", ""]);
  assert.equal(writeShort(-12.3, 2), "");
  assert.equal(writeShort(0.001, 4), "");
});

test("numbers keep three digits after the point, and tell tiny from zero", () => {
  assert.deepEqual([0, 0.7739, -4.773, 12.345, 1234.5, 0.00012, NaN, -Infinity].map((value) => writeNumber(value)),
    ["0.000", "0.774", "−4.773", "12.35", "1234.5", "1.2e−4", "–", "−∞"]);
  assert.equal(writeNumber(2, true), "+2.000");
});

test("words name the share or the units", () => {
  assert.equal(effectWords(sweep([]), 0.5, true), "0.500 of the gap restored");
  assert.equal(effectWords(sweep([], { direction: "noise" }), -0.5, true), "−0.500 of the gap");
  assert.equal(effectWords(sweep([]), -2, false), "−2.000 logits");
});

test("a difference is that of two effects, in shares of the baseline's gap", () => {
  const before = sweep([-1, 0, 1, 3], { clean: 7 });
  const now = sweep([-2, 0, -2, 3], { corrupted: -2, baseline: -2 });
  const difference = differenceOf(now, before);
  assert.deepEqual([...difference.values.data], [0, 1, -2, 1]); // effects 0, 2, 0, 5 now and 0, 1, 2, 4 in the baseline
  assert.equal(effectOf(difference, 2, true), 0.25);
  assert.equal(effectBound([difference], true), 0.25);
});

test("there is a difference only where both have run, and of maps of the same thing", () => {
  const before = sweep([NaN, 0, 1, 3], { estimate: { data: Float32Array.of(1, 1, 1, 1), shape: [2, 2] } });
  const now = sweep([0, NaN, 1, 3], { estimate: { data: Float32Array.of(1, 1, 1, 1), shape: [2, 2] } });
  assert.deepEqual([0, 1, 2, 3].map((index) => valueAt(differenceOf(now, before), index)), [NaN, NaN, 0, 0]);
  for (const other of [null, sweep([0, 0, 0, 0], { site: "z" }), sweep([0, 0, 0, 0], { direction: "noise" }), sweep([0, 0, 0, 0], { metric: "kl" })]) {
    assert.equal(countUnknown(differenceOf(now, other)), 4);
    assert.equal(isEstimate(differenceOf(now, other), 0), false);
  }
});

test("rounding is no difference", () => {
  const [now, before] = [sweep([-0.99999991, 0, 1, 3]), sweep([-1, 0, 1, 3])];
  assert.equal(differenceOf(now, before).values.data[0], 0);
});

test("what is below zero by more than a trace is told apart from what is above, for a dash", () => {
  const cells = effectCells(sweep([-1.1, -1.5, 0.9, NaN]), {
    colours: { line: "#000" }, bound: 1, share: true, chosen: [], rows: [[0, 1], [1, 2]], columns: [[0, 1], [1, 2]], describe: () => "",
  });
  assert.deepEqual([[0, 0], [0, 1], [1, 0], [1, 1]].map(([row, col]) => cells.below(row, col)), [false, true, false, false]);
});
