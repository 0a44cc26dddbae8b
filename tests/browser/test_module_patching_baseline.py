"""The patching heatmap beside its baseline: which view is offered, what it says, and how it fills."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.harness.mounting import Mounted, mount
from tests.browser.harness.patching import CLEAN, CORRUPTED, effects, patching, sweep
from tests.browser.harness.states import experiment, wire

GAP = CLEAN - CORRUPTED
ROW, COLUMN = 25, 14
"""A cell where the made-up patches have an effect."""


def compared(view: str = "difference", known: float = 1.0, **changes: Any) -> dict[str, Any]:
    """Traits of a heatmap on which half of every effect is gone; the baseline's gap is twice as large."""
    before = sweep()
    share = effects("resid_pre", 30, 15, 10)
    values = (2 * CORRUPTED + 2 * GAP * share).astype("float32")
    before |= {"clean": 2 * CLEAN, "corrupted": 2 * CORRUPTED, "baseline": 2 * CORRUPTED, "values": wire(values)}
    pinned = {"labels": ["z L9H6 → 0"], "differs": True}
    acting = [experiment("z L23H3 → 0")]
    state = {"view": view, "_baseline_sweep": before, "_pinned": pinned, "_experiments": acting}
    return patching(**state, _sweep=sweep(known=known)) | changes


def show(page: Page, **changes: Any) -> Mounted:
    return mount(page, "patching_heatmap.js", compared(**changes))


def readout(page: Page) -> Locator:
    return page.get_by_role("region", name="Patching map").locator(".iw-readout")


def point(page: Page, name: str) -> None:
    grid = page.get_by_role("grid", name=name)
    grid.focus()
    page.keyboard.press("Home")
    for key, count in (("PageDown", 3), ("PageUp", 2), ("ArrowUp", 5)):
        for _ in range(count):
            page.keyboard.press(key)
    page.keyboard.press("End")


def test_the_choice_is_there_only_where_something_differs_from_the_baseline(page: Page) -> None:
    mounted = show(page, view="now")
    choice = page.get_by_role("group", name="What to show")
    choice.get_by_role("button", name="Difference from baseline").click()
    assert mounted.sent("view") == ["difference"]
    mounted.push(_pinned={"labels": ["z L9H6 → 0"], "differs": False})
    expect(choice).to_be_hidden()
    expect(page.get_by_role("grid", name="resid_pre patching effect, layer by position")).to_be_visible()


def test_the_difference_is_in_shares_of_the_baselines_gap_and_says_so(page: Page) -> None:
    show(page)
    legend = "colour scale: now − baseline, share of the gap in the baseline"
    expect(page.get_by_role("img", name=legend)).to_be_visible()
    point(page, "resid_pre patching effect, now − baseline, layer by position")
    share = float(effects("resid_pre", 30, 15, 10)[ROW, COLUMN])
    said = readout(page)
    expect(said).to_contain_text(f"L{ROW} · position {COLUMN}")
    # Half of the gap in the baseline, less all of it: the patch changes the metric half as much now.
    expect(said).to_contain_text(f"−{0.5 * share:.3f} of the baseline's gap, now − baseline")
    expect(said).to_contain_text(f"changes the logit difference by +{share * GAP:.3f} logits now")


def test_raw_differences_are_in_the_metrics_units(page: Page) -> None:
    show(page, normalize=False)
    legend = "colour scale: now − baseline, change in logit difference, logits"
    expect(page.get_by_role("img", name=legend)).to_be_visible()
    point(page, "resid_pre patching effect, now − baseline, layer by position")
    share = float(effects("resid_pre", 30, 15, 10)[ROW, COLUMN])
    expect(readout(page)).to_contain_text(f"−{share * GAP:.3f} logits, now − baseline")


def test_the_baseline_is_drawn_as_a_map_of_its_own(page: Page) -> None:
    show(page, view="baseline")
    point(page, "resid_pre patching effect, in the baseline, layer by position")
    expect(readout(page)).to_contain_text("of the gap restored, in the baseline")
    expect(readout(page)).to_contain_text(f"clean {2 * CLEAN:.3f} · corrupted −{-2 * CORRUPTED:.3f}")


@pytest.mark.parametrize("missing", ["the baseline has not come", "half of now", "another site"])
def test_there_is_a_difference_only_where_both_have_run(page: Page, missing: str) -> None:
    changes: dict[str, Any] = {
        "the baseline has not come": {"_baseline_sweep": None},
        "half of now": {"_sweep": sweep(known=0.5, estimated=True)},
        "another site": {"_baseline_sweep": sweep("z")},
    }[missing]
    show(page, **changes)
    region = page.get_by_role("region", name="Patching map")
    expect(region).to_contain_text("hatched: not run yet in both")
    expect(region).to_contain_text("225 of 450 cells" if missing == "half of now" else "0 of 450 cells")


def test_the_heads_of_a_layer_are_shown_with_the_map_of_now_only(page: Page) -> None:
    drill = sweep("z", layer=25)
    mounted = mount(page, "patching_heatmap.js", compared(view="now", _drill=drill))
    heads = page.get_by_role("region", name="L25 heads")
    expect(heads).to_be_visible()
    grid = heads.get_by_role("grid")
    expect(grid).to_be_visible()
    mounted.push(view="difference")
    expect(grid).to_be_hidden()
    expect(heads).to_contain_text("choose Now to see it")
    mounted.push(view="now")
    expect(grid).to_be_visible()
    expect(heads).not_to_contain_text("choose Now")
