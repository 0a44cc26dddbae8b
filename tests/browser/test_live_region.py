"""What a screen reader hears once a run has ended: what became of the prediction, once, when it is quiet."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

import interpwidgets as iw
from tests.browser.harness.live import Live
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
