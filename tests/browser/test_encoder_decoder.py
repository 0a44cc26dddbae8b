"""AttentionPattern of an encoder with a decoder: three attentions, rectangles, two texts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import interpwidgets as iw
from tests.browser.harness.mounting import Mounted, mount, state_of
from tests.models import encoder_decoder
from tests.tiny_tokenizers import VOCABULARY, byte_level

PROMPT = iw.SourceTarget("the cat sat on the mat", "the mat")


@pytest.fixture(scope="module")
def session() -> Iterator[iw.Session]:
    with iw.Session(encoder_decoder("bart", vocab_size=VOCABULARY), byte_level(add_bos=True)) as session:
        yield session


@pytest.fixture
def widget(session: iw.Session) -> Iterator[iw.AttentionPattern]:
    session.interventions.clear()
    shown = iw.AttentionPattern(session, PROMPT, layer=1, head=2, stack="cross")
    shown.wait(30)
    yield shown
    shown.close()


def show(page: Page, widget: iw.AttentionPattern | iw.LogitLens) -> Mounted:
    widget.wait(30)
    entry = "attention_pattern.js" if isinstance(widget, iw.AttentionPattern) else "logit_lens.js"
    return mount(page, entry, state_of(widget))


def pictures(mounted: Mounted, name: str) -> None:
    mounted.screenshot(f"{name}-light")
    mounted.theme(dark=True)
    mounted.screenshot(f"{name}-dark")


def walk(mounted: Mounted, grid: str, *keys: str) -> str:
    mounted.page.get_by_role("grid", name=grid).focus()
    for key in keys:
        mounted.page.keyboard.press(key)
    mounted.settle()
    return mounted.page.get_by_role("grid", name=grid).get_by_role("gridcell").inner_text()


def test_cross_attention_is_a_rectangle_of_target_by_source(page: Page, widget: iw.AttentionPattern) -> None:
    mounted = show(page, widget)
    pattern = iw.attention_patterns(widget.session, PROMPT, stack="cross")
    rows, cols = pattern.sizes["query"], pattern.sizes["key"]
    grid = page.get_by_role("grid", name="cross L1H2 attention pattern")
    expect(grid).to_have_attribute("aria-rowcount", str(rows))
    expect(grid).to_have_attribute("aria-colcount", str(cols))
    spoken = walk(mounted, "cross L1H2 attention pattern", "End", "PageDown")
    queries, keys = pattern.attrs["tokens"], pattern.attrs["key_tokens"]
    weight = float(pattern.sel(layer=1, head=2)[-1, -1])
    assert spoken == f"query {rows - 1} {queries[-1]} → key {cols - 1} {keys[-1]}: {weight:.4f}"
    pictures(mounted, "cross-attention")


def test_a_click_on_any_cell_cuts_it_in_the_stack_that_is_drawn(page: Page, widget: iw.AttentionPattern) -> None:
    mounted = show(page, widget)
    walk(mounted, "cross L1H2 attention pattern", "ArrowRight", "ArrowRight", "ArrowRight", "Enter")
    asked = mounted.requests()[-1]
    assert (asked["op"], asked["stack"], asked["query"], asked["key"]) == ("cut", "cross", 0, 3)
    widget.cut(**{k: v for k, v in asked.items() if k not in ("id", "op")})
    widget.ablate(0, 1)
    widget.view = "difference"
    mounted = show(page, widget)
    expect(page.get_by_role("list", name="Experiments")).to_contain_text("cross L1H2 cut 0 → 3")
    pictures(mounted, "cross-attention-cut")


def test_the_choice_of_attention_asks_for_the_stack(page: Page, widget: iw.AttentionPattern) -> None:
    mounted = show(page, widget)
    choice = page.get_by_role("group", name="Whose attention")
    expect(choice.get_by_role("button", name="Cross")).to_have_attribute("aria-pressed", "true")
    choice.get_by_role("button", name="Encoder").click()
    assert mounted.sent("stack") == ["encoder"]
    widget.stack = "encoder"
    names = ("stack", "layer", "head", "_baseline_overview", "_overview", "_baseline_detail", "_detail")
    mounted.push(**{name: value for name, value in state_of(widget).items() if name in names})
    grid = page.get_by_role("grid", name="encoder L1H1 attention pattern")
    length = len(widget.session.tokenize(PROMPT).source or ())
    expect(grid).to_have_attribute("aria-rowcount", str(length - 1))  # <s> is hidden
    expect(page.get_by_role("button", name="Hide <s>")).to_be_visible()
    assert "masked" not in walk(mounted, "encoder L1H1 attention pattern", "ArrowRight")
    pictures(mounted, "encoder-attention")


def test_the_decoder_alone_is_causal(page: Page, widget: iw.AttentionPattern) -> None:
    widget.stack, widget.hide_bos = "decoder", False
    mounted = show(page, widget)
    assert "masked, a query cannot look ahead" in walk(mounted, "L1H2 attention pattern", "ArrowRight")


def test_each_text_is_edited_by_itself(page: Page, widget: iw.AttentionPattern) -> None:
    mounted = show(page, widget)
    expect(page.get_by_role("group", name="source", exact=True)).to_be_visible()
    page.get_by_role("button", name="Edit source").click()
    box = page.get_by_role("textbox", name="source")
    expect(box).to_have_value("the cat sat on the mat")
    box.fill("the dog")
    box.press("Enter")
    page.get_by_role("button", name="Edit target").click()
    page.get_by_role("textbox", name="target").fill("a dog")
    page.get_by_role("textbox", name="target").press("Enter")
    assert [r["prompt"] for r in mounted.requests()] == [{"source": "the dog"}, {"target": "a dog"}]


def test_the_heads_thumbnails_are_the_patterns(page: Page, widget: iw.AttentionPattern) -> None:
    widget.select(0, 0)
    mounted = show(page, widget)
    pattern = iw.attention_patterns(widget.session, PROMPT, stack="cross").values
    most = np.unravel_index(pattern.max((2, 3)).argmax(), pattern.shape[:2])
    spoken = walk(mounted, "All heads", *["ArrowRight"] * int(most[0]), *["ArrowDown"] * int(most[1]))
    assert spoken == f"L{most[0]} H{most[1]} · max {pattern.max():.2f}"


def test_the_lens_shows_the_source_above_its_target(page: Page, session: iw.Session) -> None:
    session.interventions.clear()
    mounted = show(page, iw.LogitLens(session, PROMPT))
    expect(page.get_by_role("list", name="source tokens")).to_contain_text("␣the")
    page.get_by_role("button", name="Edit target").click()
    page.get_by_role("textbox", name="target").press("Enter")
    assert mounted.requests()[-1]["prompt"] == {"target": "the mat"}
    pictures(mounted, "lens-of-a-decoder")
