"""The View menu, the key sheet and the teaching layer, which all widgets share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import interpwidgets as iw
from tests.browser.harness import lens, patching, states
from tests.browser.harness.mounting import Mounted, mount, state_of
from tests.browser.test_accessibility import violations
from tests.browser.test_modules_history import visit
from tests.models import tiny

MADE_UP: dict[str, Callable[[], dict[str, Any]]] = {
    "attention_pattern.js": lambda: states.attention(changed=True),
    "logit_lens.js": lens.lens,
    "patching_heatmap.js": patching.patching,
}
WIDGETS = {
    "attention_pattern.js": "AttentionPattern",
    "logit_lens.js": "LogitLens",
    "patching_heatmap.js": "PatchingHeatmap",
}
LOOKS = {"palette": "blue", "value_labels": True, "size": "normal", "figure_mode": "off", "teaching": False}
EVERY = pytest.mark.parametrize("entry", MADE_UP)
PRESETS = [
    {"name": p.name, "clean": p.clean, "corrupted": p.corrupted, "notice": f"look at {p.name}"} for p in iw.PRESETS
]


@pytest.fixture(scope="module")
def help_of() -> dict[str, dict[str, Any]]:
    """What real widgets explain, by module."""
    with iw.Session(tiny("llama")) as session:
        return {entry: getattr(iw, name)._help_to_wire(session, teaching=True) for entry, name in WIDGETS.items()}


def show(page: Page, entry: str, help_of: dict[str, Any], **changes: Any) -> Mounted:
    return mount(page, entry, MADE_UP[entry]() | LOOKS | {"_help": help_of[entry] | {"presets": PRESETS}} | changes)


def drawn(page: Page) -> str:
    """Everything on the first large canvas."""
    return page.locator("canvas").first.evaluate("(canvas) => canvas.toDataURL()")


@EVERY
def test_view_menu_sets_the_traits_of_the_same_names(page: Page, entry: str, help_of: dict[str, Any]) -> None:
    mounted = show(page, entry, help_of)
    page.locator("summary", has_text="View").click()
    page.get_by_label("Palette").select_option("cividis")
    page.get_by_label("Values in cells").uncheck()
    page.get_by_label("Explain terms").check()
    page.get_by_label("Presenter size").check()
    assert [mounted.sent(name)[-1] for name in ("palette", "value_labels", "teaching", "size")] == [
        "cividis",
        False,
        True,
        "presenter",
    ]
    page.get_by_label("Figure mode").select_option("column")
    assert mounted.sent("figure_mode") == ["column"]


@EVERY
def test_palette_and_values_change_the_picture_at_once(page: Page, entry: str, help_of: dict[str, Any]) -> None:
    mounted = show(page, entry, help_of)
    before = drawn(page)
    mounted.push(palette="cividis")
    mounted.settle()
    other = drawn(page)
    assert other != before
    mounted.push(palette="blue")
    mounted.settle()
    assert drawn(page) == before
    grid = page.get_by_role("grid").last if entry == "attention_pattern.js" else page.get_by_role("grid").first
    written = grid.locator("canvas").evaluate("(canvas) => canvas.toDataURL()")
    mounted.push(value_labels=False)
    mounted.settle()
    assert grid.locator("canvas").evaluate("(canvas) => canvas.toDataURL()") != written


@EVERY
def test_menu_closes_with_escape_and_by_a_click_elsewhere(page: Page, entry: str, help_of: dict[str, Any]) -> None:
    show(page, entry, help_of)
    summary, menu = page.locator("summary", has_text="View"), page.get_by_label("Palette")
    summary.click()
    menu.focus()
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(summary).to_be_focused()
    summary.click()
    page.get_by_role("heading").first.click()
    expect(menu).to_be_hidden()


@pytest.mark.sampled
@pytest.mark.parametrize(("mode", "width"), [("column", 3.3 * 96), ("page", 6.9 * 96)])
@EVERY
def test_figure_mode_leaves_nothing_to_press_and_has_the_width_of_a_paper(
    page: Page, entry: str, help_of: dict[str, Any], mode: str, width: float
) -> None:
    mounted = show(page, entry, help_of)
    mounted.push(figure_mode=mode)
    mounted.settle()
    box = page.locator(".iw-root").bounding_box()
    assert box
    assert box["width"] == pytest.approx(width, abs=1)
    pressed = "button:not(.iw-token, .iw-table__token, .iw-chip__name, .iw-figure__leave), select, input, summary"
    assert [e for e in page.locator(f".iw-root :is({pressed})").all() if e.is_visible()] == []
    for scroller in page.get_by_role("grid").all():
        assert scroller.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1"), "a figure does not scroll"
    leave = page.get_by_role("button", name="Leave figure mode")
    leave.focus()
    page.keyboard.press("Enter")
    assert mounted.sent("figure_mode") == ["off"]


# What each of these buttons opens is no part of a figure.
OPENERS = {
    "attention_pattern.js": ["History", "Keys", "Code", "Save", "Edit prompt", "More for z L23H3 → 0"],
    "logit_lens.js": ["History", "Edit prompt", "position 3 ·"],
    "patching_heatmap.js": ["History", "Edit clean", "Edit corrupted"],
}


@pytest.mark.parametrize(("entry", "opener"), [(entry, opener) for entry, all_ in OPENERS.items() for opener in all_])
def test_figure_mode_shows_nothing_of_a_panel_that_is_open(
    page: Page, entry: str, opener: str, help_of: dict[str, Any]
) -> None:
    mounted = show(page, entry, help_of, _past=[visit(1, current=True)])
    seen = []
    for opens in (False, True):
        mounted.push(figure_mode="off")
        mounted.settle()
        if opens:
            before = page.get_by_role("figure").inner_text()
            page.get_by_role("button", name=opener).first.click()
            mounted.settle()
            assert page.get_by_role("figure").inner_text() != before, "something is open"
        mounted.push(figure_mode="column")
        mounted.settle()
        page.mouse.move(0, 0)
        mounted.settle()
        seen.append((page.get_by_role("figure").inner_text(), page.get_by_role("figure").bounding_box()))
    assert seen[1] == seen[0]


@EVERY
def test_at_presenter_size_the_pointer_hits_the_cell_that_is_under_it(
    page: Page, entry: str, help_of: dict[str, Any]
) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    mounted = show(page, entry, help_of)
    mounted.push(size="presenter")
    mounted.settle()
    grid = page.get_by_role("grid").first
    canvas = grid.locator("canvas")
    box = canvas.bounding_box()
    assert box
    canvas.hover(position={"x": box["width"] - 30, "y": box["height"] / 2})
    mounted.settle()
    at = int(grid.get_by_role("gridcell").get_attribute("aria-colindex") or 0)
    assert at == int(grid.get_attribute("aria-colcount") or 0)
    ratio = canvas.evaluate("(canvas) => canvas.width / canvas.getBoundingClientRect().width")
    assert ratio == pytest.approx(page.evaluate("devicePixelRatio"), abs=0.02), "drawn at the screen's own pixels"


@EVERY
def test_question_mark_opens_the_sheet_of_keys(page: Page, entry: str, help_of: dict[str, Any]) -> None:
    show(page, entry, help_of)
    page.get_by_role("grid").first.focus()
    page.keyboard.press("?")
    sheet = page.get_by_role("region", name="Keys")
    expect(sheet).to_be_visible()
    for key, what in help_of[entry]["keys"]:
        expect(sheet).to_contain_text(key)
        expect(sheet).to_contain_text(what)
    page.keyboard.press("?")
    expect(sheet).to_be_hidden()


@EVERY
@pytest.mark.parametrize("width", [420, 900, 1600])
def test_no_key_wraps_inside_of_its_name(page: Page, entry: str, help_of: dict[str, Any], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    show(page, entry, help_of)
    page.get_by_role("button", name="Keys").click()
    for key in ("Ctrl or ⌘", "+ − 0", "Page Up", "Page Down", "Ctrl+Z"):
        for name in page.locator("dt", has_text=key).all():
            lines = name.evaluate(
                """(e, key) => {
                  const at = e.textContent.replaceAll("\u00a0", " ").indexOf(key);
                  const range = new Range();
                  range.setStart(e.firstChild, at);
                  range.setEnd(e.firstChild, at + key.length);
                  return new Set([...range.getClientRects()].map((box) => Math.round(box.y))).size;
                }""",
                key,
            )
            assert lines == 1, key


def test_question_mark_in_a_text_is_a_question_mark(page: Page, help_of: dict[str, Any]) -> None:
    show(page, "attention_pattern.js", help_of)
    page.get_by_role("button", name="Edit prompt").click()
    page.keyboard.type("?")
    expect(page.get_by_role("region", name="Keys")).to_be_hidden()
    assert page.get_by_role("textbox", name="prompt").input_value().endswith("?")


@EVERY
def test_each_term_opens_two_sentences_and_a_drawing(page: Page, entry: str, help_of: dict[str, Any]) -> None:
    mounted = show(page, entry, help_of)
    region = page.get_by_role("region", name="Explanations")
    expect(region).to_be_hidden()
    mounted.push(teaching=True)
    for term in help_of[entry]["terms"]:
        button = region.get_by_role("button", name=term["name"], exact=True)
        button.click()
        expect(region).to_contain_text(term["text"])
        expect(region.get_by_role("img", name=f"{term['name']}, drawn")).to_be_visible()
        assert term["text"].count(". ") + term["text"].count("? ") >= 1
    button.click()
    expect(region.get_by_role("img")).to_have_count(0)


@EVERY
def test_presets_are_asked_for_by_name_and_say_what_to_notice(page: Page, entry: str, help_of: dict[str, Any]) -> None:
    mounted = show(page, entry, help_of, teaching=True)
    page.get_by_label("Preset prompts").select_option("Induction")
    assert {k: v for k, v in mounted.requests()[-1].items() if k != "id"} == {"op": "preset", "name": "Induction"}
    preset = next(p for p in PRESETS if p["name"] == "Induction")
    tokens = states.tokens(5)
    shown = {"text": preset["clean"], "bos": "", "tokens": tokens}
    pair = {"clean": shown, "corrupted": shown | {"text": preset["corrupted"]}, "differing": []}
    mounted.push(**({"_prompts": pair} if entry == "patching_heatmap.js" else {"_prompt": shown}))
    expect(page.get_by_role("region", name="Explanations")).to_contain_text("look at Induction")
    expect(page.get_by_label("Preset prompts")).to_have_value("Induction")


@pytest.mark.sampled
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("palette", ["blue", "cividis"])
@EVERY
def test_axe_finds_nothing_in_menus_sheets_and_explanations(
    page: Page, entry: str, help_of: dict[str, Any], palette: str, dark: bool
) -> None:
    mounted = show(page, entry, help_of, teaching=True, palette=palette)
    mounted.theme(dark)
    page.get_by_role("region", name="Explanations").get_by_role("button").first.click()
    page.get_by_role("button", name="Keys").click()
    assert violations(page) == []
    mounted.screenshot(f"teaching-{entry[:-3]}-{palette}-{'dark' if dark else 'light'}")
    page.locator("summary", has_text="View").click()
    assert violations(page) == []


@pytest.mark.sampled
@pytest.mark.parametrize("mode", ["column", "page"])
@EVERY
def test_pictures_of_figure_mode(page: Page, entry: str, help_of: dict[str, Any], mode: str) -> None:
    mounted = show(page, entry, help_of, figure_mode=mode)
    mounted.screenshot(f"figure-{entry[:-3]}-{mode}")
    assert violations(page) == []


@EVERY
def test_widgets_work_at_twice_the_size(page: Page, entry: str, help_of: dict[str, Any]) -> None:
    """1,280 at 200 % are 640 of two pixels each: nothing is cut off, nothing scrolls sideways."""
    page.set_viewport_size({"width": 640, "height": 500})
    mounted = show(page, entry, help_of, teaching=True)
    mounted.settle()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for button in page.locator(".iw-header button").all():
        assert button.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1")


def test_traits_of_the_look_are_settable_and_checked(help_of: dict[str, Any]) -> None:
    with iw.Session(tiny("llama")) as session:
        widget = iw.AttentionPattern(session, [5, 17, 3], palette="cividis", teaching=True)
        widget.wait(30)
        assert state_of(widget)["palette"] == "cividis"
        with pytest.raises(Exception, match="cividis"):
            widget.palette = "rainbow"
        widget.close()
