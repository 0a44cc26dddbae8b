"""What a screen reader hears: what is selected, and once a run has ended, what became of the prediction."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

import interpwidgets as iw
from tests.browser.harness.live import Live
from tests.browser.harness.mounting import IDLE, mount
from tests.browser.harness.patching import cell, patched, patching
from tests.browser.harness.states import attention
from tests.models import random_ids, tiny

PROMPT = random_ids(8)
WIDGETS = {"attention_pattern.js": iw.AttentionPattern, "logit_lens.js": iw.LogitLens}
_LISTEN = """(live) => {
  window.heard = [];
  new MutationObserver(() => heard.push(live.textContent)).observe(live, { childList: true, subtree: true });
}"""


@pytest.mark.parametrize("entry", WIDGETS)
def test_a_run_is_announced_once_with_the_likeliest_token_before_and_with_experiments(page: Page, entry: str) -> None:
    with iw.Session(tiny("llama")) as session:
        session.interventions.append(iw.Ablate("z", layer=1, head=2))
        live = Live(page, entry, WIDGETS[entry](session, PROMPT))
        region = page.locator(".iw-root > [role=status]")
        expect(region).to_have_attribute("aria-live", "polite")
        region.evaluate(_LISTEN)
        chip = page.get_by_role("list", name="Experiments").get_by_role("button", name="z L1H2 → 0", exact=True)
        heard: list[str] = []
        for count in (1, 2):
            chip.click()
            live.until(lambda count=count: len(page.evaluate("heard")) >= count)  # type: ignore[misc]
            expect(page.locator(".iw-root")).to_have_attribute("data-state", "fresh")
            heard = page.evaluate("heard")
        assert len(heard) == 2
        off, on = heard
        share = r"\d+\.\d%"
        assert re.fullmatch(rf"ran in [\d.]+ ms · next token \d+ {share}", off)
        assert re.fullmatch(rf"ran in [\d.]+ ms · next token \d+ {share}, baseline (\d+ )?{share}", on)
        assert page.locator(".iw-status__text").inner_text() == on


def test_a_selected_head_is_said_and_the_last_run_stays_in_sight(page: Page) -> None:
    with iw.Session(tiny("llama")) as session:
        live = Live(page, "attention_pattern.js", iw.AttentionPattern(session, PROMPT))
        region, status = page.locator(".iw-root > [role=status]"), page.locator(".iw-status__text")
        ran = status.inner_text()
        assert ran.startswith("ran in")
        region.evaluate(_LISTEN)
        heads = page.get_by_role("grid", name="All heads")
        heads.focus()
        for key, place in (("ArrowRight", "L1 H0"), ("ArrowDown", "L1 H1")):
            page.keyboard.press(key)
            live.until(lambda: page.locator(".iw-root").get_attribute("data-state") == "fresh")
            expect(region).to_have_text(re.compile(rf"^{place} · max \d\.\d\d$"))
            expect(status).to_have_text(ran)
        assert len(page.evaluate("heard")) == 2


def test_what_an_answer_without_a_run_leaves_in_sight_is_the_last_run_and_not_a_failure(page: Page) -> None:
    mounted = mount(page, "attention_pattern.js", attention())
    status = page.locator(".iw-status__text")
    expect(status).to_have_text("ran in 171 ms · 15 tokens")
    page.get_by_role("grid", name="All heads").focus()
    page.keyboard.press("ArrowRight")
    mounted.answer("error", error={"title": "This cannot be run", "text": "no such head", "hint": ""})
    expect(status).to_have_text("failed: the picture is from the run before")
    page.keyboard.press("ArrowRight")
    mounted.answer()
    expect(status).to_have_text("ran in 171 ms · 15 tokens")


def test_chosen_cells_and_what_their_patch_does_are_said(page: Page) -> None:
    with iw.Session(tiny("llama")) as session:
        other = [*PROMPT[:3], PROMPT[3] + 1, *PROMPT[4:]]
        live = Live(page, "patching_heatmap.js", iw.PatchingHeatmap(session, clean=PROMPT, corrupted=other))
        page.locator(".iw-root > [role=status]").evaluate(_LISTEN)
        page.get_by_role("grid", name="resid_pre patching effect").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        live.until(lambda: len(page.evaluate("heard")) >= 2)
        expect(page.locator(".iw-root")).to_have_attribute("data-state", "fresh")
        chosen, result = page.evaluate("heard")
        assert chosen == "chosen: L0 · position 1"
        assert re.fullmatch(r"L0 · position 1 patched: logit difference .* · ran in [\d.]+ ms.*", result)
        page.keyboard.press("Escape")
        live.until(lambda: page.locator(".iw-root").get_attribute("data-state") == "fresh")
        assert page.evaluate("heard")[2:] == ["no cell chosen"]


@pytest.mark.parametrize("first", ["_patched", "_status"])
def test_the_effect_of_a_patch_and_its_time_are_one_sentence_in_whatever_order_they_come(
    page: Page, first: str
) -> None:
    mounted = mount(page, "patching_heatmap.js", patching())
    page.locator(".iw-root > [role=status]").evaluate(_LISTEN)
    page.get_by_role("grid", name="resid_pre patching effect").focus()
    page.keyboard.press("Enter")
    mounted.settle()
    number = mounted.requests()[-1]["id"]
    came = {"_patched": patched([cell(0, 0)], number), "_status": {**IDLE, "id": number, "ms": 31.0}}
    mounted.push(**dict(sorted(came.items(), key=lambda item: item[0] != first)))
    mounted.settle()
    heard = page.evaluate("heard")
    assert len(heard) == 2
    assert re.fullmatch(r"L0 · position 0 patched: logit difference .* · ran in 31 ms", heard[1])


def test_each_cell_of_a_grid_is_an_element_of_its_own_that_is_said_as_it_becomes_active(page: Page) -> None:
    mounted = mount(page, "patching_heatmap.js", patching())
    grid = page.get_by_role("grid", name="resid_pre patching effect")
    grid.focus()
    seen = []
    for key in ("ArrowRight", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
        mounted.settle()
        spoken = grid.get_by_role("gridcell")
        assert grid.get_attribute("aria-activedescendant") == spoken.get_attribute("id")
        seen.append((spoken.get_attribute("id"), spoken.inner_text()))
    assert len({name for name, _ in seen}) == len({text for _, text in seen}) == 3
    page.evaluate("window.cell = document.activeElement.querySelector('[role=gridcell]')")
    mounted.push(metric="logit_diff", normalize=False)  # other words of the same cell
    mounted.settle()
    assert (
        page.evaluate("cell.isConnected && cell.textContent")
        == grid.get_by_role("gridcell").inner_text()
        != seen[-1][1]
    )
