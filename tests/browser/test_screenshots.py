"""Pictures to look at after a change: every widget, short and long, narrow and wide, in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import interpwidgets as iw
from tests.browser.harness.live import Live
from tests.browser.harness.mounting import SCREENSHOTS
from tests.browser.harness.scenes import SCENES, long_pair

WIDTHS = (900, 1600)


@pytest.fixture(scope="module")
def session() -> Iterator[iw.Session]:
    with iw.load() as session:
        yield session


@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("name", SCENES)
def test_nothing_is_cut_off_in_a_widget_at_work(page: Page, session: iw.Session, name: str, long: bool) -> None:
    widget = SCENES[name](session, long=long)
    widget.wait(300)
    live = Live(page, f"{name}.js", widget)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 1000})
        live.mounted.settle()
        live.carry()
        for dark in (False, True):
            live.mounted.theme(dark)
            expect(page.locator("[data-iw-theme]")).to_have_attribute("data-iw-theme", "dark" if dark else "light")
            live.mounted.screenshot(f"{name}-{'long' if long else 'short'}-{width}-{'dark' if dark else 'light'}")
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    widget.close()


@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
def test_nothing_is_cut_off_in_a_workbench(page: Page, session: iw.Session, tmp_path: Path, long: bool) -> None:
    """As its page without a kernel shows it, which has all three widgets."""
    preset = iw.PRESETS[0]
    pair = long_pair("patching_heatmap") if long else (preset.clean, preset.corrupted)
    workbench = iw.Workbench(session, *pair)
    workbench.attention.ablate(20, 0)
    workbench.wait(600)
    file = tmp_path / "workbench.html"
    workbench.to_html(file)
    session.interventions.clear()
    workbench.close()
    page.goto(file.as_uri())
    expect(page.get_by_role("figure")).to_have_count(3)
    for theme in ("light", "dark"):
        if theme == "dark":
            page.get_by_role("button", name="Dark theme").click()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 1000})
            page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
            name = f"workbench-{'long' if long else 'short'}-{width}-{theme}.png"
            page.screenshot(path=SCREENSHOTS / name, full_page=True)
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
