"""What is pointed at in one widget shows in those linked with it, by the page alone."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.harness import states
from tests.browser.harness.lens import lens
from tests.browser.harness.mounting import mount, mount_beside
from tests.browser.harness.patching import patching

LINKED = {"_links": ["one", "two"]}
HEADS = "All heads: 9 heads by 30 layers"
LENS = "logit lens, layer by position"


def picture(grid: Locator) -> str:
    return str(grid.locator("canvas").evaluate("(canvas) => canvas.toDataURL()"))


def until_changed(page: Page, grid: Locator, before: str, *, back: bool = False) -> None:
    page.wait_for_function(
        "([canvas, before, back]) => (canvas.toDataURL() === before) === back",
        arg=[grid.locator("canvas").element_handle(), before, back],
    )


def pair(page: Page, links: dict[str, Any] = LINKED) -> None:
    """A lens above an attention pattern."""
    page.set_viewport_size({"width": 920, "height": 2600})
    mount(page, "logit_lens.js", lens() | LINKED)
    mount_beside(page, "attention_pattern.js", states.attention() | links).settle()


def test_a_cell_of_the_lens_shows_its_layer_and_position_in_the_attention_and_lets_go(page: Page) -> None:
    pair(page, {"_links": ["two"]})
    heads = page.get_by_role("grid", name=HEADS)
    matrix = page.get_by_role("grid", name="L23H3 attention pattern")
    before = [picture(grid) for grid in (heads, matrix)]
    page.get_by_role("grid", name=LENS).hover(position={"x": 300, "y": 300})
    for grid, was in zip((heads, matrix), before, strict=True):
        until_changed(page, grid, was)
    page.mouse.move(2, 2)
    for grid, was in zip((heads, matrix), before, strict=True):
        until_changed(page, grid, was, back=True)
    assert page.evaluate("() => harness.model.sent") == []


def test_a_head_that_is_pointed_at_shows_in_a_map_of_heads(page: Page) -> None:
    page.set_viewport_size({"width": 920, "height": 2600})
    mount(page, "attention_pattern.js", states.attention() | LINKED)
    mount_beside(page, "patching_heatmap.js", patching(site="z") | LINKED).settle()
    shown = page.get_by_role("grid", name="z patching effect, layer by head")
    before = picture(shown)
    page.get_by_role("grid", name=HEADS).hover(position={"x": 200, "y": 80})
    until_changed(page, shown, before)
    page.mouse.move(2, 2)
    until_changed(page, shown, before, back=True)


def test_a_token_that_is_pointed_at_shows_in_the_others_prompts(page: Page) -> None:
    pair(page)
    tokens = page.locator(".iw-attention").get_by_role("group", name="prompt").locator(".iw-token")
    other = page.locator(".iw-logit-lens").get_by_role("group", name="prompt").locator(".iw-token")
    tokens.nth(4).hover()
    expect(other.nth(4)).to_have_attribute("data-point", "primary")
    page.mouse.move(2, 2)
    expect(other.nth(4)).not_to_have_attribute("data-point", "primary")


@pytest.mark.parametrize("apart", ["other links", "no links", "no channel"])
def test_widgets_that_are_not_linked_show_nothing(page: Page, apart: str) -> None:
    if apart == "no channel":
        page.add_init_script("delete window.BroadcastChannel")
        page.goto("about:blank")
        assert page.evaluate("() => !('BroadcastChannel' in window)")
    pair(page, {"other links": {"_links": ["three"]}, "no links": {}, "no channel": LINKED}[apart])
    page.evaluate(
        """() => {
          window.told = 0;
          if (window.BroadcastChannel) new BroadcastChannel("interpwidgets-hover").onmessage = () => window.told++;
        }"""
    )
    heads = page.get_by_role("grid", name=HEADS)
    before = picture(heads)
    page.get_by_role("grid", name=LENS).hover(position={"x": 300, "y": 300})
    if apart != "no channel":
        page.wait_for_function("() => window.told > 0")  # it was said, and the other has had its turn
    expect(page.locator(".iw-logit-lens .iw-readout")).to_contain_text("position")
    assert picture(heads) == before


def test_a_widget_that_goes_away_lets_go(page: Page) -> None:
    page.set_viewport_size({"width": 920, "height": 2600})
    mount(page, "attention_pattern.js", states.attention() | LINKED)
    mount_beside(page, "logit_lens.js", lens() | LINKED).settle()
    heads = page.get_by_role("grid", name=HEADS)
    before = picture(heads)
    page.get_by_role("grid", name=LENS).hover(position={"x": 300, "y": 300})
    until_changed(page, heads, before)
    page.evaluate("() => harness.close(0)")
    until_changed(page, heads, before, back=True)


def test_a_link_that_closes_lets_go(page: Page) -> None:
    page.set_viewport_size({"width": 920, "height": 2600})
    mount(page, "logit_lens.js", lens() | LINKED)
    mounted = mount_beside(page, "attention_pattern.js", states.attention() | LINKED)
    mounted.settle()
    heads = page.get_by_role("grid", name=HEADS)
    before = picture(heads)
    page.get_by_role("grid", name=LENS).hover(position={"x": 300, "y": 300})
    until_changed(page, heads, before)
    shown = picture(heads)
    mounted.push(_links=["two", "three"])
    mounted.settle()
    assert picture(heads) == shown, "one of the links is still there"
    mounted.push(_links=["three"])
    until_changed(page, heads, before, back=True)


def test_what_is_no_place_is_ignored(page: Page) -> None:
    pair(page)
    heads = page.get_by_role("grid", name=HEADS)
    before = picture(heads)
    wrong = [None, 3, {}, {"links": "one"}, {"links": ["one"], "layer": "<b>", "head": 1e9, "position": -7}]
    page.evaluate(
        """(wrong) => new Promise((done) => {
          const channel = new BroadcastChannel("interpwidgets-hover");
          new BroadcastChannel("interpwidgets-hover").onmessage = ({ data }) => data === "last" && setTimeout(done);
          for (const message of [...wrong, "last"]) channel.postMessage(message);
        })""",
        [*wrong, {"links": ["one"], "layer": 400, "head": 2}],
    )
    assert picture(heads) == before
