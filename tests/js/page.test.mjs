// A page without a kernel: which recorded result answers a request, and what it says when none does.
import assert from "node:assert/strict";
import { test } from "node:test";
import { asPython, canonical, createOfflineModel, experimentsAfter, recordedAnswer } from "../../interpwidgets/widgets/static/page.js";

const ablation = { code: "iw.Ablate('z', layer=1, head=2)", on: true };
const request = { op: "ablate", layer: 1, head: 2 };
const makes = { [canonical(request)]: ablation.code };
const result = (question, experiments = [], traits = {}) => ({ question, experiments, label: "", traits });
const part = (name, results, rest = {}) => ({ name, esm: "", results, makes, answers: {}, chooses: {}, owners: {}, table: null, ...rest });
/** A model of a page, with what it says, and the files that it hands over, in order. */
function opened(of, values = []) {
  const [said, files] = [[], []];
  const model = createOfflineModel(of, values, (code) => said.push(code), () => {});
  model.on("change:_saved", () => model.get("_saved").id !== undefined && files.push(model.get("_saved")));
  const ask = (id, rest) => {
    model.set("_request", { id, ...rest });
    model.save_changes();
  };
  return { model, said, files, ask };
}

test("requests are compared whatever the order of their names", () => {
  assert.equal(canonical({ b: [1, { d: null, c: "é" }], a: true }), '{"a":true,"b":[1,{"c":"é","d":null}]}');
});

test("values are written as Python", () => {
  assert.equal(asPython([1, null, true, { a: 'x"y' }]), '[1, None, True, {"a": "x\\"y"}]');
});

test("a click that makes an experiment takes it back the second time", () => {
  const after = experimentsAfter([], "ablate", { head: 2, layer: 1 }, makes);
  assert.deepEqual(after, [ablation]);
  assert.deepEqual(experimentsAfter(after, "ablate", { layer: 1, head: 2 }, makes), []);
  const off = experimentsAfter(after, "toggle", { index: 0 }, makes);
  assert.deepEqual(off, [{ ...ablation, on: false }]);
  assert.deepEqual(experimentsAfter(off, "ablate", { layer: 1, head: 2 }, makes), after);
  assert.deepEqual(experimentsAfter(after, "remove", { index: 0 }, makes), []);
  assert.equal(experimentsAfter(after, "ablate", { layer: 9, head: 2 }, makes), null);
});

test("another setting is answered by the result that differs in nothing else", () => {
  const shown = result({ site: "z", metric: "logit_diff", cells: [{ layer: 1 }] });
  const others = [result({ site: "k", metric: "kl", cells: null }), result({ site: "k", metric: "logit_diff", cells: null })];
  assert.equal(recordedAnswer([shown, ...others], shown, "set", { site: "k" }, {}), others[1]);
  assert.equal(recordedAnswer([shown, others[0]], shown, "set", { site: "k" }, {}), null);
});

test("an empty list of cells is no cell at all", () => {
  const [without, shown] = [result({ cells: null }), result({ cells: [{ layer: 1 }] })];
  assert.equal(recordedAnswer([without, shown], shown, "patch", { cells: [] }, {}), without);
});

test("an answer is never older than its request, and a refusal leaves the picture", () => {
  const values = [{ id: 7, picture: "one" }, { id: 9, picture: "two" }];
  const results = [result({}, [], { _picture: 0 }), result({}, [ablation], { _picture: 1 })];
  const { model, said, ask } = opened(part("widget", results, { chooses: { select: ["layer"] } }), values);
  ask(100, request);
  assert.deepEqual(model.get("_picture"), { id: 100, picture: "one" });
  ask(101, { op: "run", prompt: "x" });
  assert.deepEqual(model.get("_picture"), { id: 101, picture: "one" });
  assert.equal(model.get("_status").id, 101);
  ask(102, { op: "undo" });
  assert.equal(model.get("_picture").picture, "two");
  ask(103, { op: "select", layer: 4 });
  assert.equal(model.get("layer"), 4);
  assert.deepEqual(said, [null, 'widget.run(prompt="x")', null, null]);
});

test("a page's other widgets follow to the run that is shown, each with as much of its own question as there is", () => {
  const values = ["one", "two", "three"];
  const told = [];
  const heatmap = part("heatmap", [
    result({ site: "k", baseline: [] }, [], { _picture: 0 }), result({ site: "z", baseline: [] }, [ablation], { _picture: 1 }), result({ site: "k", baseline: [] }, [ablation], { _picture: 2 }), result({ site: "z", baseline: [] }, [], { _picture: 0 }),
  ]);
  const lens = part("lens", [result({ baseline: [] }, [ablation], { _picture: 1 }), result({ baseline: [] }, [], { _picture: 0 })]);
  const models = [lens, heatmap].map((each) => createOfflineModel(each, values, (code) => told.push(code), (run) => models.forEach((model) => model.follow(run))));
  const ask = (id, rest) => {
    models[0].set("_request", { id, ...rest });
    models[0].save_changes();
  };
  ask(1, request);
  assert.deepEqual(models.map((model) => model.get("_picture")), ["two", "two"]);
  assert.equal(models[1].shown(), 1);
  ask(2, { op: "undo" });
  assert.deepEqual(models.map((model) => model.shown()), [1, 3]);
  models[1].show(2);
  assert.deepEqual(models.map((model) => model.shown()), [0, 2]);
  models[1].set("site", "q");
  models[1].save_changes();
  assert.deepEqual(told.slice(-1), ['heatmap.site = "q"']);
});

test("a table is handed over once, and only of what the page opened with", () => {
  const table = { file: { name: "numbers.csv", text: "1" }, of: { head: 2 } };
  const results = [result({ prompt: "a" }), result({ prompt: "b" }, [], { head: 0 })];
  const { model, said, files, ask } = opened(part("widget", results, { table, chooses: { select: ["head"] } }), [2]);
  ask(1, { op: "to_csv" });
  assert.deepEqual(files, [{ id: 1, name: "numbers.csv", text: "1" }]);
  ask(2, { op: "to_html" });
  ask(3, { op: "select", head: 1 });
  ask(4, { op: "to_csv" });
  ask(5, { op: "select", head: 2 });
  model.show(0);
  ask(6, { op: "to_csv" });
  assert.equal(files.length, 1);
  assert.deepEqual(said.splice(0), [null, "widget.to_html()", null, "widget.to_csv()", null, null, "widget.to_csv()"]);
  model.show(1);
  ask(7, { op: "to_csv" });
  assert.deepEqual(files.map(({ id }) => id), [1, 7]);
});

test("what is not the widget's own is written as that of whose it is", () => {
  const { said, ask } = opened(part("workbench.lens", [result({})], { owners: { pin: "session.interventions" } }));
  ask(1, { op: "pin" });
  ask(2, { op: "run", prompt: "x" });
  assert.deepEqual(said, ["session.interventions.pin()", 'workbench.lens.run(prompt="x")']);
});

test("what was set along with a request that is refused is set back, and nothing else", () => {
  const { model, said, ask } = opened(part("lens", [result({ prompt: "a" }, [], { metric: 0, palette: 1 })]), ["probability", "blue"]);
  model.set("palette", "cividis");
  model.set("metric", "kl");
  ask(1, { op: "compute", metric: "kl" });
  assert.deepEqual(said, ['lens.compute(metric="kl")']);
  assert.deepEqual([model.get("metric"), model.get("palette")], ["probability", "cividis"]);
});

test("a setting that leads to another result takes an older notice away", () => {
  const results = [result({ stack: "encoder" }, [], { stack: 0 }), result({ stack: "cross" }, [], { stack: 1 })];
  const { model, said, ask } = opened(part("widget", results), ["encoder", "cross"]);
  ask(1, { op: "run", prompt: "x" });
  model.set("stack", "encoder");
  model.save_changes();
  assert.deepEqual([model.get("stack"), model.shown()], ["encoder", 0]);
  model.set("stack", "decoder");
  model.save_changes();
  assert.deepEqual(said, ['widget.run(prompt="x")', null, 'widget.stack = "decoder"']);
});
