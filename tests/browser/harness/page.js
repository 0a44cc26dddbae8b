// A widget's host without Jupyter: a model that records what it is sent, views that can be opened and closed, binary traits in any form.

/** @param {any} value @param {string} form */
function revive(value, form) {
  if (Array.isArray(value)) return value.map((item) => revive(item, form));
  if (value === null || typeof value !== "object") return value;
  if (typeof value.base64 !== "string") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revive(item, form)]));
  const { base64, ...rest } = value;
  if (form === "base64") return { view: base64, ...rest };
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  if (form === "buffer") return { view: bytes.buffer, ...rest };
  const padded = new Uint8Array(bytes.length + 7);
  padded.set(bytes, 3);
  return { view: new DataView(padded.buffer, 3, bytes.length), ...rest };
}

/** @param {any} state @param {string} form */
function createModel(state, form) {
  const handlers = new Map();
  const sent = [];
  let pending = {};
  const fire = (event) => [...(handlers.get(event) ?? [])].forEach((handler) => handler());
  return {
    sent,
    count: () => [...handlers.values()].reduce((sum, set) => sum + set.size, 0),
    push(changes) {
      Object.assign(state, revive(changes, form));
      Object.keys(changes).forEach((name) => fire(`change:${name}`));
    },
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      pending[name] = value;
      fire(`change:${name}`);
    },
    save_changes() {
      sent.push(pending);
      pending = {};
    },
    send: (content) => sent.push({ message: content }),
    on: (event, handler) => handlers.set(event, (handlers.get(event) ?? new Set()).add(handler)),
    off: (event, handler) => handlers.get(event)?.delete(handler),
  };
}

window.harness = {
  /** @param {{esm: string, css: string, state: any, form?: string, signal?: boolean}} spec */
  async mount({ esm, css, state, form = "view", signal = true }) {
    const style = document.createElement("style");
    style.textContent = css;
    document.head.append(style);
    const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
    const { default: widget } = await import(url);
    const model = createModel(revive(state, form), form);
    const views = [];
    window.harness.model = model;
    window.harness.open = async () => {
      const el = document.createElement("div");
      const ending = new AbortController();
      const cleanup = await widget.render({ model, el, ...(signal ? { signal: ending.signal } : {}) });
      // JupyterLab renders into a detached element and attaches it later.
      document.querySelector("main").append(el);
      views.push({ el, close: () => (signal ? ending.abort() : cleanup()) });
    };
    window.harness.close = (index) => views[index].close();
    await window.harness.open();
  },
};
