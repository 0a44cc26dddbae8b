// The arithmetic behind the widgets, without a browser: arrays, ids, tokens, grids, colours.
import assert from "node:assert/strict";
import test from "node:test";

const from = (name) => import(new URL(`../../interpwidgets/widgets/static/${name}`, import.meta.url).href);
const { decode, nextId } = await from("wire.js");
const { ramp, rgba, inkOn, colourAt, rootTicks } = await from("color.js");
const { elide, isolated, tokenTitle } = await from("tokens.js");
const { stepInGrid } = await from("surface.js");
const { percent } = await from("predictions.js");
const { editableText, readTyped } = await from("prompt.js");

const numbers = new Float32Array([0.5, -1, 3.25, 1e-7]);
const bytes = new Uint8Array(numbers.buffer);

test("an array decodes the same from a view at any offset, a buffer and base64", () => {
  for (const offset of [0, 1, 4, 7]) {
    const padded = new Uint8Array(bytes.length + offset + 5);
    padded.set(bytes, offset);
    const view = new DataView(padded.buffer, offset, bytes.length);
    assert.deepEqual([...decode({ view, dtype: "float32", shape: [2, 2] }).data], [...numbers]);
  }
  assert.deepEqual([...decode({ view: bytes.buffer, dtype: "float32", shape: [4] }).data], [...numbers]);
  assert.deepEqual([...decode({ view: btoa(String.fromCharCode(...bytes)), dtype: "float32", shape: [4] }).data], [...numbers]);
  const small = new DataView(new Uint8Array([9, 0, 128, 255]).buffer, 1, 3);
  assert.deepEqual([...decode({ view: small, dtype: "uint8", shape: [3] }).data], [0, 128, 255]);
});

test("an array whose bytes were lost is refused, and an empty one is not", () => {
  for (const lost of [{}, { view: null }, { view: undefined }]) assert.throws(() => decode({ ...lost, dtype: "uint8", shape: [2] }), /binary part/);
  for (const view of ["", new ArrayBuffer(0), new DataView(new ArrayBuffer(0))]) assert.equal(decode({ view, dtype: "float32", shape: [0] }).data.length, 0);
});

test("nothing sent decodes to null and a short array is refused", () => {
  for (const nothing of [null, undefined, {}]) assert.equal(decode(nothing), null);
  assert.throws(() => decode({ view: bytes.buffer, dtype: "float32", shape: [5] }), /needs 20 bytes, got 16/);
});

test("request ids rise although the clock stands still or runs behind", () => {
  assert.equal(nextId(0, 1000), 1000);
  assert.equal(nextId(1000, 1000), 1001);
  assert.equal(nextId(5000, 1000), 5001);
});

test("long tokens lose their middle, never their ends", () => {
  assert.equal(elide("␣store", 10), "␣store");
  assert.equal(elide("␣antidisestablishmentarianism", 9), "␣ant…nism");
  assert.equal([...elide("🐈🐈🐈🐈🐈🐈", 3)].length, 3);
  assert.equal(tokenTitle({ id: 1, text: "<s>", special: true }, 0), "position 0 · <s> · id 1 · special token");
  assert.equal(tokenTitle({ id: 28, text: "␣the", raw: "Ġthe" }, 3), "position 3 · ␣the · id 28 · raw Ġthe");
  assert.equal(tokenTitle({ id: 5, text: "cat", raw: "cat" }, 4), "position 4 · cat · id 5");
});

test("keys move inside the grid and stop at its edges, upward grids the other way", () => {
  const grid = { rows: 3, cols: 4 };
  assert.deepEqual(stepInGrid("ArrowDown", { row: 0, col: 0 }, grid), { row: 1, col: 0 });
  assert.deepEqual(stepInGrid("ArrowUp", { row: 0, col: 0 }, grid), { row: 0, col: 0 });
  assert.deepEqual(stepInGrid("ArrowUp", { row: 0, col: 0 }, { ...grid, upward: true }), { row: 1, col: 0 });
  assert.deepEqual(stepInGrid("End", { row: 2, col: 0 }, grid), { row: 2, col: 3 });
  assert.equal(stepInGrid("a", { row: 0, col: 0 }, grid), null);
});

test("a palette runs through its stops and is clipped at its ends", () => {
  const colours = ramp([[0, 0, 0], [100, 0, 0], [200, 0, 0]]);
  assert.deepEqual([colours[0], colours[255]], [[0, 0, 0], [200, 0, 0]]);
  assert.deepEqual(colourAt(colours, 7), [200, 0, 0]);
  assert.deepEqual(colourAt(colours, -1), [0, 0, 0]);
  assert.deepEqual(rgba("#0b62d6"), [11, 98, 214]);
  assert.deepEqual(rgba("#fff"), [255, 255, 255]);
  assert.deepEqual(rgba("rgba(1, 2, 3, 0.5)"), [1, 2, 3, 0.5]);
});

test("ink on any grey keeps a contrast of at least 4.5", () => {
  const wcag = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  for (let grey = 0; grey < 256; grey += 1) {
    const [behind, ink] = [wcag(grey), inkOn([grey, grey, grey]) === "#ffffff" ? 1 : 0];
    assert.ok((Math.max(behind, ink) + 0.05) / (Math.min(behind, ink) + 0.05) >= 4.5, `grey ${grey}`);
  }
});

test("ticks of a square-root scale stand where the colour bar has their values", () => {
  assert.deepEqual(rootTicks(1, false).map(({ text }) => text), ["0", ".06", ".25", ".56", "1.00"]);
  assert.deepEqual(rootTicks(0.4, true).map(({ at, text }) => [at, text]), [[0, "−.40"], [0.25, "−.10"], [0.5, "0"], [0.75, "+.10"], [1, "+.40"]]);
  assert.deepEqual(rootTicks(0.01, true).map(({ text }) => text), ["−.010", "0", "+.010"]);
});

test("probabilities are written so that small is never zero and missing is never small", () => {
  assert.deepEqual([0.84, 0.001, 0.0009, 0, null].map(percent), ["84.0%", "0.1%", "<0.1%", "<0.1%", "–"]);
});

test("the editor starts from the text as it is, or from ids where there is no tokenizer", () => {
  assert.equal(editableText({ text: " to ", bos: "", tokens: [] }), " to ");
  assert.equal(editableText({ text: null, bos: "", tokens: [{ id: 3, text: "3" }, { id: 5, text: "5" }] }), "3, 5");
});

test("what is typed is ids where ids stood and nothing but ids is typed, and text otherwise", () => {
  const [ids, text] = [{ text: null, bos: "", tokens: [{ id: 3, text: "3" }] }, { text: "3", bos: "", tokens: [{ id: 9, text: "3" }] }];
  assert.deepEqual(readTyped(ids, " 5, 17 3"), [5, 17, 3]);
  assert.deepEqual(readTyped({ ...ids, text: [5, 17] }, "8"), [8]);
  for (const typed of ["5, x", "-5", "The 5", "", " , "]) assert.equal(readTyped(ids, typed), typed);
  assert.equal(readTyped(text, "5, 17"), "5, 17");
  assert.equal(editableText({ ...ids, text: [5, 17] }), "5, 17");
});

test("a token that runs from right to left is isolated, and a part stays behind its character", () => {
  assert.equal(isolated("␣store"), "␣store");
  assert.equal(isolated("␣שלום"), "\u2068␣שלום\u2069");
  assert.equal(elide("⟨é 1/2⟩", 10), "⟨é 1/2⟩");
  assert.equal(elide("⟨ש 1/2⟩", 10), "⟨\u2068ש\u2069 1/2⟩");
});
