"""Widgets of a masked language model: whole matrices, answers at the mask, words that fit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

import interpwidgets as iw
from tests.browser.harness.mounting import Mounted, mount, state_of
from tests.tiny_tokenizers import word_piece
from tests.unit.test_masked_lm import CLEAN, CORRUPTED, masked


@pytest.fixture(scope="module")
def session() -> Iterator[iw.Session]:
    with iw.Session(masked("bert"), word_piece()) as session:
        yield session


def show(page: Page, entry: str, widget: iw.AttentionPattern | iw.LogitLens | iw.PatchingHeatmap) -> Mounted:
    widget.wait(30)
    return mount(page, entry, state_of(widget))


def pictures(mounted: Mounted, name: str) -> None:
    mounted.screenshot(f"{name}-light")
    mounted.theme(dark=True)
    mounted.screenshot(f"{name}-dark")


def test_attention_to_later_keys_is_drawn_and_can_be_cut(page: Page, session: iw.Session) -> None:
    mounted = show(page, "attention_pattern.js", iw.AttentionPattern(session, CLEAN, hide_bos=False))
    expect(page.locator(".iw-attention__next")).to_contain_text("masked token at position 6 [MASK]")
    expect(page.get_by_role("button", name="Hide [CLS]")).to_be_visible()
    grid = page.get_by_role("grid", name="attention pattern")
    grid.focus()
    for key in ("Control+Home", "ArrowRight", "ArrowRight", "ArrowDown"):
        grid.press(key)
    expect(page.locator(".iw-attention__head .iw-readout")).to_contain_text("query 1 the → key 2 capital: 0.")
    grid.press("Enter")
    asked = mounted.requests()[-1]
    assert (asked["op"], asked["query"], asked["key"]) == ("cut", 1, 2)
    pictures(mounted, "masked-attention")


def test_a_prompt_that_masks_nothing_says_what_to_do(page: Page, session: iw.Session) -> None:
    show(page, "attention_pattern.js", iw.AttentionPattern(session, "the cat sat on the mat."))
    expect(page.locator(".iw-attention__next")).to_contain_text("nothing is masked: put [MASK] into the prompt")


def test_the_lens_speaks_of_the_token_itself(page: Page, session: iw.Session) -> None:
    mounted = show(page, "logit_lens.js", iw.LogitLens(session, CLEAN))
    expect(page.locator(".iw-lens__grid").first).to_contain_text(
        "the top token is the token itself (under a mask: the model's own"
    )
    expect(page.get_by_role("table", name="Top 10 of this cell")).to_contain_text("token here")
    expect(page.locator(".iw-root")).not_to_contain_text("next")
    pictures(mounted, "masked-lens")


def test_patching_is_measured_at_the_mask(page: Page, session: iw.Session) -> None:
    widget = iw.PatchingHeatmap(session, clean=CLEAN, corrupted=CORRUPTED, answer="paris", foil="rome")
    widget.patch([{"site": "resid_pre", "layer": 1, "head": None, "position": 2}])
    mounted = show(page, "patching_heatmap.js", widget)
    expect(page.locator(".iw-root")).to_contain_text("masked token at position 6 [MASK]")
    pictures(mounted, "masked-patching")
