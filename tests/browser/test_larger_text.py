"""Text of the size that the browser is set to: everything grows with it, canvases too, and nothing is cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.harness import lens, patching, states
from tests.browser.harness.mounting import mount

WIDGETS: dict[str, Callable[[], dict[str, Any]]] = {
    "attention_pattern.js": lambda: states.attention(changed=True),
    "logit_lens.js": lambda: lens.lens(**lens.experiment(15, 30)),
    "patching_heatmap.js": patching.patching,
}
EVERY = pytest.mark.parametrize("entry", WIDGETS)


def set_text(page: Page, pixels: int) -> None:
    """The browser's setting, as under Appearance in Chrome."""
    page.context.new_cdp_session(page).send("Page.setFontSizes", {"fontSizes": {"standard": pixels}})


def drawn(page: Page, selector: str) -> dict[str, float]:
    box = page.locator(selector).first.bounding_box()
    assert box
    return {name: box[name] for name in ("width", "height")}


@EVERY
def test_text_and_canvas_grow_with_the_browsers_text(page: Page, entry: str) -> None:
    page.set_viewport_size({"width": 1500, "height": 1000})
    mounted = mount(page, entry, WIDGETS[entry]())
    title, width = drawn(page, ".iw-header__title"), drawn(page, ".iw-root")["width"]
    set_text(page, 24)
    mounted.settle()
    larger = drawn(page, ".iw-header__title")
    assert larger["height"] == pytest.approx(1.5 * title["height"], rel=0.02)
    assert drawn(page, ".iw-root")["width"] == pytest.approx(width, abs=2)
    canvas = page.get_by_role("grid").first.locator("canvas")
    # Letters on a canvas are as many of its own pixels as before: those are larger, and drawn at the screen's.
    assert canvas.evaluate("(canvas) => canvas.getBoundingClientRect().width / canvas.clientWidth") == pytest.approx(
        1.5, rel=0.01
    )
    ratio = canvas.evaluate("(canvas) => canvas.width / canvas.getBoundingClientRect().width")
    assert ratio == pytest.approx(page.evaluate("devicePixelRatio"), abs=0.02)


@EVERY
def test_the_pointer_hits_the_cell_that_is_under_it(page: Page, entry: str) -> None:
    page.set_viewport_size({"width": 1250, "height": 1000})
    set_text(page, 20)
    mounted = mount(page, entry, WIDGETS[entry]())
    grid = page.get_by_role("grid").first
    box = grid.locator("canvas").bounding_box()
    assert box
    grid.locator("canvas").hover(position={"x": box["width"] - 23, "y": box["height"] / 2})
    mounted.settle()
    at = int(grid.get_by_role("gridcell").get_attribute("aria-colindex") or 0)
    assert at == int(grid.get_attribute("aria-colcount") or 0)


@EVERY
def test_presenter_size_is_as_much_larger_as_before(page: Page, entry: str) -> None:
    page.set_viewport_size({"width": 1500, "height": 1000})
    set_text(page, 20)
    mounted = mount(page, entry, WIDGETS[entry]())
    normal = drawn(page, ".iw-header__title")
    mounted.push(size="presenter")
    mounted.settle()
    assert drawn(page, ".iw-header__title")["height"] == pytest.approx(1.6 * normal["height"], rel=0.02)


@EVERY
def test_a_figure_is_as_wide_as_the_papers_column_for_every_reader(page: Page, entry: str) -> None:
    set_text(page, 24)
    mounted = mount(page, entry, WIDGETS[entry]() | {"figure_mode": "column"})
    mounted.settle()
    assert drawn(page, ".iw-root")["width"] == pytest.approx(3.3 * 96, abs=1)


def test_a_host_with_small_text_at_its_root_makes_nothing_smaller(page: Page) -> None:
    """Bootstrap 3, which older notebooks are made with, puts 10 pixels there."""
    mounted = mount(page, "attention_pattern.js", WIDGETS["attention_pattern.js"]())
    title = drawn(page, ".iw-header__title")
    page.evaluate("document.documentElement.style.fontSize = '10px'")
    mounted.settle()
    assert drawn(page, ".iw-header__title") == title


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("width", "pixels"), [(420, 20), (420, 24), (420, 32), (900, 20), (900, 24), (1500, 24), (1500, 32)]
)
@EVERY
def test_nothing_is_cut_off(page: Page, entry: str, width: int, pixels: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    mounted = mount(page, entry, WIDGETS[entry]())
    # The browser's own setting would not outlive the taking of a picture.
    page.evaluate("(pixels) => { document.documentElement.style.fontSize = `${pixels}px`; }", pixels)
    mounted.screenshot(f"text-{entry.removesuffix('.js')}-{width}-{pixels}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for button in page.locator(".iw-header button").all():
        assert button.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1")
    page.locator("summary", has_text="View").click()
    expect(page.get_by_label("Palette")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
