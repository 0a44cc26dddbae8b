// The metrics of a logit lens: what each says, how a value is written, the scale of its values and of its changes.
import { percent } from "./predictions.js";

/**
 * @typedef {{at: number, text: string}} Tick `at` is 0 to 1 along the colour bar
 * @typedef {{share: (value: number) => number, ticks: Tick[]}} Scale
 */

/** Every metric: its name on the wire, on a button, and in a sentence. */
export const LENS_METRICS = [
  { value: "probability", text: "probability", says: "probability of the top token" },
  { value: "log_probability", text: "log-prob", says: "log-probability of the top token" },
  { value: "entropy", text: "entropy", says: "entropy of the prediction" },
  { value: "rank", text: "rank", says: "rank of the actual token" },
  { value: "kl", text: "KL to last", says: "KL divergence from the last layer" },
  { value: "cross_entropy", text: "cross-entropy", says: "cross-entropy on the actual token" },
];

/** @param {string} metric */
export function metricSays(metric) {
  return LENS_METRICS.find(({ value }) => value === metric)?.says ?? metric;
}

/** @param {string} metric @param {number | undefined} value @returns {string} an en dash for what is not known */
export function writeMetric(metric, value) {
  if (value === undefined || Number.isNaN(value)) return "–";
  if (metric === "probability") return percent(value);
  if (metric === "rank") return Math.round(value).toLocaleString("en");
  return value.toFixed(3).replace("-", "−");
}

/** @param {string} metric @param {number} value as 8 bits give it @returns {string} with no more digits than they bear */
export function writeAbout(metric, value) {
  if (Number.isNaN(value)) return "–";
  if (metric === "probability") return `${Math.round(100 * value)}%`;
  return String(Number(value.toPrecision(2))).replace("-", "−");
}

/** @param {(ArrayLike<number> | undefined)[]} arrays @returns {number} the largest size of a value that is known */
export function largestKnown(...arrays) {
  let most = 0;
  for (const array of arrays) for (let at = 0; at < (array?.length ?? 0); at++) most = Math.max(most, Math.abs(array?.[at] || 0));
  return most;
}

/**
 * Dark is much, except for ranks, where dark is the top.
 * @param {string} metric @param {number} most the largest size of a value
 * @returns {Scale}
 */
export function metricScale(metric, most) {
  if (metric === "probability") return { share: (value) => value, ticks: [0, 0.25, 0.5, 0.75, 1].map((at) => ({ at, text: String(at).replace(/^0\./, ".") })) };
  if (metric === "rank") return rankScale(most);
  if (metric === "kl" || metric === "cross_entropy") return nearLogScale(most);
  const bound = most || 1;
  const write = (/** @type {number} */ value) => (value === 0 ? "0" : value.toFixed(bound < 10 ? 1 : 0));
  if (metric === "log_probability")
    return { share: (value) => 1 + value / bound, ticks: [0, 0.5, 1].map((at) => ({ at, text: at === 1 ? "0" : `−${write((1 - at) * bound)}` })) };
  return { share: (value) => value / bound, ticks: [0, 0.5, 1].map((at) => ({ at, text: write(at * bound) })) };
}

/**
 * Linear near 0 and logarithmic beyond 1: the embedding's row is often ten times everything else.
 * @param {number} most @returns {Scale}
 */
function nearLogScale(most) {
  const bound = Math.max(1, most);
  const share = (/** @type {number} */ value) => Math.log1p(value) / Math.log1p(bound);
  const marks = [0, 1, 10, 100].filter((value) => share(value) < 0.84);
  return { share, ticks: [...marks, bound].map((value) => ({ at: share(value), text: value.toFixed(value < 10 && value % 1 ? 1 : 0) })) };
}

/**
 * A logarithmic scale of 0-based ranks, 1 at rank 0.
 * @param {number} most @returns {Scale}
 */
export function rankScale(most) {
  const worst = Math.max(10, most);
  const share = (/** @type {number} */ rank) => 1 - Math.log1p(rank) / Math.log1p(worst);
  const marks = [worst, 10_000, 1000, 100, 10, 0].filter((rank) => rank === worst || rank === 0 || (rank < worst && share(rank) > 0.16));
  const write = (/** @type {number} */ rank) => (rank < 1000 ? String(Math.round(rank)) : `${Math.round(rank / 1000)}k`);
  return { share, ticks: marks.map((rank) => ({ at: share(rank), text: write(rank) })) };
}

/**
 * How much a value changed: a difference, for ranks the decades between them.
 * @param {string} metric @param {number} now @param {number} before
 */
export function metricChange(metric, now, before) {
  return metric === "rank" ? Math.log10((1 + now) / (1 + before)) : now - before;
}

/** @param {string} metric @param {number} bound the change at both ends @returns {{ticks: Tick[], unit: string}} */
export function changeLegend(metric, bound) {
  const [low, high] = metric === "rank" ? [`÷${Math.round(10 ** bound)}`, `×${Math.round(10 ** bound)}`] : [`−${bound.toFixed(2)}`, `+${bound.toFixed(2)}`];
  const middle = metric === "rank" ? "same" : "0";
  return {
    ticks: [{ at: 0, text: low }, { at: 0.5, text: middle }, { at: 1, text: high }],
    unit: `${metricSays(metric)}: ${metric === "rank" ? "now ÷ baseline, counted from 1" : "now − baseline"}`,
  };
}
