// Folding positions into bands, and opening them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { bandLabel, bandName, createFold, foldedSpans } from "../../interpwidgets/widgets/static/bands.js";
import { bandValue, readBands } from "../../interpwidgets/widgets/static/lens_bands.js";

const edges = (length, width = 16) => [...Array.from({ length: Math.ceil(length / width) }, (_, band) => band * width), length];

test("every position is in one column, whatever is open", () => {
  for (const length of [65, 1024, 1025, 4096]) {
    for (const isOpen of [() => false, ([first]) => first % 64 === 0, () => true]) {
      const spans = foldedSpans(edges(length), isOpen);
      assert.equal(spans[0][0], 0);
      assert.equal(spans.at(-1)[1], length);
      spans.slice(1).forEach(([first], index) => assert.equal(first, spans[index][1]));
      if (!isOpen([0, 1])) assert.ok(spans.length <= 64);
    }
  }
});

test("opening one band folds the others, and with Shift it does not", () => {
  const fold = createFold();
  fold.update(edges(100), 100);
  assert.equal(fold.spans().length, 7);
  assert.ok(fold.open(1));
  assert.deepEqual(fold.spans()[1], [16, 17]);
  assert.equal(fold.indexOf(40), 1 + 16);
  assert.ok(fold.open(fold.indexOf(40)));
  assert.equal(fold.spans().length, 6 + 16);
  assert.equal(fold.isBand(fold.indexOf(16)), true);
  assert.ok(fold.open(0, true));
  assert.equal(fold.spans().length, 5 + 32);
  assert.deepEqual(fold.close(), [0, 16]);
  fold.closeAll();
  assert.equal(fold.spans().length, 7);
  assert.equal(fold.close(), null);
});

test("a joined column opens into bands and they into positions, and folding it folds them", () => {
  const fold = createFold();
  fold.update(edges(4096), 4096);
  assert.deepEqual(fold.spans()[1], [64, 128]);
  fold.reveal(70);
  assert.deepEqual(fold.spans()[fold.indexOf(70)], [70, 71]);
  assert.deepEqual(fold.spans()[fold.indexOf(81)], [80, 96]);
  fold.close();
  assert.deepEqual(fold.spans()[fold.indexOf(70)], [64, 80]);
  fold.close();
  assert.equal(fold.spans().length, 64);
});

test("what is the same in both prompts is one column that does not open", () => {
  const fold = createFold();
  fold.update([0, 1000, ...edges(1100).map((edge) => edge + 1000).slice(1)], 2100, 1);
  assert.deepEqual(fold.spans()[0], [0, 1000]);
  assert.deepEqual(fold.spans()[1], [1000, 1032]);
  assert.equal(fold.open(0), false);
});

test("another prompt closes what was open, the same bands leave it", () => {
  const fold = createFold();
  fold.update(edges(100), 100);
  fold.open(0);
  assert.equal(fold.update(edges(100), 100), false);
  assert.equal(fold.anyOpen(), true);
  assert.equal(fold.update(edges(101), 101), true);
  assert.equal(fold.anyOpen(), false);
  fold.update(null, 3);
  assert.deepEqual(fold.spans(), [[0, 1], [1, 2], [2, 3]]);
});

test("a band's label keeps its numbers whole and as much of the token as fits", () => {
  assert.equal(bandName([16, 32]), "16–31");
  assert.equal(bandLabel([1008, 1024], "antidisestablishment").text, "1008–1023 a…t");
  assert.equal(bandLabel([0, 16], "␣the").text, "0–15 ␣the");
});

test("a column of several bands shows the one that its metric asks for, and 255 is nothing known", () => {
  const coded = (codes, kept, log = false) => ({ codes: { view: Uint8Array.from(codes).buffer, dtype: "uint8", shape: [1, 3] }, low: kept === "farthest" ? -1 : 0, high: 1, log, kept });
  const reading = readBands({
    id: 1, reading: 3, rows: ["emb"], k: 1, edges: [0, 16, 32, 40], most: {}, units: {},
    bands: { probability: coded([0, 254, 127], "mean"), kl: coded([0, 254, 255], "largest"), entropy: coded([254, 127, 255], "smallest"), rank: coded([254, 255, 255], "smallest", true) },
    changes: { probability: coded([0, 254, 127], "farthest"), entropy: coded([127, 0, 190], "farthest") },
  });
  assert.equal(bandValue(reading, "bands", "kl", 0, [0, 32]), 1);
  assert.equal(bandValue(reading, "bands", "probability", 0, [0, 40]), (16 * 0 + 16 * 1 + 8 * 0.5) / 40);
  assert.equal(bandValue(reading, "bands", "entropy", 0, [0, 40]), 0.5);
  assert.ok(Number.isNaN(bandValue(reading, "bands", "entropy", 0, [32, 40])));
  assert.ok(Math.abs(bandValue(reading, "bands", "rank", 0, [0, 16]) - Math.expm1(1)) < 1e-9);
  assert.equal(bandValue(reading, "changes", "entropy", 0, [0, 40]), -1);
  assert.ok(Number.isNaN(bandValue(reading, "bands", "kl", 0, [32, 40])));
  assert.ok(Number.isNaN(bandValue(reading, "bands", "cross_entropy", 0, [0, 16])));
});
