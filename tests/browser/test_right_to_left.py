"""Hebrew and Arabic: fields run the way of what is typed, and a token leaves the order of the words around it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.harness import lens, patching, states
from tests.browser.harness.mounting import mount
from tests.browser.test_modules_experiments import ALL

HEBREW, ARABIC = "␣שלום", "␣سلام"
_LEFT = """(element, words) => {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const left = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) for (const word of words) {
    const at = node.data.indexOf(word);
    if (at < 0) continue;
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + word.length);
    left.push(range.getBoundingClientRect().left);
  }
  return left;
}"""


def drawn_at(element: Locator, *words: str) -> list[float]:
    """Where the first of each of these words begins on the screen."""
    found = element.evaluate(_LEFT, list(words))
    assert len(found) == len(words), (words, element.inner_text())
    return found


def written_in(word: str) -> dict[str, Any]:
    """A lens under an experiment whose every top token is this word."""
    state = lens.lens(**lens.experiment(15, 30), cell=[20, 12])
    for reading in (state["_grid"], state["_now"]):
        reading["texts"] = dict.fromkeys(reading["texts"], word)
    return state


@pytest.mark.parametrize("text", [HEBREW, ARABIC, "the cat"])
def test_every_field_runs_the_way_of_what_is_typed(page: Page, text: str) -> None:
    way = "ltr" if text.isascii() else "rtl"

    def runs(field: Locator) -> None:
        field.fill(text)
        expect(field).to_have_css("direction", way)

    mount(page, "attention_pattern.js", states.attention() | {"_experiments": ALL})
    page.get_by_role("button", name="Edit prompt").click()
    runs(page.get_by_role("textbox", name="prompt"))
    page.get_by_role("button", name="More for z L9H6 → 0").click()
    page.get_by_role("menuitem", name="Name").click()
    runs(page.locator(".iw-chip__input"))
    mount(page, "logit_lens.js", lens.lens())
    page.locator("button.iw-token").nth(3).click()
    runs(page.get_by_role("dialog").get_by_role("textbox"))
    mount(page, "patching_heatmap.js", patching.patching())
    runs(page.get_by_role("textbox", name="Answer token"))


def test_a_part_of_a_character_stands_behind_its_character(page: Page) -> None:
    state = states.attention()
    for token, letter in zip(state["_prompt"]["tokens"], ("é", "ש", "س"), strict=False):
        token["text"] = f"⟨{letter} 1/2⟩"
    mounted = mount(page, "attention_pattern.js", state)
    mounted.screenshot("right-to-left-parts")
    for at, letter in enumerate(("é", "ש", "س")):
        token = page.locator(".iw-token__text").nth(at)
        places = drawn_at(token, "⟨", letter, "1/2", "⟩")
        assert places == sorted(places)


@pytest.mark.parametrize("word", ["␣Paris", HEBREW, ARABIC])
def test_before_stays_left_of_now(page: Page, word: str) -> None:
    mounted = mount(page, "logit_lens.js", written_in(word))
    readout = page.locator(".iw-readout")
    before, now = readout.inner_text().split(": ")[1].split(" → ")
    mounted.screenshot(f"right-to-left-lens-{len(word)}")
    places = drawn_at(readout, before.split()[-1], " → ", now.split()[-1])
    assert places == sorted(places)
    assert before.strip("\u2068\u2069").startswith(word)
