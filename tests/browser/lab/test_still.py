"""The still picture in real JupyterLab: the saved notebook has the last one, and the page shows nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.front_ends import NOTEBOOK, SUBSHELLS
from tests.browser.lab.conftest import SESSION
from tests.browser.lab.jupyterlab import REPORT, Notebook, open_page
from tests.browser.lab.servers import Server
from tests.browser.lab.test_clicks import ATTENTION, LENS, PREDICTIONS, ablated
from tests.browser.lab.test_workbench import TITLES, WORKBENCH

STILLS = "[id^='iw-still-']"
EXPERIMENT = "experiments: z L23H3 → 0"
# In every frame until the page goes: is a still picture seen, is the widget's element another one?
_WATCH = """(root) => {
  Object.assign(window, { root, seen: 0, replaced: 0 });
  const look = () => {
    for (const still of document.querySelectorAll("[id^='iw-still-']")) window.seen += still.getClientRects().length;
    if (!root.isConnected) window.replaced += 1;
    requestAnimationFrame(look);
  };
  look();
}"""
_PLACE = "() => [document.querySelector('.jp-WindowedPanel-outer').scrollTop, root.getBoundingClientRect().height]"


def saved(notebook: Notebook) -> list[str]:
    """The still pictures in the notebook's file."""
    notebook.command("docmanager:save")
    cells = json.loads(notebook.path.read_text())["cells"]
    outputs = ["".join(o["data"].get("text/html", "")) for c in cells for o in c["outputs"] if "data" in o]
    return [html for html in outputs if "iw-still-" in html]


def test_the_saved_notebook_has_the_picture_after_the_last_click(any_notebook: Notebook) -> None:
    notebook, page = any_notebook, any_notebook.page
    notebook.show(ATTENTION)
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    assert EXPERIMENT not in saved(notebook)[0]
    widget.root.evaluate(_WATCH)
    widget.button("Ablate L23H3").click()
    expect(widget.button("Restore L23H3")).to_be_focused()
    widget.fresh()
    place = page.evaluate(_PLACE)
    expect(page.locator(STILLS)).to_contain_text(EXPERIMENT, timeout=30_000)
    (html,) = saved(notebook)
    assert EXPERIMENT in html
    assert "iw.Ablate(" in html
    assert page.evaluate(_PLACE) == place
    assert page.evaluate("() => [window.seen, window.replaced]") == [0, 0]
    expect(widget.button("Restore L23H3")).to_be_focused()
    widget.button("Undo").click()
    expect(page.locator(STILLS)).not_to_contain_text(EXPERIMENT, timeout=30_000)
    assert EXPERIMENT not in saved(notebook)[0]


def test_both_outputs_of_a_widget_have_the_last_picture(any_notebook: Notebook) -> None:
    notebook, page = any_notebook, any_notebook.page
    notebook.show(ATTENTION, "attention")
    first, second = (notebook.widget("Attention pattern", nth) for nth in (0, 1))
    second.fresh()
    first.button("Ablate L23H3").click()
    for nth in (0, 1):
        expect(page.locator(STILLS).nth(nth)).to_contain_text(EXPERIMENT, timeout=30_000)
        expect(page.locator(STILLS).nth(nth)).to_be_hidden()
    assert [EXPERIMENT in html for html in saved(notebook)] == [True, True]


HELD = """
import os, time
display(attention)
while not os.path.exists({path!r}):
    time.sleep(0.05)
"""


def test_the_output_of_a_cell_that_runs_follows_too(any_notebook: Notebook, tmp_path: Path) -> None:
    """With subshells while the cell runs; on the main thread clicks are answered, and so pictures change, after it."""
    notebook, page = any_notebook, any_notebook.page
    notebook.show(ATTENTION)
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    notebook.append(HELD.format(path=str(tmp_path / "end")))
    stills = page.locator(STILLS)
    expect(stills).to_have_count(2, timeout=30_000)
    widget.button("Ablate L23H3").click()
    if notebook.front_end == SUBSHELLS:
        expect(stills.nth(1)).to_contain_text(EXPERIMENT, timeout=30_000)
    (tmp_path / "end").touch()
    notebook.wait_idle()
    for nth in (0, 1):
        expect(stills.nth(nth)).to_contain_text(EXPERIMENT, timeout=30_000)
    assert [EXPERIMENT in html for html in saved(notebook)] == [True, True]


@pytest.fixture(params=[SUBSHELLS, NOTEBOOK])
def any_front_end(request: pytest.FixtureRequest, jupyter: Callable[[str], Server]) -> Iterator[Notebook]:
    with open_page(jupyter(request.param)) as notebook:
        yield notebook


def test_one_click_on_each_reopened_picture_makes_it_live_as_it_was_in_one_session(any_front_end: Notebook) -> None:
    notebook, page = any_front_end, any_front_end.page
    notebook.create(SESSION, ATTENTION, LENS)
    widget, shown = ablated(notebook)
    for nth in (0, 1):
        expect(page.locator(STILLS).nth(nth)).to_contain_text(EXPERIMENT, timeout=30_000)
    saved(notebook)
    notebook.shut_down()
    page.goto("about:blank")
    notebook.open(notebook.path)
    expect(page.get_by_text(EXPERIMENT).first).to_be_visible()
    page.screenshot(path=REPORT / "reopened-experiment.png")
    again = page.get_by_role("button", name="Live again, in a new cell")
    again.first.click()
    expect(widget.button("Restore L23H3")).to_be_visible(timeout=120_000)
    widget.fresh()
    assert widget.table(PREDICTIONS) == shown
    assert notebook.execute("print(list(session.interventions))").strip() == "[iw.Ablate('z', layer=23, head=3)]"
    number = notebook.execute("print(id(session))")
    again.last.click()
    lens = notebook.widget("Logit lens")
    expect(lens.root.get_by_role("region", name="With experiments")).to_be_visible(timeout=120_000)
    assert notebook.execute("print(id(session))") == number
    widget.root.scroll_into_view_if_needed()
    widget.button("Restore L23H3").click()
    expect(widget.button("Ablate L23H3")).to_be_visible()
    expect(lens.root.get_by_role("region", name="With experiments")).to_be_hidden(timeout=60_000)
    page.screenshot(path=REPORT / "reopened-live.png")


def test_one_click_on_a_reopened_workbench_brings_back_the_three_linked(notebook: Notebook) -> None:
    page = notebook.page
    notebook.create(SESSION, WORKBENCH)
    attention, lens, heatmap = (notebook.widget(title) for title in TITLES)
    attention.button("Ablate L0H0").click()
    for widget in (attention, lens, heatmap):
        widget.fresh()
    shown = attention.table(PREDICTIONS)
    expect(page.locator(STILLS)).to_contain_text("experiments: z L0H0 → 0", timeout=30_000)
    saved(notebook)
    notebook.shut_down()
    page.goto("about:blank")
    notebook.open(notebook.path)
    expect(page.locator(STILLS)).to_be_visible()
    page.get_by_role("button", name="Live again, in a new cell").click()
    expect(attention.button("Restore L0H0")).to_be_visible(timeout=120_000)
    for widget in (attention, lens, heatmap):
        widget.fresh()
    assert attention.table(PREDICTIONS) == shown
    assert notebook.execute("print(type(workbench).__name__, len(workbench.children))").strip() == "Workbench 3"
    attention.press("All heads", "ArrowRight")
    expect(lens.root.get_by_role("button", name="Transplant from L1 · position 14")).to_be_visible()
    page.screenshot(path=REPORT / "reopened-workbench.png")


def test_the_copied_code_shows_the_same_numbers_in_a_new_cell(notebook: Notebook) -> None:
    page = notebook.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    notebook.create(SESSION, ATTENTION)
    widget, shown = ablated(notebook)
    widget.button("Code").click()
    widget.button("Copy").click()
    expect(widget.root.get_by_text("copied", exact=True)).to_be_visible()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == notebook.execute("print(attention.code())").removesuffix("\n")
    notebook.append(copied)
    again = notebook.widget("Attention pattern", 1)
    expect(again.root).to_be_attached(timeout=120_000)
    again.root.scroll_into_view_if_needed()
    expect(again.button("Restore L23H3")).to_be_visible()
    again.fresh()
    assert again.table(PREDICTIONS) == shown
