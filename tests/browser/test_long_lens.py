"""LogitLens at long prompts, a real widget behind the page: bands open and close, and cells come exactly."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

import interpwidgets as iw
from tests.browser.harness.lens import lens
from tests.browser.harness.live import Live
from tests.browser.harness.mounting import mount
from tests.models import random_ids, tiny

GRID = "logit lens, layer by position"
LENGTH = 200
PROMPT = random_ids(LENGTH)


@pytest.fixture(scope="module")
def session() -> Iterator[iw.Session]:
    with iw.Session(tiny("llama", max_position_embeddings=8192)) as session:
        yield session


@pytest.fixture
def live(page: Page, session: iw.Session) -> Iterator[Live]:
    session.interventions.clear()
    widget = iw.LogitLens(session, PROMPT)
    yield Live(page, "logit_lens.js", widget)
    widget.close()


def grid(live: Live, name: str = GRID) -> Locator:
    return live.page.get_by_role("grid", name=name, exact=True)


def columns(live: Live) -> int:
    live.mounted.settle()
    return int(grid(live).get_attribute("aria-colcount") or 0)


def spoken(live: Live) -> str:
    live.mounted.settle()
    return grid(live).get_by_role("gridcell").inner_text()


def says(live: Live, pattern: str) -> None:
    """Wait until the readout says so, with what Python answers meanwhile."""
    readout = live.page.locator(".iw-readout")
    live.until(lambda: re.search(pattern, readout.inner_text()) is not None)


def press(live: Live, *keys: str) -> None:
    grid(live).focus()
    for key in keys:
        live.page.keyboard.press(key)


def test_the_last_band_is_open_at_first_and_its_cells_are_exact(live: Live) -> None:
    assert columns(live) == 12 + 8
    probability = iw.logit_lens(live.widget.session, PROMPT)["probability"].values[-1, -1]
    says(live, rf"^L3 position 199 .*{100 * probability:.1f}%")
    assert live.mounted.sent("_asked") == [], "the first picture brought them"


def test_a_band_is_said_to_be_about_until_its_cells_have_come(live: Live) -> None:
    press(live, "Home")
    # L3 of the first band; nothing has been carried to Python yet.
    assert re.match(r"L3 positions 0–15, mean probability of the top token about \d+%", spoken(live))
    exact = iw.logit_lens(live.widget.session, PROMPT)["probability"].values[-1, :16]
    says(live, rf"mean .* {100 * exact.mean():.1f}%, largest at position {exact.argmax()} .*{100 * exact.max():.1f}%")
    assert live.mounted.sent("_asked")[-1]["rows"] == [4, 5]


def test_enter_opens_a_band_and_escape_folds_it_again(live: Live) -> None:
    before = columns(live)
    press(live, "Home", "ArrowRight", "ArrowRight", "Enter")
    assert columns(live) == before - 8 + 1 - 1 + 16
    exact = iw.logit_lens(live.widget.session, PROMPT)["probability"].values[-1]
    says(live, rf"^L3 position 32 .*{100 * exact[32]:.1f}%")
    press(live, "ArrowRight")
    says(live, rf"^L3 position 33 .*{100 * exact[33]:.1f}%")
    press(live, "Escape")
    assert columns(live) == 13
    expect(live.page.get_by_role("button", name="Fold all")).to_be_hidden()


def test_a_click_opens_a_band_and_shift_leaves_the_others_open(live: Live) -> None:
    box = grid(live).bounding_box()
    assert box
    at = {"x": 60.0, "y": box["height"] - 40}
    grid(live).click(position=at)
    assert columns(live) == 12 + 16
    press(live, "Home")
    grid(live).press("Shift+Enter")
    assert columns(live) == 11 + 32
    live.page.get_by_role("button", name="Fold all").click()
    assert columns(live) == 13


def test_a_band_cannot_be_transplanted_but_opens_while_a_target_is_picked(live: Live) -> None:
    press(live, "t", "Home")
    grid(live).press("Enter")
    expect(live.page.locator(".iw-lens__banner")).to_contain_text("pick a target for L3 · position 199")
    assert [r for r in live.mounted.requests() if r["op"] == "transplant_cells"] == []
    assert columns(live) == 12 + 16
    press(live, "ArrowDown", "Enter")
    live.until(lambda: live.page.get_by_role("region", name="With experiments").is_visible())
    assert live.mounted.requests()[-1]["target"] == [3, 0]
    live.until(lambda: live.widget._now is not None)
    second = grid(live, "with experiments, layer by position")
    second.focus()
    live.page.keyboard.press("Home")
    says(live, r"→|untouched")


def test_tracking_and_replacing_work_on_an_opened_band(live: Live) -> None:
    press(live, "Home", "ArrowRight", "Enter")
    exact = iw.logit_lens(live.widget.session, PROMPT)
    says(live, r"^L3 position 16 ")
    table = live.page.get_by_role("table", name="Top 10 of this cell")
    live.until(lambda: table.get_by_role("button").count() == 10)
    table.get_by_role("button").first.click()
    charts = live.page.get_by_role("region", name="Tracked tokens over layers")
    live.until(charts.is_visible)
    expect(charts).to_contain_text(f"{100 * exact['probability'].values[-1, 16]:.1f}%")
    live.page.get_by_role("list", name="prompt tokens").get_by_role("button").nth(100).click()
    dialog = live.page.get_by_role("dialog")
    live.until(lambda: dialog.get_by_role("row").count() == 11)
    dialog.get_by_role("button").nth(1).click()
    live.until(lambda: live.widget._tokens.ids[100] == int(exact["top_token"].values[-1, 99, 0]))
    assert columns(live) == 12 + 16, "what was open stays open"


def test_another_metric_repaints_the_bands_and_says_what_they_show(live: Live) -> None:
    live.page.get_by_role("button", name="rank").first.click()
    expect(live.page.get_by_role("region", name="Baseline")).to_contain_text("narrow columns: the smallest of 16")
    press(live, "Home")
    says(live, "positions 0–15, smallest rank of the actual token")


def test_more_positions_than_bands_fit_open_in_two_steps(page: Page, session: iw.Session) -> None:
    session.interventions.clear()
    widget = iw.LogitLens(session, [3 + i % 90 for i in range(2048)])
    live = Live(page, "logit_lens.js", widget)
    assert columns(live) == 63 + 1 + 16
    press(live, "Home", "Enter")
    assert columns(live) == 63 + 2
    live.page.keyboard.press("Enter")
    assert columns(live) == 63 + 1 + 16
    says(live, "^L3 position 0 ")
    live.page.keyboard.press("Escape")
    live.page.keyboard.press("Escape")
    assert columns(live) == 64
    widget.close()


def test_layers_fold_with_their_step_on_the_axis(page: Page) -> None:
    mount(page, "logit_lens.js", lens(length=15, layers=80, cell=[80, 3]))
    found = page.get_by_role("grid", name=GRID, exact=True)
    assert found.get_attribute("aria-rowcount") == "41"
    found.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".iw-readout")).to_contain_text("L77 position 3")
    page.get_by_role("button", name="All layers").click()
    expect(found).to_have_attribute("aria-rowcount", "81")
