"""PatchingHeatmap at long prompts and of deep models, a real widget behind the page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

import interpwidgets as iw
from interpwidgets.widgets.bands import band_edges
from tests.browser.harness.live import Live
from tests.browser.harness.mounting import mount
from tests.browser.harness.patching import patching
from tests.models import random_ids, tiny
from tests.sent import array

GRID = "resid_pre patching effect, layer by position"
LENGTH = 150
CLEAN = random_ids(LENGTH)


@pytest.fixture(scope="module")
def session() -> Iterator[iw.Session]:
    with iw.Session(tiny("llama", max_position_embeddings=512)) as session:
        yield session


def show(page: Page, session: iw.Session, at: int, **settings: object) -> Live:
    session.interventions.clear()
    corrupted = [*CLEAN[:at], 3 + (CLEAN[at] - 2) % 90, *CLEAN[at + 1 :]]
    return Live(page, "patching_heatmap.js", iw.PatchingHeatmap(session, clean=CLEAN, corrupted=corrupted, **settings))


def grid(live: Live) -> Locator:
    return live.page.get_by_role("grid", name=GRID)


def columns(live: Live) -> int:
    live.mounted.settle()
    return int(grid(live).get_attribute("aria-colcount") or 0)


def spoken(live: Live) -> str:
    live.mounted.settle()
    return grid(live).get_by_role("gridcell").inner_text()


def press(live: Live, *keys: str) -> None:
    grid(live).focus()
    for key in keys:
        live.page.keyboard.press(key)


def effects(live: Live) -> tuple[list[float], int]:
    """The effects of the lowest layer's patches, and the first position that differs."""
    sweep = live.widget._sweep
    gap = sweep["clean"] - sweep["corrupted"]
    return [(float(v) - sweep["baseline"]) / gap for v in array(sweep["values"])[0]], sweep["first"]


def test_what_is_the_same_in_both_is_one_column_that_stays_closed(page: Page, session: iw.Session) -> None:
    live = show(page, session, at=140)
    assert columns(live) == 1 + 10
    press(live, "Home")
    assert spoken(live) == "L0 positions 0–139: the same in both prompts, so that a patch changes nothing"
    press(live, "Enter")
    assert columns(live) == 1 + 10
    assert live.mounted.requests() == []


def test_the_differing_token_of_a_long_pair_is_named_and_in_sight(page: Page, session: iw.Session) -> None:
    live = show(page, session, at=140)
    for side in ("clean", "corrupted"):
        strip = live.page.get_by_role("list", name=f"{side} tokens")
        token = strip.locator(".iw-token--marked")
        assert strip.evaluate("(e) => e.scrollHeight > e.clientHeight"), "the prompt must be too long for its strip"
        live.page.wait_for_function(
            "([strip, token]) => { const [a, b] = [strip, token].map((e) => e.getBoundingClientRect());"
            " return a.top <= b.top && b.bottom <= a.bottom; }",
            arg=[strip.element_handle(), token.element_handle()],
        )
    expect(live.page.get_by_role("group", name="corrupted", exact=True)).to_contain_text("differs at 140")


def test_a_band_says_its_largest_effect_and_opens(page: Page, session: iw.Session) -> None:
    live = show(page, session, at=5)
    values, first = effects(live)
    assert columns(live) == 1 + 10
    press(live, "Home", "ArrowRight")
    most = max(range(16), key=lambda i: abs(values[i]))
    assert spoken(live).startswith(f"L0 positions 5–20, largest effect: L0 · position {first + most} ")
    press(live, "Enter")
    assert columns(live) == 1 + 9 + 16
    assert live.mounted.requests() == [], "opening is no patch"
    assert re.match(r"L0 · position 5 clean .*: ", spoken(live))
    press(live, "ArrowRight", "Enter")
    assert live.mounted.requests()[-1]["cells"] == [{"site": "resid_pre", "layer": 0, "head": None, "position": 6}]
    live.until(lambda: live.page.get_by_text("with resid_pre L0 · position 6 patched").is_visible())
    press(live, "Escape", "Escape")
    assert columns(live) == 1 + 10
    expect(live.page.get_by_role("button", name="Fold all")).to_be_hidden()


@pytest.fixture(scope="module")
def deep() -> Iterator[iw.Session]:
    with iw.Session(tiny("llama", num_hidden_layers=60, max_position_embeddings=512)) as session:
        yield session


def show_deep(page: Page, session: iw.Session, length: int = 6, **settings: object) -> Live:
    corrupted = [CLEAN[0], 3 + (CLEAN[1] - 2) % 90, *CLEAN[2:length]]
    widget = iw.PatchingHeatmap(session, clean=CLEAN[:length], corrupted=corrupted, **settings)
    return Live(page, "patching_heatmap.js", widget)


def rows(live: Live, name: str = GRID) -> int:
    live.mounted.settle()
    return int(live.page.get_by_role("grid", name=name).get_attribute("aria-rowcount") or 0)


def test_a_row_of_several_layers_says_its_largest_effect_and_opens(page: Page, deep: iw.Session) -> None:
    live = show_deep(page, deep)
    values = array(live.widget._sweep["values"])
    assert rows(live) == 30
    press(live, "ArrowRight", "ArrowUp", "ArrowUp")
    most = max((4, 5), key=lambda layer: abs(values[layer, 1] - live.widget._sweep["baseline"]))
    assert spoken(live).startswith(f"L4–5 · position 1, largest effect: L{most} · position 1 clean ")
    press(live, "Enter")
    assert rows(live) == 31
    assert live.mounted.requests() == [], "opening is no patch"
    assert spoken(live).startswith("L4 · position 1 clean ")
    press(live, "ArrowUp", "Enter")
    assert live.mounted.requests()[-1]["cells"] == [{"site": "resid_pre", "layer": 5, "head": None, "position": 1}]
    live.until(lambda: live.page.get_by_text("with resid_pre L5 · position 1 patched").is_visible())
    press(live, "ArrowUp", "Shift+Enter")
    assert (rows(live), spoken(live)[:4]) == (32, "L6 ·")
    press(live, "ArrowUp", "ArrowUp", "Enter")
    assert (rows(live), spoken(live)[:4]) == (31, "L8 ·"), "the rows that fold leave the keyboard where it is"
    press(live, "Escape", "Escape")
    assert (rows(live), spoken(live)[:4]) == (30, "L8–9")
    expect(live.page.get_by_role("button", name="Fold all")).to_be_hidden()


def test_every_layer_has_a_row_when_asked_for(page: Page, deep: iw.Session) -> None:
    live = show_deep(page, deep)
    every = live.page.get_by_role("button", name="All layers")
    press(live, "ArrowUp")
    every.click()
    expect(every).to_have_attribute("aria-pressed", "true")
    assert (rows(live), spoken(live)[:4]) == (60, "L2 ·")
    every.click()
    assert (rows(live), spoken(live)[:4]) == (30, "L2–3")


def test_heads_of_the_layer_that_a_row_names_are_descended_to(page: Page, deep: iw.Session) -> None:
    live = show_deep(page, deep, site="z")
    name = "z patching effect, layer by head"
    values = array(live.widget._sweep["values"])
    assert rows(live, name) == 30
    live.page.get_by_role("grid", name=name).focus()
    live.page.keyboard.press("ArrowUp")
    live.mounted.settle()
    most = max((2, 3), key=lambda layer: abs(values[layer, 0] - live.widget._sweep["baseline"]))
    said = live.page.get_by_role("grid", name=name).get_by_role("gridcell").inner_text()
    assert said.startswith(f"L2–3H0, largest effect: L{most}H0, all positions: ")
    live.page.keyboard.press("d")
    assert live.mounted.requests()[-1]["layer"] == most
    live.until(lambda: live.page.get_by_role("grid", name=f"z patching effect of L{most}").is_visible())
    assert rows(live, f"z patching effect of L{most}, head by position") == 4


def test_one_click_opens_layers_and_positions(page: Page) -> None:
    state = patching(100, 80)
    state["_prompts"] |= {"edges": band_edges(100)}
    mounted = mount(page, "patching_heatmap.js", state)
    found = page.get_by_role("grid", name=GRID)
    mounted.settle()
    assert (found.get_attribute("aria-rowcount"), found.get_attribute("aria-colcount")) == ("40", "7")
    found.focus()
    named = re.compile("^L0–1 positions 0–15, largest effect: L[01] · position 10 ")
    expect(found.get_by_role("gridcell")).to_have_text(named)
    page.keyboard.press("Enter")
    expect(found).to_have_attribute("aria-rowcount", "41")
    expect(found).to_have_attribute("aria-colcount", str(6 + 16))
    expect(found.get_by_role("gridcell")).to_have_text(re.compile("^L0 · position 0 "))
    assert mounted.requests() == []


def test_a_model_of_few_layers_has_no_layers_to_fold(page: Page, session: iw.Session) -> None:
    live = show(page, session, at=140)
    assert rows(live) == 4
    expect(live.page.get_by_role("button", name="All layers")).to_be_hidden()
