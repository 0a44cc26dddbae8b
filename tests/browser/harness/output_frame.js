// What is inside of an output's frame: a manager of models that knows nothing but messages, and the views that the cell shows.

/** Puts each buffer where it belongs, in the form that this front end has for binary values. */
function withBuffers({ state, buffer_paths: paths = [] }, buffers, form) {
  paths.forEach((path, index) => {
    if (form === "none") return;
    const place = path.slice(0, -1).reduce((value, key) => value[key], state);
    const bytes = Uint8Array.from(atob(buffers[index]), (character) => character.charCodeAt(0));
    place[path.at(-1)] = form === "base64" ? buffers[index] : form === "ArrayBuffer" ? bytes.buffer : new DataView(bytes.buffer);
  });
  return state;
}

/** ipywidgets' model, 7 and 8 alike: one message at a time, and changes made meanwhile become one message. */
function createModel(id, state, send) {
  const handlers = new Map();
  let changed = {};
  /** Ids of messages: other frames hear of theirs here, too. */
  const unanswered = new Set();
  let held = null;
  const fire = (event) => [...(handlers.get(event) ?? [])].forEach((handler) => handler());
  const post = (diff) => {
    const number = Math.random();
    unanswered.add(number);
    send({ id: number, comm: id, data: { method: "update", state: structuredClone(diff), buffer_paths: [] } });
  };
  return {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      changed[name] = value;
      fire(`change:${name}`);
    },
    save_changes() {
      if (unanswered.size) held = { ...held, ...changed };
      else post(changed);
      changed = {};
    },
    on: (event, handler) => handlers.set(event, (handlers.get(event) ?? new Set()).add(handler)),
    off: (event, handler) => handlers.get(event)?.delete(handler),
    send: (content) => send({ id: Math.random(), comm: id, data: { method: "custom", content } }),
    update(changes) {
      Object.assign(state, changes);
      Object.keys(changes).forEach((name) => fire(`change:${name}`));
    },
    idle(number) {
      unanswered.delete(number);
      if (!held || unanswered.size) return;
      post(held);
      held = null;
    },
    close: () => fire("comm:close"),
  };
}

const models = new Map();
/** How this front end gives binary values; none until the page has said so. */
let form = "";
const send = (message) => parent.postMessage({ type: "send", message }, "*");

function take(message) {
  const { type, comm, data, buffers, to } = message;
  const model = models.get(comm);
  if (type === "comm_open") models.set(comm, createModel(comm, withBuffers(structuredClone(data), buffers, form), send));
  else if (type === "idle") model?.idle(to);
  else if (type === "comm_close") model?.close();
  // Neither the echo of what the page sent (new in ipywidgets 8) nor custom messages.
  else if (data?.method === "update") model?.update(withBuffers(data, buffers, form));
}

async function show({ id, html }) {
  if (html) {
    document.body.append(document.createRange().createContextualFragment(html));
    return;
  }
  const model = models.get(id);
  const style = document.createElement("style");
  style.textContent = model.get("_css");
  document.head.append(style);
  const url = URL.createObjectURL(new Blob([model.get("_esm")], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  const el = document.createElement("div");
  document.body.append(el);
  await widget.render({ model, el, signal: new AbortController().signal });
}

addEventListener("message", async ({ data }) => {
  if (data.type === "kernel" && form) take(data.message);
  if (data.type === "theme") window.setTheme(data.dark);
  if (data.type !== "open") return;
  form = data.form;
  data.messages.forEach(take);
  for (const output of data.outputs) await show(output);
});
