"""One layer's attention patterns as pages of four tools: their bytes, and the time until Chromium has drawn them.

Ours shows that layer's head large among the thumbnails of all heads; the others show the layer's heads.
"""

from __future__ import annotations

import base64
import contextlib
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from ipywidgets import DOMWidget
from playwright.sync_api import Browser, Error, sync_playwright
from plotly.subplots import make_subplots

import interpwidgets as iw
from interpwidgets.widgets.esm import bundle, stylesheet
from tests.browser import harness
from tests.provide_chromium import find_chromium

LENGTHS = (15, 128, 512)
_LONGEST = 60_000  # milliseconds that a page may take
_QUIET = 700  # milliseconds without a change after which it counts as drawn
_ADDRESS = "http://benchmark.invalid/"  # answered here; whatever else a page asks for comes from the network
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
_WATCH = """
window.painted = 0;
window.failed = false;
const paint = () => requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = performance.now(); }));
new MutationObserver(paint).observe(document, { childList: true, subtree: true, attributes: true });
for (const kind of ["error", "unhandledrejection"]) addEventListener(kind, () => { window.failed = true; }, true);
"""


_PLOTLY = """
const file = new Blob([{esm}], {{ type: "text/javascript" }});
const widget = (await import(URL.createObjectURL(file))).default();
const render = (context) => {{
  widget.initialize(context);
  document.querySelector("main").append(context.el); // it measures where it draws
  return widget.render(context);
}};
export default {{ render }};
"""


@dataclass(frozen=True)
class Drawn:
    """`size`: bytes of the page, None if the tool is not installed; `milliseconds`: None if it was not drawn."""

    tool: str
    length: int
    size: int | None
    milliseconds: float | None = None


def drawings(session: iw.Session, prompts: list[tuple[int, ...]], *, runs: int = 3) -> list[Drawn]:
    """Every tool on the patterns of every prompt; without a Chromium, sizes only."""
    found = []
    with contextlib.ExitStack() as stack:
        chromium = find_chromium()
        browser = None
        if chromium is not None:
            playwright = stack.enter_context(sync_playwright())
            browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
            stack.callback(browser.close)
        for prompt in prompts:
            for tool, make in TOOLS.items():
                found.append(_draw(browser, tool, make, session, prompt, runs))
    return found


def _draw(
    browser: Browser | None,
    tool: str,
    make: Callable[[iw.Session, tuple[int, ...]], str],
    session: iw.Session,
    prompt: tuple[int, ...],
    runs: int,
) -> Drawn:
    try:
        name = f"{tool} {version(tool.split()[0].lower())}"
    except PackageNotFoundError:
        return Drawn(tool, len(prompt), None)
    text = make(session, prompt)
    times = [] if browser is None else [_milliseconds(browser, text) for _ in range(runs)]
    drawn = [t for t in times if t is not None]
    return Drawn(name, len(prompt), len(text.encode()), statistics.median(drawn) if drawn else None)


def _milliseconds(browser: Browser, text: str) -> float | None:
    """From the navigation's start to the frame after the last change; None if none comes or a script fails."""
    page = browser.new_page(viewport={"width": 920, "height": 900})
    page.add_init_script(_WATCH)
    page.route(_ADDRESS, lambda route: route.fulfill(body=text, content_type="text/html; charset=utf-8"))
    try:
        page.goto(_ADDRESS, timeout=_LONGEST)
        drawn = f"() => window.failed || (window.painted && performance.now() - window.painted > {_QUIET})"
        page.wait_for_function(drawn, timeout=_LONGEST)
        return None if page.evaluate("window.failed") else page.evaluate("window.painted")
    except Error:
        return None
    finally:
        page.close()


def _page(body: str) -> str:
    return f'<!doctype html><html lang="en"><title>drawing</title><body>{body}</body></html>'


def _mounted(esm: str, css: str, state: dict[str, Any]) -> str:
    """A page on which an anywidget module draws itself, as the browser tests mount it."""
    script = (Path(harness.__file__).parent / "page.js").read_text(encoding="utf-8")
    spec = json.dumps({"esm": esm, "css": css, "state": _portable(state)}).replace("</", "<\\/")
    return _page(f'<main></main><script>{script}</script><script type="module">harness.mount({spec})</script>')


def _traits(widget: DOMWidget) -> dict[str, Any]:
    return {name: getattr(widget, name) for name in widget.keys if name not in ("_esm", "_css", "layout")}


def _portable(value: Any) -> Any:
    """Traits as the harness takes them: bytes in base64."""
    if isinstance(value, dict):
        if isinstance(value.get("view"), memoryview):
            rest = {k: v for k, v in value.items() if k != "view"}
            return rest | {"base64": base64.b64encode(value["view"]).decode()}
        return {k: _portable(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_portable(v) for v in value] if isinstance(value, list | tuple) else value


def _layer(session: iw.Session) -> int:
    return session.model.config.num_hidden_layers // 2


def _patterns(session: iw.Session, prompt: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """Weights of one layer (head, query, key), and the tokens; without markup, which CircuitsVis would read as such."""
    weights = session.run(prompt, capture=iw.Site("pattern", layer=_layer(session)))["pattern"].values
    tokens = [s.replace("<", "(").replace(">", ")") for s in session.tokenize(prompt).strings]
    return weights.reshape(-1, len(prompt), len(prompt)), tokens


def _interpwidgets(session: iw.Session, prompt: tuple[int, ...]) -> str:
    widget = iw.AttentionPattern(session, prompt, layer=_layer(session))
    widget.wait()
    text = _mounted(bundle("attention_pattern.js"), stylesheet("attention_pattern.css"), _traits(widget))
    widget.close()
    return text


def _figure_widget(session: iw.Session, prompt: tuple[int, ...]) -> str:
    weights, _ = _patterns(session, prompt)
    columns = 3
    figure = make_subplots(rows=-(-len(weights) // columns), cols=columns)
    for head, pattern in enumerate(weights):
        figure.add_trace(go.Heatmap(z=pattern), row=head // columns + 1, col=head % columns + 1)
    widget = go.FigureWidget(figure)
    return _mounted(_PLOTLY.format(esm=json.dumps(widget._esm)), "", _traits(widget))


def _circuitsvis(session: iw.Session, prompt: tuple[int, ...]) -> str:
    from circuitsvis.attention import attention_heads

    weights, tokens = _patterns(session, prompt)
    return _page(attention_heads(tokens=tokens, attention=torch.tensor(weights)).local_src)


def _bertviz(session: iw.Session, prompt: tuple[int, ...]) -> str:
    from bertviz import head_view

    weights, tokens = _patterns(session, prompt)
    return _page(head_view([torch.tensor(weights)[None]], tokens, html_action="return").data)


TOOLS = {
    "interpwidgets": _interpwidgets,
    "plotly FigureWidget": _figure_widget,
    "CircuitsVis": _circuitsvis,
    "BertViz": _bertviz,
}
