"""Milliseconds of the head grid's frames, 30 x 9 thumbnails of 128 x 128: the widget's module on made-up weights."""

from __future__ import annotations

import contextlib
import statistics
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from tests.browser.harness import states
from tests.browser.harness.mounting import mount
from tests.provide_chromium import find_chromium

LIMIT = 16.0
"""Milliseconds that a frame is meant to stay under."""
_SIDE = 128
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
# Reading a pixel makes the browser draw.
_SCROLLED = """async (runs) => {
  const scroller = document.querySelector(".iw-heads .iw-surface__scroller");
  const context = scroller.querySelector("canvas").getContext("2d");
  const times = [];
  for (let run = 0; run < runs; run++) {
    await new Promise((done) => requestAnimationFrame(done));
    const start = performance.now();
    scroller.dispatchEvent(new Event("scroll"));
    context.getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  return times;
}"""
_RENEWED = """async (overview) => {
  const context = document.querySelector(".iw-heads canvas").getContext("2d");
  const start = performance.now();
  harness.model.push({ _overview: overview });
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  context.getImageData(0, 0, 1, 1);
  return performance.now() - start;
}"""


def frames(*, runs: int = 30) -> dict[str, float]:
    """Median milliseconds of a frame while pointer or view move, and until new weights of all heads are painted.

    Empty without a Chromium.
    """
    chromium = find_chromium()
    if chromium is None:
        return {}
    with contextlib.ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        state = _state()
        mount(page, "attention_pattern.js", state)
        drawn = page.evaluate(_SCROLLED, runs)
        renewed = [page.evaluate(_RENEWED, state["_overview"] | {"id": 2 + run}) for run in range(max(1, runs // 5))]
    return {"pointer or view moves": statistics.median(drawn), "new weights": statistics.median(renewed)}


def _state() -> dict[str, Any]:
    """All traits of AttentionPattern, with thumbnails of every cell of a prompt."""
    state = states.attention(_SIDE, changed=True)
    edges = list(range(_SIDE + 1))
    before, now = (np.round(255 * states.patterns(30, 9, _SIDE, seed=seed)).astype(np.uint8) for seed in (0, 1))
    state["_baseline_overview"] |= {"edges": edges, "key_edges": edges, "weights": states.triangle(before)}
    state["_overview"] |= {"first": 0, "now": states.triangle(now)}
    return state
