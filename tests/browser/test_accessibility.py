"""axe-core finds nothing in any widget: in both themes, wide and narrow, with experiments, errors and open panels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.harness import lens, states
from tests.browser.harness.mounting import mount
from tests.browser.test_module_patching_baseline import compared
from tests.browser.test_modules_experiments import ALL

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
# The page around a widget is the host's: its landmarks, headings and title.
NOT_OURS = {"region", "landmark-one-main", "page-has-heading-one", "document-title", "html-has-lang", "heading-order"}
WIDTHS = (420, 1200)

PINNED = {"labels": ["z L9H6 → 0"], "differs": True}

STATES: dict[str, Callable[[], dict[str, Any]]] = {
    "attention_pattern.js": lambda: states.attention(changed=True) | {"_experiments": ALL, "_pinned": PINNED},
    "logit_lens.js": lens.lens,
    "patching_heatmap.js": compared,
}


def violations(page: Page) -> list[str]:
    found = Axe().run(page, context="main", options=RULES).response["violations"]
    return [
        f"{v['id']} ({v['impact']}): {node['html'][:200]} {node['failureSummary']}"
        for v in found if v["id"] not in NOT_OURS for node in v["nodes"]
    ]  # fmt: skip


def examined(page: Page, entry: str, *, dark: bool, width: int) -> list[str]:
    """What axe finds in a widget as it opens, and with its panels open and an error."""
    page.set_viewport_size({"width": width, "height": 1000})
    error = {"title": "This cannot be run", "text": "position 7 is out of range", "hint": "remove it"}
    mounted = mount(page, entry, STATES[entry]())
    mounted.theme(dark)
    found = violations(page)
    page.get_by_role("button", name="Code").click()
    page.locator(".iw-check__summary").click()
    mounted.push(_status={"id": 1, "state": "error", "done": 0, "total": 0, "message": "", "ms": 0, "error": error})
    expect(page.get_by_role("alert")).to_be_visible()
    return found + violations(page)


@pytest.mark.sampled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("entry", STATES)
def test_axe_finds_nothing(page: Page, entry: str, dark: bool, width: int) -> None:
    assert examined(page, entry, dark=dark, width=width) == []


@pytest.mark.parametrize("entry", STATES)
def test_a_finger_can_hit_every_control(browser: Browser, entry: str) -> None:
    context = browser.new_context(viewport={"width": 420, "height": 1000}, has_touch=True, is_mobile=True)
    page = context.new_page()
    mount(page, entry, STATES[entry]())
    assert page.evaluate("matchMedia('(pointer: coarse)').matches"), "the browser must say that it is touched"
    checked = "input[type=checkbox]"  # it is hit by its label
    controls = page.locator(f".iw-root :is(button, select, summary, input:not({checked}), label:has({checked}))")
    small = [
        control.evaluate("(e) => e.outerHTML.slice(0, 120)")
        for control in controls.all()
        if (box := control.bounding_box()) and min(box["width"], box["height"]) < 43.9
    ]
    assert controls.count() > 10
    assert small == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
