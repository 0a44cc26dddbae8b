"""LogitLens' module against a fake model: what a cell holds, what a click asks for, what an experiment changed."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Position, expect

from interpwidgets.widgets.logit_lens import LogitLens
from tests.browser.harness.lens import experiment, lens, reading, tracks
from tests.browser.harness.mounting import IDLE, Mounted, mount

GRID = "logit lens, layer by position"
SECOND = "with experiments, layer by position"


def show(page: Page, **traits: Any) -> Mounted:
    return mount(page, "logit_lens.js", lens(**traits))


def grid(page: Page | Locator, name: str = GRID) -> Locator:
    return page.get_by_role("grid", name=name, exact=True)


def place(page: Page, row: int, position: int, *, name: str = GRID) -> Position:
    """Where a cell of 31 rows is drawn on an 800-pixel page, in CSS pixels; the last row is drawn highest."""
    height = grid(page, name).evaluate("(el) => el.firstElementChild.clientHeight")
    left, cell, tall = 31, 46, 17
    return {"x": left + cell * (position + 0.5), "y": height - 2 - (row + 0.5) * tall}


def asked(widget: Mounted) -> list[dict[str, Any]]:
    """The requests without their ids."""
    return [{name: value for name, value in request.items() if name != "id"} for request in widget.requests()]


def readout(page: Page) -> Locator:
    return page.locator(".iw-readout")


def banner(page: Page | Locator) -> Locator:
    return page.locator(".iw-lens__banner")


def row_of(page: Page, index: int = 0) -> Locator:
    return page.get_by_role("table", name="Top 10 of this cell").get_by_role("row").nth(1 + index)


def test_cell_shows_its_ten_likeliest_tokens_and_every_metric(page: Page) -> None:
    show(page, cell=[30, 5])
    expect(readout(page)).to_contain_text("L29 position 5 ␣went: ")
    assert page.get_by_role("table", name="Top 10 of this cell").get_by_role("button").count() == 10
    metrics = page.get_by_role("table", name="Metrics of this cell")
    expect(metrics.get_by_role("row")).to_have_count(7)
    expect(metrics.get_by_role("row", name="KL to last")).to_contain_text("–")
    expect(metrics.get_by_role("row", name="rank")).not_to_contain_text("–")


def test_pointing_reads_a_cell_and_leaving_returns_to_the_selected_one(page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 1100})
    show(page, cell=[24, 14])
    grid(page).hover(position=place(page, 10, 3))
    expect(readout(page)).to_contain_text("L9 position 3 ␣and")
    expect(page.get_by_role("button", name="position 3 ·")).to_have_attribute("data-point", "primary")
    page.get_by_text("colour by").hover()
    expect(readout(page)).to_contain_text("L23 position 14 ␣to")


def test_click_and_arrow_keys_move_the_selection_and_say_where(page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 1100})
    widget = show(page)
    grid(page).click(position=place(page, 10, 3))
    assert widget.sent("cell") == [[10, 3]]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    assert widget.sent("cell")[1:] == [[11, 3], [11, 4]]
    expect(page.locator("[aria-live=polite]")).to_contain_text("L10 position 4 ␣Mary: ")
    expect(grid(page).get_by_role("gridcell")).to_contain_text("L10 position 4 ␣Mary: ")


def test_python_moves_the_selection(page: Page) -> None:
    widget = show(page)
    widget.push(cell=[0, 0])
    expect(readout(page)).to_contain_text("emb position 0 <|im_start|>")
    expect(page.get_by_role("button", name="Transplant from emb · position 0")).to_be_enabled()


def test_clicking_a_listed_token_tracks_it_and_again_stops(page: Page) -> None:
    widget = show(page, cell=[30, 5])
    token = row_of(page).get_by_role("button")
    token_id = int(token.get_attribute("data-key") or "")
    token.click()
    assert asked(widget)[-1] == {"op": "track", "token": token_id}
    widget.push(tracked=[token_id])
    expect(token).to_have_attribute("aria-pressed", "true")
    token.click()
    assert widget.requests()[-1]["op"] == "untrack"


def test_a_listed_token_stays_in_place_while_it_is_pressed_although_the_grid_loses_the_keyboard(page: Page) -> None:
    widget = show(page, cell=[30, 5])
    page.get_by_role("grid", name="logit lens").focus()
    widget.settle()
    row_of(page).get_by_role("button").hover()
    page.mouse.down()
    widget.settle()
    page.mouse.up()
    assert [request["op"] for request in asked(widget)] == ["track"]


def test_tracked_tokens_are_drawn_over_the_layers_and_can_be_dropped(page: Page) -> None:
    widget = show(page, **tracks(15, 30))
    region = page.get_by_role("region", name="Tracked tokens over layers")
    chart = region.get_by_role("img", name="Probability of When, ␣John, ␣and over layers, position 14 ␣to")
    expect(chart).to_be_visible()
    lines = region.locator(".iw-chart__svg").first.locator("path")
    look = "(paths) => paths.map(getComputedStyle).map((style) => style.stroke + style.strokeDasharray)"
    expect(lines).to_have_count(3)
    assert len(set(lines.evaluate_all(look))) == 3
    region.get_by_role("button", name="Stop tracking ␣John").click()
    assert asked(widget)[-1] == {"op": "untrack", "token": 101}
    kept = lines.nth(2).get_attribute("style")
    left = tracks(15, 30)["_tracks"]
    left["tokens"] = [left["tokens"][0], left["tokens"][2]]
    widget.push(_tracks={**left, "id": 2})
    expect(lines).to_have_count(2)
    assert lines.nth(1).get_attribute("style") == kept, "a token keeps its look when another one goes"
    widget.push(_tracks=None, tracked=[])
    expect(region).to_be_hidden()


def test_token_of_the_prompt_is_replaced_by_text_or_by_what_the_model_expects(page: Page) -> None:
    widget = show(page)
    token = page.get_by_role("list", name="prompt tokens").get_by_role("button").nth(2)
    token.click()
    dialog = page.get_by_role("dialog", name="Replace position 2 ␣John")
    typed = dialog.get_by_role("textbox")
    expect(typed).to_be_focused()
    expect(typed).to_have_value(" John")
    typed.fill(" Anna ")
    expect(dialog).to_contain_text("reads as ␣Anna␣")
    typed.press("Enter")
    assert asked(widget)[-1] == {"op": "replace", "position": 2, "text": " Anna "}
    expect(dialog).to_be_hidden()
    token.click()
    offer = dialog.get_by_role("table", name="Model's alternatives").get_by_role("button").first
    token_id = int(offer.get_attribute("data-key") or "")
    offer.click()
    assert asked(widget)[-1] == {"op": "replace", "position": 2, "token": token_id}
    token.click()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(token).to_be_focused()


def test_the_prompts_tokens_are_one_stop_of_tab_and_arrows_go_from_one_to_the_next(page: Page) -> None:
    show(page)
    tokens = page.get_by_role("list", name="prompt tokens").get_by_role("button")
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(tokens.nth(14)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Edit prompt")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(tokens.nth(14)).to_be_focused()


def test_without_a_tokenizer_a_token_id_is_typed(page: Page) -> None:
    state = lens(3)
    asked_by_id = {"_prompt": state["_prompt"] | {"text": None}, "_header": state["_header"] | {"tokenizer": False}}
    widget = mount(page, "logit_lens.js", state | asked_by_id)
    page.get_by_role("list", name="prompt tokens").get_by_role("button").nth(0).click()
    typed = page.get_by_role("dialog").get_by_role("textbox")
    expect(typed).to_have_value("1")
    typed.fill("word")
    typed.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("a token id is needed")
    assert widget.requests() == []
    typed.fill("17")
    typed.press("Enter")
    assert asked(widget)[-1] == {"op": "replace", "position": 0, "token": 17}


def test_a_prompt_of_ids_has_its_tokens_replaced_by_text_where_there_is_a_tokenizer(page: Page) -> None:
    state = lens(3)
    widget = mount(page, "logit_lens.js", state | {"_prompt": state["_prompt"] | {"text": None}})
    page.get_by_role("list", name="prompt tokens").get_by_role("button").nth(1).click()
    typed = page.get_by_role("dialog").get_by_role("textbox")
    expect(typed).to_have_value("When")
    typed.fill("17")
    typed.press("Enter")
    assert asked(widget)[-1] == {"op": "replace", "position": 1, "text": "17"}


def test_hidden_state_is_transplanted_by_mouse(page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 1100})
    widget = show(page, cell=[13, 2])
    page.get_by_role("button", name="Transplant from L12 · position 2").click()
    expect(banner(page)).to_contain_text("pick a target for L12 · position 2 ␣John")
    at = place(page, 20, 6)
    before = widget.pixel(GRID, at["x"] + 30, at["y"] - 40)
    grid(page).hover(position=at)
    widget.settle()
    assert widget.pixel(GRID, at["x"] + 30, at["y"] - 40) != before, "the causal cone of the target is shaded"
    grid(page).click(position=at)
    assert asked(widget)[-1] == {"op": "transplant_cells", "source": [13, 2], "target": [20, 6]}
    assert widget.sent("cell") == [], "picking a target does not move the selection"
    expect(banner(page)).not_to_contain_text("pick a target")


def test_hidden_state_is_transplanted_by_keyboard_and_escape_cancels(page: Page) -> None:
    widget = show(page, cell=[13, 2])
    grid(page).focus()
    page.keyboard.press("t")
    page.keyboard.press("ArrowRight")
    expect(page.locator("[aria-live=polite]")).to_contain_text("L12 position 3")
    page.keyboard.press("Escape")
    expect(banner(page)).not_to_contain_text("pick a target")
    expect(readout(page)).to_contain_text("L12 position 3")
    for key in ("Enter", "ArrowRight", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    request = widget.requests()[-1]
    assert (request["op"], request["source"]) == ("transplant_cells", [13, 2])
    assert request["target"] != request["source"]


def test_source_is_no_target(page: Page) -> None:
    widget = show(page, cell=[13, 2])
    grid(page).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert widget.requests() == []
    expect(page.locator("[aria-live=polite]")).to_have_text("source and target are the same cell")


def test_second_grid_shows_what_changed_and_what_could_not(page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 1900})
    widget = show(page, **experiment(15, 30))
    second = page.get_by_role("region", name="With experiments")
    expect(second).to_contain_text("untouched: the experiments do not reach it")
    expect(second).to_contain_text("now − baseline")
    grid(page, SECOND).hover(position=place(page, 25, 1, name=SECOND))
    expect(readout(page)).to_contain_text("untouched by the experiments")
    grid(page, SECOND).hover(position=place(page, 25, 8, name=SECOND))
    expect(readout(page)).to_contain_text("→")
    columns = page.get_by_role("table", name="Top 10 of this cell").get_by_role("columnheader")
    expect(columns).to_have_text(["next token", "baseline", "now"])
    second.get_by_role("button", name="Value").click()
    expect(second).not_to_contain_text("untouched: outside")
    widget.push(_now=None, _experiments=[])
    expect(second).to_be_hidden()


@pytest.mark.parametrize(("width", "beside"), [(1600, True), (1100, False), (720, False)])
def test_both_grids_stand_in_line_where_they_fit(page: Page, width: int, beside: bool) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    show(page, **experiment(15, 30), **tracks(15, 30))
    before, now = (grid(page, name).locator("canvas").bounding_box() for name in (GRID, SECOND))
    assert before
    assert now
    assert (before["y"] == now["y"]) == beside
    assert (before["x"] + before["width"] < now["x"]) == beside
    for name in (GRID, SECOND):
        assert grid(page, name).evaluate("(e) => e.scrollWidth <= e.clientWidth + 1"), "all positions are in sight"


@pytest.mark.parametrize("width", [1300, 900, 420])
def test_the_cells_panel_never_parts_the_grids(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    show(page, **experiment(15, 30))
    second = grid(page, SECOND).bounding_box()
    panel = page.get_by_role("table", name="Top 10 of this cell").bounding_box()
    assert second
    assert panel
    assert panel["y"] > second["y"] + second["height"] or panel["x"] > second["x"] + second["width"]


def test_the_selected_cell_stays_in_sight_when_the_width_changes(page: Page) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    widget = show(page, length=60, layers=30)
    surface = grid(page)
    right = "(e) => [e.scrollLeft + e.clientWidth, e.scrollWidth]"
    for width in (1200, 800, 500, 900):
        page.set_viewport_size({"width": width, "height": 1000})
        widget.settle()
        seen, whole = surface.evaluate(right)
        assert seen == pytest.approx(whole, abs=60), width
    surface.evaluate("(e) => { e.scrollLeft = 0; }")
    page.set_viewport_size({"width": 600, "height": 1000})
    widget.settle()
    assert surface.evaluate("(e) => e.scrollLeft") == 0, "it was out of sight before"


def test_metric_is_asked_for_only_when_it_has_not_come(page: Page) -> None:
    widget = show(page)
    page.get_by_role("button", name="entropy").first.click()
    assert (widget.sent("metric"), widget.requests()) == (["entropy"], [])
    expect(page.get_by_role("img", name="colour scale: entropy of the prediction, nats")).to_be_visible()
    page.get_by_role("button", name="KL to last").click()
    assert asked(widget)[-1] == {"op": "compute", "metric": "kl"}
    expect(page.get_by_role("region", name="Baseline")).to_contain_text("not computed yet")
    widget.push(_grid=reading(15, 30, kl=True, number=widget.requests()[-1]["id"]))
    widget.answer()
    expect(page.get_by_role("region", name="Baseline")).not_to_contain_text("not computed yet")


def test_every_request_is_an_operation_of_the_python_widget(page: Page) -> None:
    widget = show(page, cell=[13, 2], **tracks(15, 30))
    row_of(page).get_by_role("button").click()
    page.get_by_role("button", name="Stop tracking ␣John").click()
    page.get_by_role("button", name="KL to last").click()
    page.get_by_role("list", name="prompt tokens").get_by_role("button").nth(2).click()
    page.keyboard.press("Enter")
    grid(page).focus()
    for key in ("t", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    asked = {request["op"] for request in widget.requests()}
    assert asked == {"track", "untrack", "compute", "replace", "transplant_cells"}
    assert asked <= set(LogitLens.operations)


def test_grid_fills_from_the_top_row_without_a_jump(page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 1100})
    running = {**IDLE, "id": 7, "state": "running"}
    widget = show(page, _grid={}, _request={"id": 7, "op": "run"}, _status=running, cell=[3, 5])
    before = page.locator(".iw-root").bounding_box()
    for rows in (slice(27, 31), slice(23, 27)):
        widget.push(_part=reading(15, 30, part=rows, number=7), _status={**running, "done": 120, "total": 465})
    expect(readout(page)).to_contain_text("not known yet")
    grid(page).hover(position=place(page, 29, 5))
    expect(readout(page)).to_contain_text("%")
    opacity = grid(page).evaluate("(el) => getComputedStyle(el.closest('.iw-surface')).opacity")
    assert opacity == "1", "what is arriving is not veiled"
    widget.push(_grid=reading(15, 30, number=7), _part=None, _status={**IDLE, "id": 7, "ms": 200})
    widget.settle()
    expect(readout(page)).not_to_contain_text("not known yet")
    assert page.locator(".iw-root").bounding_box() == before


def test_older_results_are_dropped(page: Page) -> None:
    widget = show(page, _grid=reading(15, 30, number=5), cell=[30, 5])
    said = readout(page).text_content()
    widget.push(_grid=reading(15, 30, seed=9, number=4))
    widget.settle()
    assert readout(page).text_content() == said
    widget.push(_grid=reading(15, 30, seed=9, number=6))
    expect(readout(page)).not_to_have_text(said or "")


def test_shorter_prompt_leaves_nothing_of_the_longer_one(page: Page) -> None:
    widget = show(page, cell=[30, 14], **experiment(15, 30))
    page.get_by_role("button", name="Transplant from").click()
    widget.push(_prompt=lens(3)["_prompt"])
    widget.push(_grid=reading(3, 30, number=9))
    expect(readout(page)).to_contain_text("L29 position 2 ␣John")
    expect(page.get_by_role("region", name="With experiments")).to_be_hidden()
    expect(banner(page)).not_to_contain_text("pick a target")


def test_markup_in_tokens_is_text(page: Page) -> None:
    state = lens()
    evil = "<img src=x onerror=alert(1)>"
    state["_grid"]["texts"] = dict.fromkeys(state["_grid"]["texts"], evil)
    state["_prompt"]["tokens"][14]["text"] = evil
    mount(page, "logit_lens.js", state)
    expect(row_of(page)).to_contain_text("<img src")
    page.get_by_role("list", name="prompt tokens").get_by_role("button").nth(14).click()
    assert page.locator(".iw-root img").count() == 0


def test_closing_a_view_leaves_no_listener(page: Page) -> None:
    widget = show(page, **tracks(15, 30), **experiment(15, 30))
    assert page.evaluate("() => harness.model.count()") > 0
    page.evaluate("() => harness.close(0)")
    assert page.evaluate("() => harness.model.count()") == 0
    widget.push(_status={**IDLE, "ms": 3})
    expect(page.locator(".iw-root")).to_have_count(0)


def test_two_views_select_together_but_pick_apart(page: Page) -> None:
    show(page, cell=[13, 2])
    page.evaluate("() => harness.open()")
    first, other = page.locator(".iw-root").nth(0), page.locator(".iw-root").nth(1)
    grid(first).focus()
    page.keyboard.press("ArrowUp")
    expect(other.locator(".iw-readout")).to_contain_text("L13 position 2")
    page.keyboard.press("t")
    expect(banner(first)).to_contain_text("pick a target")
    expect(banner(other)).not_to_contain_text("pick a target")


def test_dark_theme_repaints_the_cells(page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 1100})
    widget = show(page)
    at = place(page, 0, 0)
    light = widget.pixel(GRID, at["x"] - 20, at["y"])
    widget.theme(dark=True)
    widget.settle()
    assert widget.pixel(GRID, at["x"] - 20, at["y"]) != light


@pytest.mark.sampled
@pytest.mark.parametrize("width", [360, 900, 1800])
@pytest.mark.parametrize(("length", "layers"), [(3, 30), (15, 30), (200, 80)])
def test_nothing_sticks_out_at_any_width(page: Page, width: int, length: int, layers: int) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    show(page, length=length, layers=layers, **experiment(length, layers), **tracks(length, layers))
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    # What follows a token in the panel is cut by no ancestor.
    for caption in page.locator(".iw-caption:visible, .iw-readout").all():
        assert caption.evaluate("(el) => el.scrollWidth <= el.clientWidth + 1"), caption.text_content()


@pytest.mark.sampled
@pytest.mark.parametrize("changed", [False, True], ids=["baseline", "experiment"])
@pytest.mark.parametrize(
    ("width", "length", "layers"),
    [(420, 15, 30), (900, 3, 30), (900, 15, 30), (1500, 15, 30), (1500, 60, 80)],
)
def test_pictures_to_look_at(page: Page, width: int, length: int, layers: int, changed: bool) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    now = experiment(length, layers) if changed else {}
    widget = show(page, length=length, layers=layers, **now, **tracks(length, layers, now=changed))
    name = f"lens-{width}-{length}{'-experiment' if changed else ''}"
    widget.screenshot(f"{name}-light")
    widget.theme(dark=True)
    widget.screenshot(f"{name}-dark")
