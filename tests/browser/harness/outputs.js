// The page of a notebook whose outputs are frames of another origin: carries messages between them and the kernel.

/**
 * `outputs`: each with the `id` of a model, or with `html`; `perOutput`: a frame for each; `form`: that of binary values; `saved`: what a notebook's file says
 * of its models, for a page that is not connected to a kernel.
 */
window.openNotebook = async function openNotebook({ script, outputs, perOutput, form, saved }) {
  /** All that the kernel said: a frame that opens later must be told. */
  const messages = saved ?? [];
  const frames = [];
  let outgoing = [];
  const say = (message) => frames.forEach((frame) => frame.contentWindow.postMessage(message, "*"));
  window.setTheme = (dark) => say({ type: "theme", dark });
  addEventListener("message", ({ data }) => data.type === "send" && outgoing.push(data.message));

  const open = (shown) => {
    const frame = document.createElement("iframe");
    // Without allow-same-origin the frame has an origin of its own, which nothing else shares.
    frame.setAttribute("sandbox", "allow-scripts");
    frame.srcdoc = `<!doctype html><html lang="en"><title>output</title><body></body><script>${script}<\/script></html>`;
    frame.style.cssText = "width: 100%; height: 900px; border: 0";
    frame.onload = () => frame.contentWindow.postMessage({ type: "open", outputs: shown, form, messages }, "*");
    document.body.append(frame);
    frames.push(frame);
  };
  const take = async () => {
    const mine = outgoing;
    outgoing = [];
    for (const message of await window.exchange(mine)) {
      messages.push(message);
      say({ type: "kernel", message });
    }
  };
  if (!saved) await take();
  for (const shown of perOutput ? outputs.map((output) => [output]) : [outputs]) open(shown);
  while (!saved) {
    await take();
    await new Promise((done) => setTimeout(done, 20));
  }
};
