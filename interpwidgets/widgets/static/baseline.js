// What the views compare with: the model as it is, or the experiments that are pinned as the baseline.

/** @typedef {import("./wire.js").Model} Model */

/** @param {Model} model @returns {{labels: string[], differs: boolean}} what acts in the baseline, in words; and whether something else acts now */
export function pinnedIn(model) {
  return { labels: [], differs: false, ...model.get("_pinned") };
}

/** @param {Model} model @returns {string} what acts in the baseline */
export function baselineWords(model) {
  return pinnedIn(model).labels.join(", ") || "the model as it is";
}

/** @param {Model} model @returns {string} what a run is called that is compared with the baseline */
export function nowWords(model) {
  const acts = (model.get("_experiments") ?? []).some((/** @type {{on: boolean}} */ experiment) => experiment.on);
  return acts || !pinnedIn(model).labels.length ? "with experiments" : "the model as it is";
}

/** @param {Model} model @param {string} [untouched] what is said of it without a pinned baseline @returns {string} what a place is that does not differ from the baseline */
export function untouchedWords(model, untouched = "untouched: the experiments do not reach it") {
  return pinnedIn(model).labels.length ? "the same as in the baseline" : untouched;
}
