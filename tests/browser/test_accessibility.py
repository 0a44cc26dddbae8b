"""axe-core finds nothing in any widget: both themes, wide and narrow, with experiments, open panels, long prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

import interpwidgets as iw
from tests.browser.harness import lens, states
from tests.browser.harness.mounting import Mounted, mount, mount_beside, state_of
from tests.browser.test_module_patching_baseline import compared
from tests.browser.test_modules_experiments import ALL
from tests.browser.test_modules_history import FIRST, SECOND
from tests.models import encoder_decoder, random_ids, tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level

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

_LONG = 150
_CLEAN = random_ids(_LONG)
_CORRUPTED = [*_CLEAN[:-50], 3 + (_CLEAN[-50] - 2) % 90, *_CLEAN[-49:]]


def long_attention(page: Page) -> Mounted:
    """Zoomed in, with its minimap."""
    mounted = mount(page, "attention_pattern.js", states.attention(300, 6, 4, changed=True))
    page.get_by_role("button", name="Cells", exact=True).click()
    expect(page.locator(".iw-minimap")).to_be_visible()
    return mounted


def long_lens(page: Page) -> Mounted:
    """One band of positions is open."""
    with iw.Session(tiny("llama", max_position_embeddings=512)) as session:
        widget = iw.LogitLens(session, _CLEAN)
        widget.wait(30)
        mounted = mount(page, "logit_lens.js", state_of(widget))
    grid = page.get_by_role("grid")
    grid.focus()
    for key in ("End", "Enter"):
        grid.press(key)
    expect(page.get_by_role("button", name="Fold all")).to_be_visible()
    return mounted


def long_heatmap(page: Page) -> Mounted:
    """Folded, with the column of what both prompts share."""
    with iw.Session(tiny("llama", max_position_embeddings=512)) as session:
        widget = iw.PatchingHeatmap(session, _CLEAN, _CORRUPTED)
        widget.wait(60)
        mounted = mount(page, "patching_heatmap.js", state_of(widget))
    expect(page.get_by_role("grid")).not_to_have_attribute("aria-colcount", str(_LONG))
    return mounted


def two_texts(page: Page) -> Mounted:
    """Cross attention of a model with an encoder, and the prompts of both sides."""
    with iw.Session(encoder_decoder("bart", vocab_size=VOCABULARY), byte_level(add_bos=True)) as session:
        widget = iw.AttentionPattern(session, iw.SourceTarget("the cat sat", "the mat"), stack="cross")
        widget.wait(30)
        mounted = mount(page, "attention_pattern.js", state_of(widget))
    expect(page.get_by_role("button", name="Edit source")).to_be_visible()
    return mounted


def history(page: Page) -> Mounted:
    """Two runs, of which one has no picture any more."""
    mounted = mount(
        page, "attention_pattern.js", states.attention(changed=True) | {"_run": 2, "_past": [SECOND, FIRST]}
    )
    expect(page.get_by_role("figure")).to_have_attribute("data-state", "fresh")
    page.get_by_role("button", name="History").click()
    expect(page.get_by_role("list", name="Runs, newest first").get_by_role("button")).to_have_count(2)
    return mounted


def chip_menu(page: Page) -> Mounted:
    mounted = mount(page, "attention_pattern.js", states.attention(changed=True) | {"_experiments": ALL})
    page.get_by_role("button", name="More for z L9H6 → 0").click()
    expect(page.get_by_role("menuitem", name="Rename")).to_be_visible()
    return mounted


def workbench(page: Page) -> Mounted:
    with iw.Session(tiny("llama", vocab_size=VOCABULARY), byte_level(add_bos=True)) as session:
        figure = iw.Workbench(session, "the cat sat", "the bat sat", answer="a", foil="b")
        figure.wait(60)
        session.interventions.append(iw.Ablate("z", layer=1, head=2))
        figure.wait(60)
        assert figure.heatmap is not None
        mount(page, "attention_pattern.js", state_of(figure.attention))
        mount_beside(page, "logit_lens.js", state_of(figure.lens))
        mounted = mount_beside(page, "patching_heatmap.js", state_of(figure.heatmap))
    expect(page.get_by_role("figure")).to_have_count(3)
    return mounted


OPENED: dict[str, Callable[[Page], Mounted]] = {
    each.__name__: each for each in (long_attention, long_lens, long_heatmap, two_texts, history, chip_menu, workbench)
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


@pytest.mark.sampled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("scene", OPENED)
def test_axe_finds_nothing_in_what_is_open_or_long(page: Page, scene: str, dark: bool, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    mounted = OPENED[scene](page)
    mounted.theme(dark)
    expect(page.locator("[data-iw-theme]").first).to_have_attribute("data-iw-theme", "dark" if dark else "light")
    mounted.screenshot(f"axe-{scene}-{width}-{'dark' if dark else 'light'}")
    assert violations(page) == []


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
