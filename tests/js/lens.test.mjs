// The arithmetic and the wording of a logit lens.
import assert from "node:assert/strict";
import { test } from "node:test";

const from = (name) => import(new URL(`../../interpwidgets/widgets/static/${name}`, import.meta.url).href);
const { isTouched, readLens, rowName, topToken, topTokens, withRows, withRowsBefore } = await from("lens_reading.js");
const { changeLegend, largestKnown, metricChange, metricScale, rankScale, writeMetric } = await from("lens_metrics.js");
const { changePicture, valuePicture } = await from("lens_picture.js");
const { lineLook } = await from("linechart.js");
const { typedForm } = await from("replace.js");

const array = (Kind, dtype, shape, values) => ({ view: Kind.from(values).buffer, dtype, shape });
/** Two rows by two positions, two tokens in each cell. */
const lens = (tops, shares, changes = {}) => readLens({
  id: 1, rows: ["emb", "0"], top: array(Int32Array, "int32", [2, 2, 2], tops), p: array(Float32Array, "float32", [2, 2, 2], shares),
  target: array(Int32Array, "int32", [2], [7, 8]), metrics: { entropy: array(Float32Array, "float32", [2, 2], [4, 3, 2, 1]) },
  units: { entropy: "nats" }, texts: { 7: "␣cat", 8: "␣dog", 9: "␣cow" }, ...changes,
});
const before = lens([7, 8, 8, 9, 7, 8, 9, 7], [0.5, 0.25, 0.5, 0.25, 0.5, 0.25, 0.5, 0.25]);
const palette = {
  bg: "#ffffff", line: "#cccccc", sequential: Array.from({ length: 256 }, (_, at) => [at, at, at]), diverging: Array.from({ length: 256 }, (_, at) => [at, 0, 0]),
};

const drawn = { rows: [0, 1], columns: [[0, 1], [1, 2]] };

test("rows are named as layers, the first as the embedding", () => {
  assert.deepEqual([0, 1].map((row) => rowName(before.rows, row)), ["emb", "L0"]);
});

test("the tokens of both runs are listed together, the likeliest first, unknown where a run left it out", () => {
  const now = lens([9, 7, 8, 9, 7, 8, 9, 7], [0.75, 0.125, 0.5, 0.25, 0.5, 0.25, 0.5, 0.25]);
  assert.deepEqual(topTokens(before, now, { row: 0, col: 0 }), [
    { id: 9, text: "␣cow", baseline: null, now: 0.75 },
    { id: 7, text: "␣cat", baseline: 0.5, now: 0.125 },
  ]);
});

test("a cell that has not come has no tokens", () => {
  const partial = lens([-1, -1, -1, -1, 7, 8, 9, 7], [NaN, NaN, NaN, NaN, 0.5, 0.25, 0.5, 0.25]);
  assert.equal(topToken(partial, { row: 0, col: 1 }), -1);
  assert.deepEqual(topTokens(partial, null, { row: 0, col: 1 }), []);
  assert.equal(valuePicture(partial, { metric: "entropy", palette, drawn, runs: [partial] }).colour(0, 1), null);
});

test("rows that come one after the other make the whole reading, and those of another begin anew", () => {
  const row = (reading, at, tops, shares, entropy, texts) => ({
    id: 1, reading, row: at, rows: ["emb", "0"], top: array(Int32Array, "int32", [1, 2, 2], tops), p: array(Float32Array, "float32", [1, 2, 2], shares),
    target: array(Int32Array, "int32", [2], [7, 8]), metrics: { entropy: array(Float32Array, "float32", [1, 2], entropy) }, units: { entropy: "nats" }, texts,
  });
  const upper = withRows(before, row(3, 1, [7, 8, 9, 7], [0.5, 0.25, 0.5, 0.25], [2, 1], { 7: "␣cat", 9: "␣cow" }));
  assert.equal(topToken(upper, { row: 0, col: 0 }), -1);
  assert.equal(topToken(upper, { row: 1, col: 1 }), 9);
  const whole = withRows(upper, row(3, 0, [7, 8, 8, 9], [0.5, 0.25, 0.5, 0.25], [4, 3], { 7: "␣cat", 8: "␣dog" }));
  const { filling, ...rest } = whole;
  assert.equal(filling, 3);
  assert.deepEqual(rest, before);
  assert.equal(topToken(withRows(whole, row(4, 1, [8, 7, 8, 7], [0.5, 0.25, 0.5, 0.25], [1, 1], {})), { row: 0, col: 0 }), -1);
  assert.equal(withRows(before, null), before);
});

test("an empty trait is no reading", () => {
  for (const nothing of [null, undefined, {}]) assert.equal(readLens(nothing), null);
});

test("a value that is not known is written as a dash and paints no colour of the scale", () => {
  assert.equal(writeMetric("entropy", NaN), "–");
  assert.equal(writeMetric("kl", undefined), "–");
  assert.deepEqual(valuePicture(before, { metric: "kl", palette, drawn, runs: [before] }).colour(0, 0), [255, 255, 255]);
  assert.equal(valuePicture(before, { metric: "kl", palette, drawn, runs: [before] }).legend.note, "not computed yet");
});

test("values are written in their units", () => {
  assert.deepEqual([writeMetric("probability", 0.5), writeMetric("rank", 12345), writeMetric("log_probability", -1.5)], ["50.0%", "12,345", "−1.500"]);
});

test("every scale runs from 0 to 1 with its ticks in order", () => {
  for (const [metric, low, high] of [["probability", 0, 1], ["log_probability", -6, 0], ["entropy", 0, 6], ["rank", 40_000, 0], ["kl", 0, 200], ["cross_entropy", 0, 9]]) {
    const { share, ticks } = metricScale(metric, Math.max(Math.abs(low), Math.abs(high)));
    assert.deepEqual([share(low), share(high)].map((value) => Math.round(1e6 * value) / 1e6), [0, 1], metric);
    const places = ticks.map((tick) => tick.at);
    assert.deepEqual(places, [...places].sort((a, b) => a - b), metric);
    assert.deepEqual([places[0], places.at(-1)].map(Math.round), [0, 1], metric);
  }
});

test("rank 0 is the top of the scale and a decade below it is one step", () => {
  const { share } = rankScale(999);
  assert.equal(share(0), 1);
  assert.ok(Math.abs(share(9) - share(99) - (share(99) - share(999))) < 1e-9);
});

test("a change of rank is counted in decades, any other as a difference", () => {
  assert.equal(metricChange("rank", 99, 0), 2);
  assert.equal(metricChange("entropy", 1, 3), -2);
  assert.deepEqual(changeLegend("rank", 2).ticks.map((tick) => tick.text), ["÷100", "same", "×100"]);
  assert.deepEqual(changeLegend("entropy", 2).ticks.map((tick) => tick.text), ["−2.00", "0", "+2.00"]);
});

test("the largest size ignores what is not known", () => {
  assert.equal(largestKnown([1, NaN, -3], undefined), 3);
});

test("cells outside the causal cone are hatched, plain and empty", () => {
  const touched = array(Uint8Array, "uint8", [2, 2], [0, 0, 0, 1]);
  const now = lens([7, 8, 8, 9, 7, 8, 7, 9], [0.5, 0.25, 0.5, 0.25, 0.5, 0.25, 0.5, 0.25], { touched, metrics: { entropy: array(Float32Array, "float32", [2, 2], [4, 3, 2, 3]) } });
  const picture = changePicture(before, now, { metric: "entropy", palette, drawn });
  assert.equal(isTouched(now, { row: 0, col: 0 }), false);
  assert.deepEqual([picture.colour(0, 0), picture.text(0, 0)], [[255, 255, 255], ""]);
  assert.deepEqual([picture.colour(1, 1), picture.text(1, 1)], [[255, 0, 0], "␣cat"]);
  assert.deepEqual(picture.marks.map(({ row, col, kind }) => [row, col, kind]), [[0, 0, "hatch"], [0, 1, "hatch"], [1, 0, "hatch"], [1, 1, "corner"]]);
});

test("a cell whose top token is the actual next one is outlined", () => {
  const { marks } = valuePicture(before, { metric: "entropy", palette, drawn, runs: [before] });
  assert.deepEqual(marks.map(({ row, col, kind }) => [row, col, kind]), [[0, 0, "ring"], [0, 1, "ring"], [1, 0, "ring"]]);
});

test("tracked tokens differ in more than colour", () => {
  const looks = Array.from({ length: 12 }, (_, slot) => lineLook(slot));
  assert.equal(new Set(looks.map(({ stroke, dashes }) => stroke + dashes)).size, 12);
  assert.equal(new Set(looks.slice(0, 6).map(({ dashes }) => dashes)).size, 6);
});

test("a displayed token becomes what one would type for it", () => {
  assert.deepEqual(["␣John", "a␣b", "…", "↵", "⟨E2 82⟩", "◌́", "y".repeat(32) + "…" + "y".repeat(31)].map(typedForm), [" John", "a b", "…", "", "", "", ""]);
});

test("rows that an experiment leaves alone are the baseline's, and those of another prompt are not put together", () => {
  const upper = {
    id: 2, row: 1, rows: ["emb", "0"], top: array(Uint16Array, "uint16", [1, 2, 2], [9, 40000, 8, 7]), p: array(Float32Array, "float32", [1, 2, 2], [0.75, 0.125, 0.5, 0.25]),
    target: array(Int32Array, "int32", [2], [7, 8]), metrics: { entropy: array(Float32Array, "float32", [1, 2], [6, 5]) }, units: { entropy: "nats" },
    texts: { 7: "␣cat", 8: "␣dog", 9: "␣cow", 40000: "␣far" }, touched: array(Uint8Array, "uint8", [2, 2], [0, 0, 1, 1]),
  };
  const now = withRowsBefore(upper, before);
  assert.deepEqual([...now.top], [7, 8, 8, 9, 9, 40000, 8, 7]);
  assert.deepEqual([...now.p], [0.5, 0.25, 0.5, 0.25, 0.75, 0.125, 0.5, 0.25]);
  assert.deepEqual([...now.metrics.entropy], [4, 3, 6, 5]);
  assert.deepEqual([0, 1].map((row) => isTouched(now, { row, col: 0 })), [false, true]);
  assert.deepEqual([...before.top], [7, 8, 8, 9, 7, 8, 9, 7]);
  assert.equal(withRowsBefore(upper, { ...before, rows: ["emb", "0", "1"] }), null);
  assert.equal(withRowsBefore(upper, null), null);
  assert.deepEqual(withRowsBefore({ ...upper, row: 0 }, null).rows, ["emb", "0"]);
});
