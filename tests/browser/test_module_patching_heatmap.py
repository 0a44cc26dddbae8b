"""The patching widget's module against a fake model: drawing, clicks, keyboard, filling, disposal."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.harness.mounting import IDLE, Mounted, mount
from tests.browser.harness.patching import CLEAN, CORRUPTED, DOUBT, SITES, cell, effects, patched, patching, sweep

ENTRY = "patching_heatmap.js"
RESIDUAL = "resid_pre patching effect, layer by position"


def show(page: Page, **options: Any) -> Mounted:
    return mount(page, ENTRY, patching(**options))


def press(mounted: Mounted, grid: str, *keys: str) -> None:
    mounted.page.get_by_role("grid", name=grid).focus()
    for key in keys:
        mounted.page.keyboard.press(key)
    mounted.settle()


def spoken(mounted: Mounted, grid: str) -> str:
    mounted.settle()
    return mounted.page.get_by_role("grid", name=grid).get_by_role("gridcell").inner_text()


def asked(mounted: Mounted) -> list[dict[str, Any]]:
    """The requests without their ids."""
    return [{name: value for name, value in request.items() if name != "id"} for request in mounted.requests()]


def readout(page: Page) -> Locator:
    return page.get_by_label("Patching map").locator(".iw-readout")


@pytest.mark.parametrize("form", ["view", "buffer", "base64"])
def test_effects_are_exact_in_every_binary_form(page: Page, form: str) -> None:
    share = effects("resid_pre", 30, 15, 10)[2, 10]
    mounted = mount(page, ENTRY, patching(), form=form)
    press(mounted, RESIDUAL, "ArrowUp", "ArrowUp", *["ArrowRight"] * 10)
    value = CORRUPTED + (CLEAN - CORRUPTED) * share
    assert spoken(mounted, RESIDUAL) == (
        f"L2 · position 10 clean ␣Mary, corrupted ␣John: {share:.3f} of the gap restored · "
        f"patched logit difference {value:.3f} logits · clean 4.352 · corrupted −4.773"
    )
    expect(readout(page)).to_contain_text(f"{share:.3f} of the gap restored")


def test_widget_sends_nothing_until_asked(page: Page) -> None:
    assert show(page).page.evaluate("() => harness.model.sent") == []


def test_layer_zero_is_drawn_lowest(page: Page) -> None:
    mounted = show(page, layers=4)
    box = page.get_by_role("grid", name=RESIDUAL).locator("canvas").bounding_box()
    assert box
    press(mounted, RESIDUAL, "Home")
    before = spoken(mounted, RESIDUAL)
    press(mounted, RESIDUAL, "ArrowUp")
    assert (before[:2], spoken(mounted, RESIDUAL)[:2]) == ("L0", "L1")


def test_differing_tokens_are_marked_in_both_prompts(page: Page) -> None:
    show(page)
    for side, name in [("clean", "␣Mary"), ("corrupted", "␣John")]:
        expect(page.get_by_role("group", name=side).locator(".iw-token--marked .iw-token__text")).to_have_text([name])


def test_enter_patches_one_cell_and_shift_enter_adds_and_removes(page: Page) -> None:
    mounted = show(page)
    press(
        mounted,
        RESIDUAL,
        "Enter",
        "ArrowRight",
        "Shift+Enter",
        "ArrowUp",
        "Shift+Enter",
        "ArrowDown",
        "Shift+Enter",
    )
    assert [request["cells"] for request in mounted.requests()] == [
        [cell(0, 0)],
        [cell(0, 0), cell(0, 1)],
        [cell(0, 0), cell(0, 1), cell(1, 1)],
        [cell(0, 0), cell(1, 1)],
    ]
    expect(page.get_by_text("with 2 cells patched jointly")).to_be_visible()
    page.get_by_role("button", name="Clear the 2 patched cells").click()
    assert asked(mounted)[-1] == {"op": "patch", "cells": []}


def test_click_patches_the_cell_under_the_pointer_and_shift_click_joins(page: Page) -> None:
    mounted = show(page, layers=4)
    canvas = page.get_by_role("grid", name=RESIDUAL).locator("canvas")
    canvas.hover(position={"x": 200, "y": 30})
    here = readout(page).inner_text().split(" ")[0]
    canvas.click(position={"x": 200, "y": 30})
    canvas.click(position={"x": 300, "y": 60}, modifiers=["Shift"])
    first, second = mounted.requests()
    assert [f"L{each['layer']}" for each in first["cells"]] == [here] == ["L3"]
    assert second["cells"][0] == first["cells"][0]
    assert len(second["cells"]) == 2


def test_before_any_patch_the_predictions_of_both_runs_are_shown(page: Page) -> None:
    show(page)
    row = page.get_by_role("table", name="Predictions").get_by_role("row", name="␣John")
    expect(row.get_by_role("cell")).to_have_text(["84.0%", "0.7%", ""])


def test_patched_predictions_stand_beside_clean_and_corrupted(page: Page) -> None:
    mounted = show(page)
    press(mounted, RESIDUAL, "Enter")
    number = mounted.requests()[-1]["id"]
    mounted.push(_patched=patched([cell(0, 0)], number), _status={**IDLE, "id": number})
    table = page.get_by_role("table", name="Predictions")
    expect(table.get_by_role("columnheader")).to_have_text(["token", "clean", "corrupted", "patched"])
    expect(table.get_by_role("row", name="␣John")).to_contain_text("84.0%0.7%67.7%")
    expect(page.get_by_text("with resid_pre L0 · position 0 patched")).to_be_visible()
    expect(page.get_by_text("logit difference −0.101 logits: 0.512 of the gap restored", exact=True)).to_be_visible()


def test_a_late_answer_to_an_earlier_click_leaves_the_newer_choice(page: Page) -> None:
    mounted = show(page)
    press(mounted, RESIDUAL, "Enter", "ArrowRight", "Enter")
    first, second = mounted.requests()
    mounted.push(_patched=patched([cell(0, 0)], first["id"]))
    expect(page.get_by_text("with resid_pre L0 · position 1 patched")).to_be_visible()
    mounted.push(_patched=patched([cell(0, 1)], second["id"]))
    mounted.push(_patched=patched([cell(7, 7)], first["id"]))
    mounted.settle()
    expect(page.get_by_text("with resid_pre L0 · position 1 patched")).to_be_visible()


def test_results_that_python_takes_back_are_cleared(page: Page) -> None:
    mounted = show(page, site="attn_out", _patched=patched([cell(3, 4)]), _drill=sweep("z", layer=3))
    expect(page.get_by_label("L3 heads")).to_be_visible()
    mounted.push(_patched=None, _drill=None)
    expect(page.get_by_label("L3 heads")).to_be_hidden()
    expect(page.get_by_text("click a cell to run that patch")).to_be_visible()


@pytest.mark.parametrize(
    ("control", "sent"),
    [
        ("mlp_out", {"site": "mlp_out"}),
        ("q", {"site": "q"}),
        ("Break (noise)", {"direction": "noise"}),
        ("Raw", {"normalize": False}),
    ],
)
def test_a_setting_is_pressed_at_once_and_asked_for(page: Page, control: str, sent: dict[str, Any]) -> None:
    mounted = show(page)
    button = page.get_by_role("button", name=control, exact=True)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    assert asked(mounted) == [{"op": "set", **sent}]
    mounted.answer(error={"title": "Refused", "text": "no", "hint": ""})
    expect(button).to_have_attribute("aria-pressed", "false")


def test_a_site_that_the_model_lacks_says_why_and_asks_nothing(page: Page) -> None:
    mounted = show(page, _sites=[site for site in SITES if site != "resid_mid"])
    button = page.get_by_role("button", name="resid_mid")
    expect(button).to_have_attribute("aria-disabled", "true")
    assert "parallel" in (button.get_attribute("title") or "")
    button.click(force=True)
    assert mounted.requests() == []


def test_answer_is_edited_in_place_with_its_space_visible(page: Page) -> None:
    mounted = show(page)
    field = page.get_by_label("Answer token")
    expect(field).to_have_value("␣John")
    field.fill("")
    page.keyboard.type(" Anne")
    expect(field).to_have_value("␣Anne")
    page.keyboard.press("Escape")
    expect(field).to_have_value("␣John")
    field.fill("")
    page.keyboard.type(" Anne")
    page.keyboard.press("Enter")
    page.get_by_label("Foil token").focus()
    assert asked(mounted) == [{"op": "set", "answer": " Anne"}]


def test_answer_is_an_id_in_a_session_without_tokenizer(page: Page) -> None:
    state = patching()
    state["_header"]["tokenizer"] = False
    mounted = mount(page, ENTRY, state)
    page.get_by_label("Answer token").fill("17")
    page.keyboard.press("Enter")
    assert asked(mounted) == [{"op": "set", "answer": 17}]


def test_prompts_of_ids_stay_ids_where_there_is_a_tokenizer_and_answers_are_text(page: Page) -> None:
    state = patching(4)
    for side in ("clean", "corrupted"):
        state["_prompts"][side]["text"] = None
    ids = {side: [token["id"] for token in state["_prompts"][side]["tokens"]] for side in ("clean", "corrupted")}
    mounted = mount(page, ENTRY, state)
    page.get_by_label("Answer token").fill("8")
    page.keyboard.press("Enter")
    assert asked(mounted)[-1] == {"op": "set", "answer": "8"}
    page.get_by_role("button", name="Edit clean").click()
    page.get_by_role("textbox", name="clean").fill("7, 8")
    page.keyboard.press("Enter")
    assert asked(mounted)[-1] == {"op": "run", "clean": [7, 8], "corrupted": ids["corrupted"]}
    mounted.answer("error", error={"title": "Different lengths", "text": "2 and 4 tokens", "hint": ""})
    expect(page.get_by_text("Edit corrupted to go on: the edited clean prompt is kept")).to_be_visible()
    page.get_by_role("button", name="Edit clean").click()
    expect(page.get_by_role("textbox", name="clean")).to_have_value("7, 8")
    page.get_by_role("textbox", name="clean").fill(", ".join(map(str, ids["clean"])))
    page.keyboard.press("Enter")
    assert asked(mounted)[-1] == {"op": "run", **ids}
    mounted.answer()
    expect(page.get_by_text("to go on: the edited")).to_be_hidden()
    page.get_by_role("button", name="Edit corrupted").click()
    page.get_by_role("textbox", name="corrupted").fill("now text")
    page.keyboard.press("Enter")
    assert asked(mounted)[-1] == {"op": "run", "clean": ids["clean"], "corrupted": "now text"}


def test_only_the_tokens_that_a_metric_needs_are_asked_for(page: Page) -> None:
    mounted = show(page)
    for metric, answer, foil in [
        ("probability", True, False),
        ("kl", False, False),
        ("logit_diff", True, True),
    ]:
        mounted.push(metric=metric)
        expect(page.get_by_label("Answer token")).to_be_visible(visible=answer)
        expect(page.get_by_label("Foil token")).to_be_visible(visible=foil)


def test_prompts_of_another_length_are_edited_one_after_the_other(page: Page) -> None:
    mounted = show(page)
    old = patching()["_prompts"]["corrupted"]["text"]
    page.get_by_role("button", name="Edit clean").click()
    page.get_by_role("textbox", name="clean").fill("Alice ran to Bob")
    page.keyboard.press("Enter")
    assert asked(mounted)[-1] == {"op": "run", "clean": "Alice ran to Bob", "corrupted": old}
    mounted.answer("error", error={"title": "Different lengths", "text": "5 and 15 tokens", "hint": ""})
    expect(page.get_by_role("alert")).to_contain_text("Different lengths")
    expect(page.get_by_text("Edit corrupted to go on: the edited clean prompt is kept")).to_be_visible()
    page.get_by_role("button", name="Edit corrupted").click()
    page.get_by_role("textbox", name="corrupted").fill("Carol ran to Bob")
    page.keyboard.press("Enter")
    assert asked(mounted)[-1] == {"op": "run", "clean": "Alice ran to Bob", "corrupted": "Carol ran to Bob"}


def test_map_fills_while_it_runs_and_only_what_is_stale_is_veiled(page: Page) -> None:
    mounted = show(page, site="attn_out")
    page.get_by_role("button", name="resid_pre").click()
    number = mounted.requests()[-1]["id"]
    mounted.push(_status={**IDLE, "id": number, "state": "running", "done": 0, "total": 450})
    grid = page.get_by_role("grid", name="attn_out patching effect")
    veiled = page.locator(".iw-patching__map .iw-veil")
    expect(veiled.filter(has=grid)).to_have_count(1)
    mounted.push(
        _sweep=sweep(known=0.43, number=number),
        _status={**IDLE, "id": number, "state": "running", "done": 194, "total": 450},
    )
    expect(page.get_by_text("resid_pre, layer by position: 194 of 450 cells")).to_be_visible()
    expect(page.get_by_text("running · 194 of 450")).to_be_visible()
    expect(veiled).to_have_count(0)
    press(mounted, RESIDUAL, "End")
    assert spoken(mounted, RESIDUAL) == "L0 · position 14 ␣to: not run yet"
    mounted.push(_sweep=sweep(number=number), _status={**IDLE, "id": number})
    expect(page.get_by_text("of 450 cells")).to_have_count(0)


def test_estimates_are_hatched_and_said_until_exact_cells_replace_them_in_place(page: Page) -> None:
    mounted = show(page, layers=30)
    page.get_by_role("button", name="Break (noise)").click()
    number = mounted.requests()[-1]["id"]
    running = {
        **IDLE,
        "id": number,
        "state": "running",
        "message": "≈ 15 forward passes",
        "detail": "146 rows in 1 pass",
    }
    # On the page, which the keyboard may scroll.
    place = "() => document.querySelector('.iw-patching__map .iw-legend').getBoundingClientRect().top + scrollY"
    before = page.evaluate(place)
    mounted.push(_sweep=sweep(known=0.0, estimated=True, number=number), _status=running)
    mounted.settle()
    expect(page.get_by_text("hatched: estimate (attribution patching)")).to_be_visible()
    expect(readout(page)).to_have_text(DOUBT)
    expect(page.get_by_text("running · ≈ 15 forward passes")).to_have_attribute("title", "146 rows in 1 pass")
    expect(page.locator(".iw-patching__map .iw-veil")).to_have_count(0)
    scale = page.locator(".iw-patching__map .iw-legend__ticks")
    expect(scale).to_have_text("−10+1")
    hatched = grid_colours(mounted)
    mounted.screenshot("patching_estimate")
    press(mounted, RESIDUAL, "ArrowUp", "ArrowUp", *["ArrowRight"] * 10)
    share = 0.8 * effects("resid_pre", 30, 15, 10)[2, 10]
    said = f"estimate {share:.3f} of the gap restored · by attribution patching; has not run yet"
    assert spoken(mounted, RESIDUAL) == f"L2 · position 10 clean ␣Mary, corrupted ␣John: {said}"
    expect(readout(page)).to_contain_text("estimate")
    mounted.push(_sweep=sweep(known=0.43, estimated=True, number=number), _status={**running, "done": 60, "total": 146})
    expect(page.get_by_text("resid_pre, layer by position: 194 of 450 cells")).to_be_visible()
    # Exact effects are a little more than the gap: the scale grows with them, whatever the estimates are.
    expect(scale).to_have_text("−1.010+1.01")
    mounted.push(_sweep=sweep(number=number), _status={**IDLE, "id": number})
    mounted.settle()
    expect(scale).to_have_text("−1.040+1.04")
    expect(page.get_by_text("estimate (attribution patching)")).to_have_count(0)
    assert spoken(mounted, RESIDUAL).startswith("L2 · position 10 clean ␣Mary, corrupted ␣John: ")
    assert "estimate" not in spoken(mounted, RESIDUAL)
    page.get_by_label("Answer token").focus()
    mounted.settle()
    assert len(grid_colours(mounted)) < len(hatched)
    assert page.evaluate(place) == before


def grid_colours(mounted: Mounted) -> set[tuple[int, ...]]:
    """The colours inside of one cell whose effect is 0: one if it is plain, several if it is hatched."""
    return {tuple(mounted.pixel(RESIDUAL, 120 + x, 60 + y)) for x in range(8) for y in range(8)}


def test_a_stopped_map_stays_clear_with_its_estimates(page: Page) -> None:
    mounted = show(page)
    page.get_by_role("button", name="Break (noise)").click()
    number = mounted.requests()[-1]["id"]
    said = "194 of 450 cells are exact, the hatched ones are estimates"
    mounted.push(
        _sweep=sweep(known=0.43, estimated=True, number=number, stopped=True),
        _status={**IDLE, "id": number, "state": "cancelled", "message": said},
    )
    expect(page.locator(".iw-status__text")).to_have_text(f"stopped: {said}")
    expect(page.get_by_text("194 of 450 cells, stopped")).to_be_visible()
    expect(page.locator(".iw-patching__map .iw-veil")).to_have_count(0)
    page.get_by_role("button", name="Raw").click()
    mounted.answer(error={"title": "Refused", "text": "no", "hint": ""}, state="error")
    expect(page.locator(".iw-patching__map .iw-veil")).to_have_count(1)


@pytest.mark.parametrize(("width", "dark", "length"), [(420, False, 15), (700, True, 15), (1300, True, 128)])
def test_estimates_at_every_size(page: Page, width: int, dark: bool, length: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    mounted = show(page, length=length, _sweep=sweep(length=length, known=0.3, estimated=True))
    mounted.theme(dark)
    mounted.screenshot(f"patching_estimate_{width}")
    place = "() => document.querySelector('.iw-patching__next').getBoundingClientRect().top"
    before = page.evaluate(place)
    mounted.push(_sweep=sweep(length=length))
    mounted.settle()
    assert page.evaluate(place) == before


def test_a_click_on_a_cell_leaves_the_map_clear(page: Page) -> None:
    mounted = show(page)
    press(mounted, RESIDUAL, "Enter")
    expect(page.locator(".iw-root")).to_have_attribute("data-state", "pending")
    expect(page.locator(".iw-patching__map .iw-veil")).to_have_count(0)


def test_stale_sweeps_are_dropped(page: Page) -> None:
    mounted = show(page)
    mounted.push(_sweep=sweep("mlp_out", number=9))
    mounted.push(_sweep=sweep("attn_out", number=8))
    expect(page.get_by_role("grid", name="mlp_out patching effect, layer by position")).to_be_visible()


def test_attention_row_descends_to_its_heads_and_comes_back(page: Page) -> None:
    mounted = show(page, site="attn_out", _sweep=sweep("attn_out"))
    attention = "attn_out patching effect, layer by position"
    expect(page.get_by_role("button", name="L23: heads by position")).to_be_visible()
    press(mounted, attention, *["ArrowUp"] * 9)
    page.get_by_role("button", name="L9: heads by position").click()
    press(mounted, attention, "ArrowUp", "d")
    assert asked(mounted) == [{"op": "drill", "layer": 9}, {"op": "drill", "layer": 10}]
    number = mounted.requests()[-1]["id"]
    mounted.push(_drill=sweep("z", layer=10, number=number), _status={**IDLE, "id": number})
    inset = "z patching effect of L10, head by position"
    press(mounted, inset, "ArrowDown", "ArrowDown", "ArrowRight", "Enter")
    assert asked(mounted)[-1] == {"op": "patch", "cells": [cell(10, 1, 2, "z")]}
    page.keyboard.press("Escape")
    assert asked(mounted)[-1] == {"op": "drill", "layer": None}
    expect(page.get_by_role("grid", name=attention)).to_be_focused()


def test_the_pointed_token_is_highlighted_in_both_prompts_while_an_inset_is_open(page: Page) -> None:
    mounted = show(page, site="attn_out", _sweep=sweep("attn_out"), _drill=sweep("z", layer=3))
    press(mounted, "attn_out patching effect", "ArrowRight", "ArrowRight")
    mounted.push(_drill=sweep("z", layer=3, number=2))
    mounted.settle()
    for side in ("clean", "corrupted"):
        expect(page.get_by_role("group", name=side).locator("[data-point=primary] .iw-token__text")).to_have_text(
            ["␣John"]
        )


def test_a_residual_map_offers_no_heads(page: Page) -> None:
    mounted = show(page)
    expect(page.get_by_role("button", name="heads by position")).to_be_hidden()
    press(mounted, RESIDUAL, "d")
    assert mounted.requests() == []


def test_head_sites_patch_a_head_at_all_positions(page: Page) -> None:
    mounted = show(page, site="z", _sweep=sweep("z"))
    press(mounted, "z patching effect, layer by head", "ArrowUp", "ArrowRight", "Enter")
    assert asked(mounted)[-1] == {"op": "patch", "cells": [cell(1, None, 1, "z")]}
    assert spoken(mounted, "z patching effect, layer by head").startswith("L1H1, all positions: ")


def test_changing_the_site_moves_nothing_below_the_map(page: Page) -> None:
    mounted = show(page)
    place = "() => document.querySelector('.iw-patching__map .iw-legend').getBoundingClientRect().top"
    before = page.evaluate(place)
    mounted.push(site="z", _sweep=sweep("z", number=2))
    expect(page.get_by_role("grid", name="z patching effect, layer by head")).to_be_visible()
    mounted.settle()
    assert page.evaluate(place) == before


def test_a_zero_gap_shows_raw_changes_and_says_why(page: Page) -> None:
    state = patching(_sweep=sweep(gap_is_zero=True, clean=CORRUPTED))
    state["_task"] |= {"clean": CORRUPTED, "gap_is_zero": True}
    mounted = mount(page, ENTRY, state)
    expect(page.get_by_role("note")).to_contain_text(
        "Clean and corrupted score the same (logit difference −4.773 logits)"
    )
    expect(page.get_by_role("button", name="Raw")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Share of gap")).to_have_attribute("aria-disabled", "true")
    expect(page.get_by_role("img", name="change in logit difference, logits")).to_be_visible()
    press(mounted, RESIDUAL, "End")
    press(mounted, RESIDUAL, "Home")
    assert spoken(mounted, RESIDUAL).startswith("L0 · position 0 <|im_start|>: 0.000 logits")


def test_noising_counts_down_from_zero(page: Page) -> None:
    mounted = show(page, direction="noise", _sweep=sweep(direction="noise", baseline=CLEAN))
    expect(page.get_by_role("img", name="−1 = all lost")).to_be_visible()
    assert "−1.000 of the gap" in spoken(mounted, RESIDUAL)


def test_frame_stands_before_any_number(page: Page) -> None:
    mounted = show(page, _sweep={}, _task={})
    assert spoken(mounted, RESIDUAL) == "L0 · position 0 <|im_start|>: not run yet"


def test_markup_in_tokens_and_answers_is_text(page: Page) -> None:
    evil = "<img src=x onerror=alert(1)>"
    state = patching()
    state["_prompts"]["clean"]["tokens"][3]["text"] = evil
    state["_task"]["answer"]["text"] = evil
    state["_sweep"]["labels"]["position"][0] = evil
    state["_patched"] = patched([cell(1, 1)])
    state["_patched"]["rows"][0]["text"] = evil
    mounted = mount(page, ENTRY, state)
    press(mounted, RESIDUAL, "Home")
    assert evil in spoken(mounted, RESIDUAL)
    expect(page.locator("img")).to_have_count(0)


def test_theme_change_redraws_the_map(page: Page) -> None:
    mounted = show(page)
    light = mounted.pixel(RESIDUAL, 100, 60)
    mounted.theme(dark=True)
    mounted.settle()
    dark = mounted.pixel(RESIDUAL, 100, 60)
    assert sum(light[:3]) > 600 > 200 > sum(dark[:3])


@pytest.mark.parametrize("signal", [True, False])
def test_disposal_leaves_no_listener(page: Page, signal: bool) -> None:
    mount(page, ENTRY, patching(site="attn_out", _drill=sweep("z", layer=2)), signal=signal)
    assert page.evaluate("() => harness.model.count()") > 0
    page.evaluate("() => harness.close(0)")
    assert page.evaluate("() => harness.model.count()") == 0


_SHOWN = {"_patched": patched([cell(24, 14)])}


@pytest.mark.sampled
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("name", "width", "state"),
    [
        ("420", 420, patching(**_SHOWN)),
        ("900", 900, patching(**_SHOWN)),
        ("1500", 1500, patching(**_SHOWN)),
        ("3-tokens", 420, patching(3)),
        ("60-tokens", 900, patching(60)),
        ("60-tokens-1500", 1500, patching(60)),
        ("80-layers", 1500, patching(200, 80, 64)),
        (
            "filling",
            900,
            patching(
                _sweep=sweep(known=0.43),
                _status={**IDLE, "id": 1, "state": "running", "done": 194, "total": 450},
            ),
        ),
        ("heads", 900, patching(site="z", _sweep=sweep("z"))),
        (
            "drill",
            900,
            patching(
                site="attn_out",
                _sweep=sweep("attn_out"),
                _drill=sweep("z", layer=23),
                _patched=patched([cell(23, 3, 5, "z"), cell(23, 7, 7, "z"), cell(25, 14, None, "attn_out")]),
            ),
        ),
        ("zero-gap", 900, patching(_sweep=sweep(gap_is_zero=True, clean=CORRUPTED))),
    ],
)
def test_pictures_fit_their_width(page: Page, name: str, width: int, state: dict[str, Any], dark: bool) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    mounted = mount(page, ENTRY, state)
    mounted.theme(dark)
    mounted.screenshot(f"patching-{name}-{'dark' if dark else 'light'}")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
