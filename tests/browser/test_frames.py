"""Frame times of all three widgets at long prompts, on the demo model and a tiny one, with their bytes and memory.

They are kept in `test-report/frames.md`.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page

import interpwidgets as iw
from interpwidgets.widgets.base import LiveWidget
from tests.benchmarks.wire import recorded
from tests.browser.harness.live import Live
from tests.models import tiny

REPORT = Path(__file__).parents[2] / "test-report"
DEMO, TINY = "SmolLM2-135M", "tiny"
CASES = ((DEMO, 1024), (TINY, 1024), (DEMO, 512), (TINY, 512), (TINY, 4096))
DIFFERING = 16
LIMIT = 400.0
"""Milliseconds: far more than a frame takes, because the machine may do other work; a page that stands still fails."""

# Time in event handlers and in the frames that they ask for; reading a pixel makes the browser draw.
_DRAWN = """async ([label, acts]) => {
  const spent = [];
  const { requestAnimationFrame: ask } = window;
  let inFrame = 0;
  window.requestAnimationFrame = (callback) => ask((time) => {
    const start = performance.now();
    callback(time);
    inFrame += performance.now() - start;
  });
  const grid = document.querySelector(`[role=grid][aria-label*="${label}"]`);
  const box = grid.getBoundingClientRect();
  const context = grid.querySelector("canvas").getContext("2d");
  for (const [kind, x, y, by] of acts) {
    await new Promise((done) => ask(done));
    inFrame = 0;
    const at = { clientX: box.x + x * box.width, clientY: box.y + y * box.height, bubbles: true, cancelable: true };
    const start = performance.now();
    if (kind === "hover") grid.dispatchEvent(new PointerEvent("pointermove", at));
    else if (kind === "zoom") grid.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: by, ctrlKey: true }));
    else { grid.scrollTo(x * grid.scrollWidth, y * grid.scrollHeight); grid.dispatchEvent(new Event("scroll")); }
    const handled = performance.now() - start;
    await new Promise((done) => ask(() => ask(done)));
    const painted = performance.now();
    context.getImageData(0, 0, 1, 1);
    spent.push(handled + inFrame + performance.now() - painted);
  }
  window.requestAnimationFrame = ask;
  return spent;
}"""


@contextmanager
def opened() -> Iterator[Callable[[str], iw.Session]]:
    """Gives the session of a model, opened when it is first asked for; the tiny one reads long prompts."""
    made = {DEMO: iw.load, TINY: lambda: iw.Session(tiny("llama", max_position_embeddings=8192))}
    with ExitStack() as sessions:
        yield functools.cache(lambda model: sessions.enter_context(made[model]()))


@pytest.fixture(scope="module")
def session_of() -> Iterator[Callable[[str], iw.Session]]:
    with opened() as session_of:
        yield session_of


def prompt_of(length: int, *, other: bool = False) -> list[int]:
    ids = [int(i) for i in torch.randint(20, 96, (length,), generator=torch.Generator().manual_seed(length))]
    if other:
        ids[length - DIFFERING] = 96
    return ids


def hovers(count: int) -> list[tuple[str, float, float, float]]:
    return [("hover", 0.1 + 0.8 * (i % 20) / 20, 0.25 + 0.5 * (i % 13) / 13, 0.0) for i in range(count)]


Made = tuple[Callable[[iw.Session, int], LiveWidget], str, str, list[tuple[str, float, float, float]]]
WIDGETS: dict[str, Made] = {
    "AttentionPattern": (
        lambda session, n: iw.AttentionPattern(session, prompt_of(n), layer=1, head=2),
        "attention_pattern.js", "attention pattern",
        [
            *hovers(20), *[("zoom", 0.3, 0.6, -40.0)] * 8,
            *[("scroll", 0.2 + i / 40, 0.5 + i / 60, 0.0) for i in range(20)],
            *hovers(20), *[("zoom", 0.3, 0.6, 40.0)] * 12,
        ],
    ),
    "LogitLens": (
        lambda session, n: iw.LogitLens(session, prompt_of(n)),
        "logit_lens.js", "logit lens", hovers(60),
    ),
    "PatchingHeatmap": (
        lambda session, n: iw.PatchingHeatmap(session, clean=prompt_of(n), corrupted=prompt_of(n, other=True)),
        "patching_heatmap.js", "resid_pre patching effect", hovers(60),
    ),
}  # fmt: skip


def measured(page: Page, session: iw.Session, name: str, model: str, length: int) -> dict[str, Any]:
    """Milliseconds of script and drawing for each movement, zoom step or scroll; bytes until drawn; memory in MiB."""
    make, entry, label, acts = WIDGETS[name]
    page.set_viewport_size({"width": 1100, "height": 1000})
    session.interventions.clear()
    with recorded() as sent:
        widget = make(session, length)
        widget.wait(600)
        size = sum(size for _, size in sent)
        live = Live(page, entry, widget)
        live.carry()
        times = sorted(page.evaluate(_DRAWN, [label, acts]))
        live.carry()
        live.mounted.settle()
    widget.close()
    usage = page.context.new_cdp_session(page).send("Runtime.getHeapUsage")
    heap = (usage["usedSize"] + usage.get("backingStorageSize", 0)) / 2**20
    return {
        "widget": name, "model": model, "tokens": length, "bytes": size, "heap": heap,
        "p50": statistics.median(times), "p95": times[int(0.95 * len(times))],
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Measurements as Markdown."""
    columns = ("widget", "model", "tokens", "p50 ms", "p95 ms", "bytes until drawn", "objects and arrays, MiB")
    lines = [
        f"| {r['widget']} | {r['model']} | {r['tokens']:,} | {r['p50']:.1f} | {r['p95']:.1f} "
        f"| {r['bytes']:,} | {r['heap']:.0f} |"
        for r in rows
    ]
    said = "Milliseconds of script and drawing for each movement, zoom step or scroll of the large matrix."
    return "\n".join([said, "", f"| {' | '.join(columns)} |", f"|---|---|{'---:|' * (len(columns) - 2)}", *lines])


@pytest.fixture(scope="module")
def report() -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    yield rows
    REPORT.mkdir(exist_ok=True)
    (REPORT / "frames.md").write_text(f"# Frames at long prompts\n\n{table(rows)}\n")
    (REPORT / "frames.json").write_text(json.dumps(rows, indent=1))


@pytest.mark.sampled
@pytest.mark.parametrize(("model", "length"), CASES)
@pytest.mark.parametrize("name", list(WIDGETS))
def test_a_long_prompt_stays_responsive(
    page: Page,
    session_of: Callable[[str], iw.Session],
    report: list[dict[str, Any]],
    name: str,
    model: str,
    length: int,
) -> None:
    found = measured(page, session_of(model), name, model, length)
    report.append(found)
    assert found["p95"] < LIMIT
    assert found["bytes"] < 2_000_000
