"""The history of runs: a panel of thumbnails, each of which goes back to its run."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.harness import lens, patching, states
from tests.browser.harness.mounting import IDLE, Mounted, mount


def visit(number: int, *experiments: str, current: bool = False, about: str = "", **changes: Any) -> dict[str, Any]:
    prompt = "When John and Mary went to the store, Mary gave the bag to"
    about_it = {"number": number, "time": 1.7e9 + number, "current": current, "about": about}
    return about_it | {"prompt": prompt, "experiments": list(experiments)} | changes


FIRST, SECOND = visit(1), visit(2, "z L23H3 → 0", current=True)


def show(page: Page, **changes: Any) -> Mounted:
    return mount(page, "attention_pattern.js", states.attention(changed=True) | {"_run": 1, "_past": []} | changes)


def opened(page: Page, **changes: Any) -> Mounted:
    mounted = show(page, **changes)
    expect(page.get_by_role("figure")).to_have_attribute("data-state", "fresh")
    page.get_by_role("button", name="History").click()
    return mounted


def test_the_list_is_asked_for_once_and_only_when_it_is_opened(page: Page) -> None:
    mounted = opened(page)
    assert mounted.sent("_past_wanted") == [True]
    expect(page.get_by_text("no run yet")).to_be_visible()
    button = page.get_by_role("button", name="History")
    expect(button).to_have_attribute("aria-expanded", "true")
    button.click()
    expect(page.get_by_role("list", name="Runs, newest first")).to_be_hidden()
    button.click()
    assert mounted.sent("_past_wanted") == [True]


def test_a_click_goes_back_to_a_run_and_the_one_on_screen_is_marked(page: Page) -> None:
    mounted = opened(page, _past=[SECOND, FIRST])
    entries = page.get_by_role("list", name="Runs, newest first").get_by_role("button")
    expect(entries).to_have_count(2)
    expect(entries.nth(0)).to_have_attribute("aria-current", "true")
    expect(entries.nth(0)).to_have_accessible_name(
        re.compile(r"^run 2, .*Mary gave the bag to, z L23H3 → 0, shown now$")
    )
    expect(entries.nth(1)).not_to_have_attribute("aria-current", "true")
    expect(entries.nth(1)).to_contain_text("no experiments")
    entries.nth(1).click()
    assert (mounted.requests()[-1]["op"], mounted.requests()[-1]["number"]) == ("back_to", 1)
    mounted.push(_past=[{**SECOND, "current": False}, {**FIRST, "current": True}])
    expect(entries.nth(1)).to_have_attribute("aria-current", "true")
    expect(entries.nth(1)).to_be_focused()


def test_each_run_keeps_the_picture_that_it_had(page: Page) -> None:
    mounted = opened(page, _past=[{**FIRST, "current": True}])
    pictures = page.locator(".iw-past__picture")
    first = pictures.nth(0).get_attribute("src")
    assert first
    assert first.startswith("data:image/png")
    other = states.attention(selected=(2, 1))
    changes = {name: other[name] for name in ("layer", "head", "_baseline_detail", "_detail", "_overview")}
    mounted.push(_status={**IDLE, "id": 2, "state": "running"})
    mounted.push(**changes, _run=2, _past=[SECOND, FIRST], _status={**IDLE, "id": 2})
    expect(page.get_by_role("figure")).to_have_attribute("data-state", "fresh")
    expect(pictures).to_have_count(2)
    expect(pictures.nth(0)).to_have_attribute("src", re.compile("^data:image/png"))
    assert pictures.nth(1).get_attribute("src") == first
    assert pictures.nth(0).get_attribute("src") != first


def test_a_run_without_a_picture_says_in_its_place_what_was_done(page: Page) -> None:
    """A page that was loaded anew has pictures of what it shows itself only."""
    many = [f"z L{layer}H3 → 0" for layer in range(30)]
    opened(page, _past=[visit(4, *many), visit(3, "z L23H3 → 0"), visit(2), {**FIRST, "current": True}])
    items = page.get_by_role("list", name="Runs, newest first").get_by_role("listitem")
    for nth, done in enumerate((many[0], "z L23H3 → 0", "no experiments")):
        place = items.nth(nth).locator(".iw-past__picture")
        expect(place).to_contain_text(done)
        assert items.nth(nth).inner_text().count(done) == 1
        box, words = place.bounding_box(), place.locator(".iw-past__done").bounding_box()
        assert box
        assert words
        assert (box["width"], box["height"]) == (96, 64)
        assert box["y"] <= words["y"]
        assert words["y"] + words["height"] <= box["y"] + box["height"]
    expect(items.nth(3).locator("img")).to_have_count(1)


def test_the_keyboard_walks_the_runs_and_escape_closes(page: Page) -> None:
    mounted = opened(page, _past=[visit(3, current=True), SECOND, FIRST])
    entries = page.get_by_role("list", name="Runs, newest first").get_by_role("button")
    entries.nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(entries.nth(2)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert mounted.requests()[-1]["number"] == 2
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="History")).to_be_focused()
    expect(page.get_by_role("list", name="Runs, newest first")).to_be_hidden()


def test_names_of_runs_are_text(page: Page) -> None:
    evil = "<img src=x onerror=document.title=1>"
    opened(page, _past=[visit(1, evil, prompt=evil, about=evil)])
    entry = page.get_by_role("list", name="Runs, newest first").get_by_role("button")
    expect(entry).to_contain_text(evil)
    expect(page.locator(".iw-past img:not(.iw-past__picture)")).to_have_count(0)


def test_every_widget_shows_its_own_picture(page: Page) -> None:
    kinds = (
        ("attention_pattern.js", states.attention(changed=True), (1500, False)),
        ("logit_lens.js", lens.lens(), (900, True)),
        ("patching_heatmap.js", patching.patching(), (420, False)),
    )
    for entry, state, (width, dark) in kinds:
        page.set_viewport_size({"width": width, "height": 900})
        past = [
            visit(4, *(f"z L{layer}H3 → 0" for layer in range(30))), visit(3, "z L21H1 → 0"),
            visit(2, "z L23H3 → 0", "mlp_out L1 × 0.5", current=True, about="resid_pre, logit_diff, denoise"), visit(1),
        ]  # fmt: skip
        mounted = mount(page, entry, state | {"_run": 2, "_past": past})
        mounted.theme(dark)
        mounted.settle()
        page.get_by_role("button", name="History").click()
        expect(page.locator("img.iw-past__picture")).to_have_count(1)
        mounted.screenshot(f"history-{entry.removesuffix('.js')}")
