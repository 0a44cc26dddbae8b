"""The strip of experiments: what each chip can do, by mouse and by keyboard."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.harness import states
from tests.browser.harness.lens import experiment as transplant
from tests.browser.harness.lens import lens
from tests.browser.harness.mounting import Mounted, mount

ALL = [
    states.experiment("z L9H6 → 0", "iw.Ablate('z', layer=9, head=6)"),
    states.experiment("z L9H9 → 0", group="name movers"),
    states.experiment("z L10H0 → mean", group="name movers", on=False),
    states.experiment("mlp_out L0 × 0.5", strength={"value": 0.5, "before": "mlp_out L0 ×", "after": ""}),
    states.experiment("resid_post L6 + 4 · direction", name="towards Paris", strength={
        "value": 4, "before": "resid_post L6 +", "after": " · direction",
    }),
]  # fmt: skip


def show(page: Page, experiments: list[dict[str, Any]] = ALL) -> Mounted:
    return mount(page, "attention_pattern.js", states.attention(changed=True) | {"_experiments": experiments})


def strip(page: Page) -> Locator:
    return page.get_by_role("list", name="Experiments")


def asked(mounted: Mounted) -> dict[str, Any]:
    return {name: value for name, value in mounted.requests()[-1].items() if name != "id"}


def test_chips_show_names_strengths_and_groups(page: Page) -> None:
    show(page)
    expect(strip(page).get_by_role("button", name="towards Paris", exact=True)).to_be_visible()
    expect(page.get_by_role("spinbutton", name="strength of mlp_out L0 × 0.5")).to_have_value("0.5")
    group = page.get_by_role("list", name="name movers")
    expect(group.get_by_role("listitem")).to_have_count(2)
    expect(group.get_by_role("button", name="z L10H0 → mean", exact=True)).to_have_attribute("aria-pressed", "false")


def test_a_strength_is_typed_in_place_and_survives_other_changes(page: Page) -> None:
    mounted = show(page)
    number = page.get_by_role("spinbutton", name="strength of mlp_out L0 × 0.5")
    number.fill("-1.25")
    mounted.push(_status={"id": 1, "state": "running", "done": 1, "total": 3, "message": "", "ms": 0, "error": None})
    expect(number).to_have_value("-1.25")  # what goes on meanwhile does not take the text away
    number.press("Enter")
    assert asked(mounted) == {"op": "set_strength", "index": 3, "value": -1.25}


def test_a_strength_being_typed_outlives_changes_of_the_list_and_goes_to_its_experiment(page: Page) -> None:
    mounted = show(page)
    number = page.get_by_role("spinbutton", name="strength of mlp_out L0 × 0.5")
    number.press("Control+A")
    page.keyboard.type("-1.2")
    mounted.push(_experiments=ALL[1:])  # an earlier one is removed elsewhere
    page.keyboard.type("5")
    expect(number).to_have_value("-1.25")
    number.press("Enter")
    assert asked(mounted) == {"op": "set_strength", "index": 2, "value": -1.25}
    expect(strip(page).get_by_role("button", name="z L9H6 → 0", exact=True)).to_have_count(0)
    before = len(mounted.requests())
    number.press("Control+A")
    page.keyboard.type("3")
    mounted.push(_experiments=ALL[:2])  # its own one is removed elsewhere
    number.press("Shift+Tab")
    expect(number).to_have_count(0)
    assert len(mounted.requests()) == before
    expect(strip(page).get_by_role("button", name="z L9H9 → 0", exact=True)).to_be_focused()


@pytest.mark.parametrize("leaves", ["Enter", "Tab"])
def test_a_name_being_typed_outlives_changes_of_the_list_and_goes_to_its_experiment(page: Page, leaves: str) -> None:
    mounted = show(page)
    strip(page).get_by_role("button", name="z L9H9 → 0", exact=True).focus()
    page.keyboard.press("F2")
    page.keyboard.type("half a ")
    mounted.push(_experiments=[ALL[1] | {"note": "changed nothing here"}, *ALL[2:]])
    page.keyboard.type("name")
    assert mounted.requests() == []
    page.keyboard.press(leaves)
    assert asked(mounted) == {"op": "rename", "index": 0, "name": "half a name"}
    expect(strip(page)).to_contain_text("changed nothing here")
    strip(page).get_by_role("button", name="z L9H9 → 0", exact=True).focus()
    page.keyboard.press("F2")
    page.keyboard.type("of nothing")
    mounted.push(_experiments=ALL[2:])
    page.keyboard.press(leaves)
    expect(page.get_by_role("textbox", name="name of z L9H9 → 0")).to_have_count(0)
    assert len(mounted.requests()) == 1


def test_an_experiment_is_renamed_by_f2_and_escape_keeps_the_name(page: Page) -> None:
    mounted = show(page)
    chip = strip(page).get_by_role("button", name="z L9H6 → 0", exact=True)
    chip.focus()
    page.keyboard.press("F2")
    typed = page.get_by_role("textbox", name="name of z L9H6 → 0")
    expect(typed).to_be_focused()
    typed.fill("never sent")
    typed.press("Escape")
    expect(chip).to_be_visible()
    assert mounted.requests() == []
    chip.focus()
    page.keyboard.press("F2")
    page.keyboard.type("duplicate token head")
    page.keyboard.press("Enter")
    assert asked(mounted) == {"op": "rename", "index": 0, "name": "duplicate token head"}
    expect(chip).to_be_focused()
    before = len(mounted.requests())
    page.keyboard.press("F2")
    page.keyboard.press("Enter")  # the label as it is: that is no name
    expect(chip).to_be_focused()
    assert len(mounted.requests()) == before


def test_chips_are_moved_by_keys_and_by_dragging(page: Page) -> None:
    mounted = show(page)
    chip = strip(page).get_by_role("button", name="z L9H6 → 0", exact=True)
    chip.focus()
    page.keyboard.press("Shift+ArrowLeft")  # the first has no place before
    assert mounted.requests() == []
    page.keyboard.press("Shift+ArrowRight")
    assert asked(mounted) == {"op": "move", "index": 0, "to": 1}
    target = strip(page).get_by_role("button", name="towards Paris", exact=True)
    start, end = chip.bounding_box(), target.bounding_box()
    assert start
    assert end
    page.mouse.move(start["x"] + 8, start["y"] + 8)
    page.mouse.down()
    page.mouse.move(end["x"] + 8, end["y"] + 8, steps=5)
    page.mouse.up()
    assert [request["op"] for request in mounted.requests()] == ["move", "move"]  # the drag's click switches nothing
    assert asked(mounted) == {"op": "move", "index": 0, "to": 4}
    chip.focus()
    page.keyboard.press("Delete")
    assert asked(mounted) == {"op": "remove", "index": 0}


def test_the_keyboard_goes_with_the_experiment_that_it_moves(page: Page) -> None:
    mounted = show(page)
    chip = strip(page).get_by_role("button", name="z L9H6 → 0", exact=True)
    chip.focus()
    page.keyboard.press("Shift+ArrowRight")
    mounted.push(_experiments=[ALL[1], ALL[0] | {"group": "name movers"}, *ALL[2:]])
    expect(chip).to_be_focused()
    page.keyboard.press("Shift+ArrowRight")
    assert asked(mounted) == {"op": "move", "index": 1, "to": 2}
    page.keyboard.press("Shift+ArrowRight")  # before Python has answered: on from where it is to go
    assert asked(mounted) == {"op": "move", "index": 2, "to": 3}
    mounted.push(_experiments=[*ALL[1:4], ALL[0], ALL[4]])
    mounted.answer()
    expect(chip).to_be_focused()
    page.keyboard.press("Space")
    assert asked(mounted) == {"op": "toggle", "index": 3}
    mounted.push(_experiments=[*ALL[1:4], ALL[0] | {"on": False}, ALL[4]])
    expect(chip).to_be_focused()  # changed, and still the one
    more = strip(page).get_by_role("button", name="More for z L9H6 → 0", exact=True)
    more.click()
    page.get_by_role("menuitem", name="Move earlier").click()
    mounted.push(_experiments=[*ALL[1:3], ALL[0] | {"on": False}, *ALL[3:]])
    expect(more).to_be_focused()
    mounted.push(_experiments=[*ALL[1:3], *ALL[3:]])  # removed elsewhere: its place is kept
    expect(strip(page).get_by_role("button", name="More for mlp_out L0 × 0.5", exact=True)).to_be_focused()


def test_a_move_that_was_refused_is_not_gone_on_from(page: Page) -> None:
    mounted = show(page)
    strip(page).get_by_role("button", name="z L9H6 → 0", exact=True).focus()
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
        assert asked(mounted) == {"op": "move", "index": 0, "to": 1}
        mounted.answer()


def test_an_open_menu_stays_with_its_experiment(page: Page) -> None:
    mounted = show(page)
    strip(page).get_by_role("button", name="More for mlp_out L0 × 0.5", exact=True).click()
    mounted.push(_experiments=ALL[1:])
    expect(page.get_by_role("menu", name="mlp_out L0 × 0.5")).to_be_visible()


@pytest.mark.parametrize(
    ("chip", "action", "request_sent"),
    [
        ("mlp_out L0 × 0.5", "Move earlier", {"op": "move", "index": 3, "to": 2}),
        ("mlp_out L0 × 0.5", "Group with the one before", {"op": "group", "indices": [1, 2, 3], "name": "name movers"}),
        ("towards Paris", "Group with the one before", {"op": "group", "indices": [3, 4], "name": "group 1"}),
        ("z L9H9 → 0", "Take out of its group", {"op": "group", "indices": [1], "name": ""}),
        ("name movers", "Take apart", {"op": "rename_group", "group": "name movers", "name": ""}),
        ("name movers", "Remove all of it", {"op": "remove_group", "group": "name movers"}),
    ],
)
def test_the_menu_does_what_it_says(page: Page, chip: str, action: str, request_sent: dict[str, Any]) -> None:
    mounted = show(page)
    more = strip(page).get_by_role("button", name=f"More for {chip}", exact=True)
    more.click()
    page.get_by_role("menuitem", name=action).click()
    assert asked(mounted) == request_sent
    expect(page.get_by_role("menu")).to_have_count(0)


def test_the_menu_by_keyboard(page: Page) -> None:
    show(page)
    more = strip(page).get_by_role("button", name="More for z L9H6 → 0", exact=True)
    more.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("menuitem", name="Move later")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_have_count(0)
    expect(more).to_be_focused()  # and not the last chip's
    more.click()
    page.locator(".iw-header__title").click()
    expect(page.get_by_role("menu")).to_have_count(0)


def test_the_menu_of_the_last_chip_stays_inside_a_narrow_widget(page: Page) -> None:
    page.set_viewport_size({"width": 420, "height": 800})
    show(page)
    for experiment in ("towards Paris", "z L9H6 → 0", "z L10H0 → mean"):
        strip(page).get_by_role("button", name=f"More for {experiment}", exact=True).click()
        box, root = page.get_by_role("menu").bounding_box(), page.locator(".iw-root").bounding_box()
        assert box
        assert root
        assert root["x"] <= box["x"]
        assert box["x"] + box["width"] <= root["x"] + root["width"]


def test_a_group_is_switched_and_renamed_as_one(page: Page) -> None:
    mounted = show(page)
    strip(page).get_by_role("button", name="name movers", exact=True).click()
    assert asked(mounted) == {"op": "toggle_group", "group": "name movers"}
    strip(page).get_by_role("button", name="More for name movers", exact=True).click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_role("textbox", name="name of name movers").fill("movers")
    page.keyboard.press("Enter")
    assert asked(mounted) == {"op": "rename_group", "group": "name movers", "name": "movers"}


def pinned(*labels: str, differs: bool) -> dict[str, Any]:
    return {"_pinned": {"labels": list(labels), "differs": differs}}


def test_what_acts_is_pinned_as_the_baseline_and_unpinned(page: Page) -> None:
    mounted = show(page, ALL[:1])
    page.get_by_role("button", name="Pin as baseline").click()
    assert asked(mounted) == {"op": "pin"}
    mounted.push(**pinned("z L9H6 → 0", differs=False))
    expect(page.get_by_role("button", name="Pin as baseline")).to_have_count(0)
    expect(page.get_by_role("list", name="Baseline").get_by_role("listitem")).to_have_text(["z L9H6 → 0"])
    unpin = page.get_by_role("button", name="Unpin")
    expect(unpin).to_be_focused()  # the keyboard's place is kept
    unpin.click()
    assert asked(mounted) == {"op": "unpin"}
    mounted.push(**pinned(differs=True))
    expect(page.get_by_role("list", name="Baseline")).to_have_count(0)


def test_nothing_can_be_pinned_where_nothing_acts(page: Page) -> None:
    mounted = show(page, [ALL[2]])
    expect(page.get_by_role("button", name="Pin as baseline")).to_have_count(0)
    mounted.push(_experiments=[], **pinned("z L9H6 → 0", differs=True))
    expect(page.get_by_role("button", name="Unpin")).to_be_visible()
    expect(page.get_by_role("button", name="Pin as baseline")).to_have_count(0)


def test_views_say_what_the_baseline_is(page: Page) -> None:
    mounted = show(page, ALL[:1])
    difference = page.get_by_role("button", name="Difference from baseline")
    expect(difference).to_have_attribute("title", "Now minus the baseline: the model as it is")
    table = page.get_by_role("table", name="Predictions")
    expect(table.get_by_role("columnheader")).to_have_text(["token", "baseline", "with experiments"])
    mounted.push(_experiments=[], **pinned("z L9H6 → 0", differs=True))
    expect(difference).to_have_attribute("title", "Now minus the baseline: z L9H6 → 0")
    expect(table.get_by_role("columnheader")).to_have_text(["token", "baseline", "the model as it is"])
    expect(table.get_by_role("columnheader", name="baseline")).to_have_attribute("title", "z L9H6 → 0")


def test_the_lens_says_what_its_grids_are(page: Page) -> None:
    mounted = mount(page, "logit_lens.js", lens(**transplant(15, 30)))
    mounted.push(**pinned("z L9H6 → 0", differs=True))
    expect(page.get_by_role("region", name="Baseline")).to_contain_text("baseline: z L9H6 → 0")
    expect(page.get_by_role("grid", name="logit lens of the baseline: z L9H6 → 0, layer by position")).to_be_visible()
    expect(page.get_by_role("region", name="With experiments")).to_contain_text("the same as in the baseline")
    mounted.push(_experiments=[])
    expect(page.get_by_role("region", name="The model as it is")).to_be_visible()
