// What is pointed at in one widget, shown in those that are linked with it: from page to page, without the kernel.

/** @typedef {{layer: number | null, head: number | null, position: number | null}} Place all null: nothing is pointed at */

/** @type {Place} */
const NOWHERE = { layer: null, head: null, position: null };

/**
 * @param {import("./wire.js").Model} model its `_links` say with whom
 * @param {AbortSignal} signal
 * @param {(place: Place) => void} show what is pointed at elsewhere
 * @returns {(place: Partial<Place> | null) => void} tells the others what is pointed at here
 */
export function followHover(model, signal, show) {
  if (typeof BroadcastChannel === "undefined") return () => {};
  const channel = new BroadcastChannel("interpwidgets-hover");
  const from = crypto.getRandomValues(new Uint32Array(2)).join("-");
  let told = JSON.stringify(NOWHERE);
  /** @type {unknown} whose place is shown */
  let source = null;
  /** @type {string[]} the links by which it came */
  let through = [];
  const links = () => /** @type {string[]} */ (model.get("_links") ?? []);
  channel.onmessage = ({ data }) => {
    // Any page of this origin may speak here.
    if (!Array.isArray(data?.links) || !data.links.some((/** @type {any} */ link) => links().includes(link))) return;
    const [layer, head, position] = [data.layer, data.head, data.position].map((value) => (Number.isInteger(value) && value >= -1 ? value : null));
    const leaves = layer === null && head === null && position === null;
    // Messages of two widgets may cross: one that is left lets go only of what it showed.
    if (leaves && source !== data.from) return;
    [source, through] = [leaves ? null : data.from, data.links];
    show({ layer, head, position });
  };
  const unlinked = () => {
    if (source === null || through.some((link) => links().includes(link))) return;
    source = null;
    show(NOWHERE);
  };
  model.on("change:_links", unlinked);
  /** @param {Partial<Place> | null} place */
  const tell = (place) => {
    const said = { ...NOWHERE, ...place };
    const text = JSON.stringify(said);
    if (text === told || !links().length) return;
    told = text;
    channel.postMessage({ links: links(), from, ...said });
  };
  signal.addEventListener("abort", () => {
    model.off("change:_links", unlinked);
    tell(null);
    channel.close();
  });
  return tell;
}
