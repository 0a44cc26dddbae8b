// The wire to Python: requests with rising ids, their status, results that are never older than what is shown, binary arrays.

/**
 * What every anywidget host gives a view.
 * @typedef {{get(name: string): any, set(name: string, value: any): void, save_changes(): void,
 *   send(content: unknown): void, on(event: string, handler: () => void): void, off(event: string, handler: () => void): void}} Model
 * @typedef {{id: number, state: "idle" | "queued" | "running" | "error" | "cancelled" | "closed", done: number, total: number,
 *   message: string, detail?: string, ms: number, error: null | {title: string, text: string, hint: string}}} Status
 * @typedef {{view?: DataView | ArrayBuffer | ArrayBufferView | string, dtype: "uint8" | "uint16" | "float32" | "int32", shape: number[], triangle?: boolean}} WireArray
 *   `triangle`: of the last two axes only what is not above the diagonal was sent
 * @typedef {{data: Uint8Array | Uint16Array | Float32Array | Int32Array, shape: number[]}} Decoded
 * @typedef {ReturnType<typeof connect>} Wire
 */

const LOST = "The binary part of a message was lost on its way: the front end, or what stands between it and the kernel, does not pass on buffers of widgets.";

/** Milliseconds without a word from a kernel that has something to do. */
const SILENCE = 30_000;

/** Milliseconds after which a request is not said again. */
const MOST_WAIT = 10_000;

/**
 * Decode an array as it came: a view into a larger buffer, a buffer of its own, or base64 (offline pages).
 * @param {WireArray | null | undefined} array
 * @returns {Decoded | null} null when nothing was sent (traitlets turns a missing dict into {})
 */
export function decode(array) {
  if (!array?.shape) return null;
  const { view, shape } = array;
  if (view === undefined || view === null) throw new TypeError(LOST);
  const side = shape[shape.length - 1];
  const bytes =
    typeof view === "string" ? Uint8Array.from(atob(view), (character) => character.charCodeAt(0))
    : view instanceof ArrayBuffer ? new Uint8Array(view)
    : new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const whole = shape.reduce((product, size) => product * size, 1);
  const count = array.triangle && side ? (whole / side ** 2) * ((side * (side + 1)) / 2) : whole;
  const finish = (/** @type {Decoded["data"]} */ data) => ({ data: array.triangle ? filledUp(data, whole, side) : data, shape });
  if (array.dtype === "uint8") return finish(bytes.subarray(0, count));
  const Kind = { float32: Float32Array, int32: Int32Array, uint16: Uint16Array }[array.dtype];
  const needed = count * Kind.BYTES_PER_ELEMENT;
  if (bytes.byteLength < needed) throw new RangeError(`array of shape ${shape} needs ${needed} bytes, got ${bytes.byteLength}`);
  // A typed array must start at a multiple of its numbers' size; a slice of a message need not.
  const aligned = bytes.byteOffset % Kind.BYTES_PER_ELEMENT ? bytes.slice() : bytes;
  return finish(new Kind(/** @type {ArrayBuffer} */ (aligned.buffer), aligned.byteOffset, count));
}

/**
 * Square matrices from their lower triangles, with zeros above.
 * @template {Decoded["data"]} T
 * @param {T} packed @param {number} length of the result @param {number} side of one matrix
 * @returns {T}
 */
function filledUp(packed, length, side) {
  const filled = new (/** @type {new (length: number) => T} */ (packed.constructor))(length);
  for (let from = 0, to = 0, row = 0; to < length; from += row + 1, to += side, row = (row + 1) % side) filled.set(packed.subarray(from, from + row + 1), to);
  return filled;
}

/**
 * The id of the next request: later than the clock and than any id seen, so that a reloaded page never reuses one.
 * @param {number} last
 * @param {number} now milliseconds
 * @returns {number}
 */
export function nextId(last, now) {
  return Math.max(now, last + 1);
}

/**
 * @param {Model} model
 * @param {AbortSignal} signal
 * @param {number} [patience] milliseconds without an acknowledgement before the kernel counts as gone
 */
export function connect(model, signal, patience = 3000) {
  /** @type {Set<() => void>} */
  const watchers = new Set();
  /** What handlers of traits have thrown, until they succeed. @type {Map<() => void, unknown>} */
  const broken = new Map();
  let connected = true;
  let timer = 0;
  let again = 0;
  const requested = () => Number(model.get("_request")?.id ?? 0);
  /** @returns {Status} */
  const status = () => ({ id: 0, state: "idle", done: 0, total: 0, message: "", ms: 0, error: null, ...model.get("_status") });
  const notify = () => watchers.forEach((watcher) => watcher());

  /** @param {() => void} handler is run; what it throws is kept, to be drawn */
  const take = (handler) => {
    const before = broken.size;
    try {
      handler();
      broken.delete(handler);
    } catch (error) {
      broken.set(handler, error);
      reportError(error);
    }
    if (before || broken.size) notify();
  };
  /** @param {string | string[]} names @param {() => void} handler */
  const on = (names, handler) => {
    for (const name of [names].flat()) {
      const handle = () => take(handler);
      model.on(`change:${name}`, handle);
      signal.addEventListener("abort", () => model.off(`change:${name}`, handle));
    }
  };
  const pending = () => status().id < requested() || ["queued", "running"].includes(status().state);
  const lost = () => {
    connected = status().id >= requested();
    notify();
  };
  /**
   * A host sends a trait when what it sent before is dealt with, which may stand behind a cell that runs.
   * @param {number} id @param {number} wait milliseconds, each time twice as long
   */
  const sayAgain = (id, wait) => {
    again = window.setTimeout(async () => {
      if (status().id >= id || wait > MOST_WAIT) return;
      sayAgain(id, 2 * wait);
      try {
        await model.send({ request: model.get("_request") });
      } catch {
        // The channel is closed, which is drawn.
      }
    }, wait);
  };
  let silent = false;
  let silence = 0;
  const listen = () => {
    clearTimeout(silence);
    silent = false;
    if (pending()) silence = window.setTimeout(() => {
      silent = true;
      notify();
    }, SILENCE);
  };
  // Watching the trait, not only our own calls: another view of this model waits for the same answer.
  on("_request", () => {
    clearTimeout(timer);
    timer = window.setTimeout(lost, patience);
    listen();
    notify();
  });
  on("_status", () => {
    if (status().id >= requested()) {
      clearTimeout(timer);
      connected = true;
    }
    listen();
    notify();
  });
  listen();
  signal.addEventListener("abort", () => [timer, again, silence].forEach(clearTimeout));
  // A closed channel takes the views away; the host would count them down through it, and throw.
  const closed = () => model.set("_view_count", null);
  model.on("comm:close", closed);
  signal.addEventListener("abort", () => model.off("comm:close", closed));

  return {
    model,
    on,
    status,
    /** False once a request stayed unacknowledged: the kernel is gone, or this is a saved page. */
    connected: () => connected,
    /** True while what is shown is not the answer to the newest request. */
    pending,
    /** True while something runs of which nothing has been heard for long. */
    silent: () => silent,
    /** True when the last run failed or was stopped, so that the picture answers an older request. */
    failed: () => !!status().error || status().state === "cancelled",
    /** Why what came cannot be drawn; "" if it can. */
    broken: () => [...broken.values()].map((error) => (error instanceof Error ? error.message : String(error)))[0] ?? "",
    /** @param {() => void} watcher called whenever status, request or connection changes */
    watch: (watcher) => void watchers.add(watcher),
    /**
     * Ask Python for something.
     * @param {string} op
     * @param {Record<string, unknown>} [args]
     * @returns {number} the id that the answer will carry
     */
    request(op, args = {}) {
      const answered = status().id;
      const id = nextId(Math.max(requested(), answered), Date.now());
      // While the kernel is busy, ipywidgets keeps only the last value of a trait: each request carries those that may not have got through.
      const { before = [], ...last } = model.get("_request") ?? {};
      const waiting = [...before, last].filter((request) => request.id > answered);
      model.set("_request", { id, op, ...args, ...(waiting.length ? { before: waiting } : {}) });
      model.save_changes();
      clearTimeout(again);
      sayAgain(id, patience / 3);
      return id;
    },
    /**
     * Change a setting that Python watches.
     * @param {string} name
     * @param {unknown} value
     */
    set(name, value) {
      model.set(name, value);
      model.save_changes();
    },
    /**
     * Follow a result trait; a result older than the newest seen is dropped.
     * @template T
     * @param {string} name
     * @param {(result: T) => void} show called for what is there already and for every newer one
     */
    results(name, show) {
      let newest = -Infinity;
      const follow = () => {
        const result = model.get(name);
        if (result?.id === undefined || result.id < newest) return;
        newest = result.id;
        show(result);
      };
      on(name, follow);
      take(follow);
    },
  };
}
