// The page of a notebook whose outputs are frames of another origin: carries messages between them and the kernel.

/** `outputs`: the models to show; `perOutput`: a frame for each; `form`: that of binary values. */
window.openNotebook = async function openNotebook({ script, outputs, perOutput, form }) {
  /** All that the kernel said: a frame that opens later must be told. */
  const messages = [];
  const frames = [];
  let outgoing = [];
  const say = (message) => frames.forEach((frame) => frame.contentWindow.postMessage(message, "*"));
  window.setTheme = (dark) => say({ type: "theme", dark });
  addEventListener("message", ({ data }) => data.type === "send" && outgoing.push(data.message));

  const open = (models) => {
    const frame = document.createElement("iframe");
    // Without allow-same-origin the frame has an origin of its own, which nothing else shares.
    frame.setAttribute("sandbox", "allow-scripts");
    frame.srcdoc = `<!doctype html><html lang="en"><title>output</title><body></body><script>${script}<\/script></html>`;
    frame.style.cssText = "width: 100%; height: 900px; border: 0";
    frame.onload = () => frame.contentWindow.postMessage({ type: "open", models, form, messages }, "*");
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
  await take();
  for (const models of perOutput ? outputs.map((model) => [model]) : [outputs]) open(models);
  for (;;) {
    await take();
    await new Promise((done) => setTimeout(done, 20));
  }
};
