"""The workbench in real JupyterLab at 900 pixels: a click in one widget is followed by all, its header saves all."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.lab.jupyterlab import REPORT
from tests.browser.lab.test_clicks import CLEAN, CORRUPTED

WORKBENCH = f"workbench = iw.Workbench(session, {CLEAN!r}, {CORRUPTED!r})\nworkbench"
TITLES = ("Attention pattern", "Logit lens", "Patching heatmap")
SCROLLS_SIDEWAYS = """() => [
  ...document.querySelectorAll(".jp-OutputArea-output, .jp-WindowedPanel-outer, .widget-box")]
  .filter((element) => element.scrollWidth > element.clientWidth + 1).map((element) => element.className)"""


@pytest.fixture
def narrow_notebook(any_notebook):
    page = any_notebook.page
    page.set_viewport_size({"width": 900, "height": 1000})
    any_notebook.command("application:toggle-left-area")
    yield any_notebook
    any_notebook.command("application:toggle-left-area")
    page.set_viewport_size({"width": 1280, "height": 1000})


def test_a_head_is_followed_and_an_ablation_renders_all_three_again(narrow_notebook):
    notebook, page = narrow_notebook, narrow_notebook.page
    notebook.show(WORKBENCH)
    attention, lens, heatmap = (notebook.widget(title) for title in TITLES)
    for widget in (attention, lens, heatmap):
        widget.fresh()
    expect(page.get_by_role("list", name="prompt tokens")).to_have_count(1)
    expect(page.get_by_role("button", name="Undo")).to_have_count(1)
    assert page.evaluate(SCROLLS_SIDEWAYS) == []
    attention.press("All heads", "ArrowRight")
    expect(attention.root.get_by_role("button", name="Ablate L1H0")).to_be_visible()
    expect(lens.root.get_by_role("button", name="Transplant from L1 · position 14")).to_be_visible()
    attention.button("Ablate L1H0").click()
    expect(attention.button("Restore L1H0")).to_be_visible()
    expect(lens.root.get_by_role("region", name="With experiments")).to_be_visible(timeout=60_000)
    expect(heatmap.button("Difference from baseline")).to_be_visible(timeout=60_000)
    for widget in (attention, lens, heatmap):
        widget.fresh()
    heatmap.button("Difference from baseline").click()
    heatmap.fresh()
    values = notebook.execute("print(float(abs(workbench.heatmap.result['difference']).max()) > 0)")
    assert values.strip() == "True"
    # What scrolls is cut off in a picture, so the page becomes as tall as the workbench.
    tall = sum(widget.root.bounding_box()["height"] for widget in (attention, lens, heatmap))
    page.set_viewport_size({"width": 900, "height": round(tall) + 300})
    REPORT.mkdir(exist_ok=True)
    page.locator(".jp-OutputArea-output", has=attention.root).screenshot(path=REPORT / "workbench-900.png")
    page.set_viewport_size({"width": 900, "height": 1000})
    attention.button("Code").click()
    expect(
        attention.root.locator("pre", has_text="workbench = iw.Workbench.of(attention, lens, heatmap)")
    ).to_be_visible()
    page.keyboard.press("Escape")
    attention.button("Save").click()
    with page.expect_download() as download:
        attention.root.get_by_role("button", name="Page without a kernel (HTML)").click()
    assert download.value.suggested_filename == "workbench.html"
    saved = Path(download.value.path()).read_text(encoding="utf-8")
    assert all(f'"name": "workbench.{name}"' in saved for name in ("attention", "lens", "heatmap"))
    attention.button("Undo").click()
    expect(lens.root.get_by_role("region", name="With experiments")).to_be_hidden()
    expect(attention.button("Ablate L1H0")).to_be_visible()
    lens.root.get_by_text("View", exact=True).click()
    lens.root.get_by_label("Presenter size").check()
    for widget in (attention, lens, heatmap):
        expect(widget.root).to_have_attribute("data-iw-size", "presenter")
    assert notebook.execute("print(workbench.size)").strip() == "presenter"
    page.keyboard.press("Escape")
    page.screenshot(path=REPORT / "workbench-presenter-900.png")
