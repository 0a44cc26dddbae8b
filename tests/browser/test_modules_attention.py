"""The attention widget's module against a fake model: drawing, clicks, keyboard, answers, disposal."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.harness import states
from tests.browser.harness.mounting import IDLE, Mounted, mount

ENTRY = "attention_pattern.js"
HEADS = "All heads"
PATTERN = "attention pattern"

# What scrolls inside its own box may be wider than it.
STICKING_OUT = """() => {
  const edge = document.querySelector(".iw-root").getBoundingClientRect().right + 1;
  const contained = ".iw-hidden, [hidden], .iw-surface__scroller *, .iw-strip *";
  return [...document.querySelectorAll(".iw-root *")]
    .filter((element) => !element.closest(contained) && element.getBoundingClientRect().right > edge)
    .map((element) => element.className);
}"""


def show(page: Page, **options: Any) -> Mounted:
    return mount(page, ENTRY, states.attention(**options))


def key(mounted: Mounted, grid: str, *presses: str) -> None:
    mounted.page.get_by_role("grid", name=grid).focus()
    for press in presses:
        mounted.page.keyboard.press(press)
    mounted.settle()


def spoken(mounted: Mounted, grid: str) -> str:
    mounted.settle()
    return mounted.page.get_by_role("grid", name=grid).get_by_role("gridcell").inner_text()


@pytest.mark.parametrize("form", ["view", "buffer", "base64"])
def test_weights_are_exact_in_every_binary_form(page: Page, form: str) -> None:
    weights = states.patterns(30, 9, 15)[23, 3]
    mounted = mount(page, ENTRY, states.attention(), form=form)
    key(mounted, PATTERN, "ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight")
    assert spoken(mounted, PATTERN) == f"query 3 ␣and → key 1 When: {weights[3, 1]:.4f}"
    page.get_by_text(f"query 3 ␣and → key 1 When: {weights[3, 1]:.4f}").first.wait_for()


def test_widget_sends_nothing_until_asked(page: Page) -> None:
    assert show(page).page.evaluate("() => harness.model.sent") == []


def test_click_on_a_thumbnail_selects_that_head_and_previews_it_at_once(page: Page) -> None:
    mounted = show(page, layers=4, heads=3, selected=(0, 0))
    grid = page.get_by_role("grid", name=HEADS)
    grid.locator("canvas").click(position={"x": 30 + 64 * 2 + 20, "y": 30 + 64 + 20})
    assert [(r["op"], r["layer"], r["head"]) for r in mounted.requests()] == [("select", 2, 1)]
    expect(page.get_by_role("grid", name="L2H1 attention pattern")).to_be_visible()
    assert "about" in spoken(mounted, "L2H1 attention pattern")


def test_arrow_keys_move_the_head_and_an_earlier_answer_does_not_pull_it_back(page: Page) -> None:
    mounted = show(page)
    key(mounted, HEADS, "ArrowRight", "ArrowDown")
    first, second = mounted.requests()
    assert (first["layer"], first["head"], second["layer"], second["head"]) == (24, 3, 24, 4)
    assert second["id"] > first["id"]
    mounted.push(_status={**IDLE, "id": first["id"]})
    mounted.push(layer=24, head=3)
    expect(page.get_by_role("grid", name="L24H4 attention pattern")).to_be_visible()
    mounted.push(_status={**IDLE, "id": second["id"]})
    mounted.push(layer=5, head=6)
    expect(page.get_by_role("grid", name="L5H6 attention pattern")).to_be_visible()


def test_ablate_button_says_what_it_will_do(page: Page) -> None:
    mounted = show(page)
    page.get_by_label("How a head is ablated").select_option("to its mean")
    assert mounted.sent("how") == ["mean"]
    page.get_by_role("button", name="Ablate L23H3").click()
    request = mounted.requests()[-1]
    assert (request["op"], request["layer"], request["head"], request["how"]) == ("ablate", 23, 3, "mean")
    ablated = states.attention(changed=True)["_overview"]
    mounted.push(_overview=ablated | {"id": request["id"]})
    expect(page.get_by_role("button", name="Restore L23H3")).to_be_visible()


def test_enter_in_the_head_grid_ablates(page: Page) -> None:
    mounted = show(page)
    key(mounted, HEADS, "Enter")
    assert mounted.requests()[-1]["op"] == "ablate"


def test_clicked_edge_is_cut_and_a_masked_cell_is_not(page: Page) -> None:
    mounted = show(page)
    page.get_by_label("cut edge:").select_option("rest left as it is")
    key(mounted, PATTERN, "End", "Enter")
    assert mounted.requests() == []
    assert "masked" in spoken(mounted, PATTERN)
    key(mounted, PATTERN, "Home", "ArrowDown", "ArrowDown", "ArrowRight", "Enter")
    cut = mounted.requests()[-1]
    assert {name: cut[name] for name in ("op", "layer", "head", "query", "key", "renormalize")} == {
        "op": "cut", "layer": 23, "head": 3, "query": 2, "key": 1, "renormalize": False,
    }  # fmt: skip


def test_hidden_bos_shifts_positions_but_not_weights(page: Page) -> None:
    weights = states.patterns(30, 9, 15)[23, 3]
    mounted = show(page)
    page.get_by_role("button", name="Hide BOS").click()
    assert mounted.sent("hide_bos") == [True]
    key(mounted, PATTERN, "ArrowDown")
    assert spoken(mounted, PATTERN) == f"query 2 ␣John → key 1 When: {weights[2, 1]:.4f}"
    expect(page.get_by_text("range without BOS; weights not rescaled")).to_be_visible()


def test_cells_above_the_diagonal_are_blank_and_zero_is_not(page: Page) -> None:
    state = states.attention(length=4)
    mounted = mount(page, ENTRY, state)
    canvas = page.get_by_role("grid", name=PATTERN).locator("canvas")
    box = canvas.bounding_box()
    assert box is not None
    left = box["width"] - 4 * 40 - 2
    assert mounted.pixel(PATTERN, left + 3.5 * 40, 18 + 0.25 * 40)[3] == 0
    assert mounted.pixel(PATTERN, left + 0.5 * 40, 18 + 3.2 * 40)[3] == 255


def test_difference_needs_an_experiment(page: Page) -> None:
    mounted = show(page)
    difference = page.get_by_role("button", name="Difference from baseline")
    expect(difference).to_have_attribute("aria-disabled", "true")
    difference.click(force=True)
    assert mounted.sent("view") == []
    mounted.push(**{name: value for name, value in states.attention(changed=True).items() if name.startswith("_")})
    difference.click()
    assert mounted.sent("view") == ["difference"]
    expect(page.get_by_role("img", name="colour scale: now − baseline")).to_have_count(2)


def test_older_result_is_dropped(page: Page) -> None:
    mounted = show(page)
    newer = copy.deepcopy(states.attention()["_predictions"]) | {"id": 9}
    newer["rows"][0]["text"] = "␣newer"
    mounted.push(_predictions=newer)
    mounted.push(_predictions=states.attention()["_predictions"] | {"id": 5})
    mounted.settle()
    expect(page.get_by_role("table", name="Predictions")).to_contain_text("␣newer")


def test_hovered_token_is_pointed_at_everywhere(page: Page) -> None:
    mounted = show(page)
    key(mounted, PATTERN, "ArrowDown", "ArrowDown")
    pointed = page.locator(".iw-token[data-point]")
    expect(pointed).to_have_text(["<|im_start|>0", "␣John2"])
    page.locator(".iw-token").nth(5).hover()
    expect(pointed).to_have_text(["␣went5"])


def test_two_views_of_one_model_are_independent_and_disposal_leaves_no_listener(page: Page) -> None:
    mounted = show(page)
    alone = page.evaluate("() => harness.model.count()")
    page.evaluate("() => harness.open()")
    mounted.settle()
    assert page.evaluate("() => harness.model.count()") == 2 * alone
    expect(page.get_by_role("grid", name=PATTERN)).to_have_count(2)
    page.evaluate("() => harness.close(0)")
    expect(page.get_by_role("grid", name=PATTERN)).to_have_count(1)
    page.evaluate("() => harness.close(1)")
    assert page.evaluate("() => harness.model.count()") == 0
    mounted.theme(dark=True)
    mounted.push(_status={**IDLE, "id": 3, "state": "running"})
    mounted.settle()


def test_cleanup_works_where_the_host_gives_no_signal(page: Page) -> None:
    mount(page, ENTRY, states.attention(), signal=False)
    page.evaluate("() => harness.close(0)")
    assert page.evaluate("() => harness.model.count()") == 0


LONG = 400


def windows(mounted: Mounted, weights: Any, baseline: Any = None) -> None:
    """Answer what the page asked for last with exact weights."""
    asked = mounted.sent("_asked")[-1]
    rows, cols = slice(*asked["rows"]), slice(*asked["cols"])
    sent = {"now": None, "baseline": states.wire(weights[rows, cols])}
    mounted.push(_window=asked | sent)
    mounted.settle()


def test_a_long_prompt_is_shown_whole_and_a_bins_largest_weight_is_fetched_when_pointed_at(page: Page) -> None:
    weights = states.patterns(4, 3, LONG)[1, 1]
    mounted = show(page, length=LONG, layers=4, heads=3, selected=(1, 1))
    edges = states.bin_edges(LONG, 256)
    grid = page.get_by_role("grid", name=PATTERN)
    expect(grid).to_have_attribute("aria-rowcount", str(len(edges) - 1))
    key(mounted, PATTERN, *["PageDown"] * 10, *["PageDown"] * 5, *["ArrowRight"] * 3)
    (top, bottom), (left, right) = edges[150:152], edges[3:5]
    place = f"queries {top}–{bottom - 1} → keys {left}–{right - 1}"
    assert min(bottom - top, right - left) > 1
    assert spoken(mounted, PATTERN).startswith(f"{place}: largest about ")
    page.wait_for_function("() => harness.model.sent.some((message) => '_asked' in message)")
    assert mounted.sent("_asked")[-1] == {"version": 1, "rows": [top, bottom], "cols": [left, right]}
    windows(mounted, weights)
    block = weights[top:bottom, left:right]
    expect(page.locator(".iw-readout")).to_contain_text(f"{place}, largest: query ")
    expect(page.locator(".iw-readout")).to_contain_text(f"{block.max():.4f}")


def test_from_61_tokens_on_the_whole_is_on_one_screen_and_cells_are_zoomed_in_on(page: Page) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    mounted = show(page, length=128, layers=4, heads=3, selected=(1, 1))
    grid, scrolls = page.get_by_role("grid", name=PATTERN), "(e) => e.scrollHeight > e.clientHeight + 1"
    assert not grid.evaluate(scrolls)
    assert spoken(mounted, PATTERN).startswith("query 0 "), "each cell is one query and one key"
    page.get_by_role("button", name="Values", exact=True).click()
    mounted.settle()
    assert grid.evaluate(scrolls)
    expect(page.locator(".iw-minimap")).to_be_visible()
    key(mounted, PATTERN, "0")
    assert not grid.evaluate(scrolls)
    expect(page.locator(".iw-minimap")).to_be_hidden()


def test_a_click_zooms_in_there_and_exact_weights_replace_coarse_ones_in_place(page: Page) -> None:
    weights = states.patterns(4, 3, LONG)[1, 1]
    mounted = show(page, length=LONG, layers=4, heads=3, selected=(1, 1))
    edges = states.bin_edges(LONG, 256)
    key(mounted, PATTERN, *["PageDown"] * 20, *["PageDown"] * 5, *["ArrowRight"] * 3, "Enter")
    assert mounted.requests() == []  # no edge is cut by a click on several
    row = edges[min(250, len(edges) - 2)]
    assert spoken(mounted, PATTERN).startswith(f"query {row} ")
    assert "about" in spoken(mounted, PATTERN)
    page.wait_for_function("() => harness.model.sent.some((message) => '_asked' in message)")
    page.wait_for_timeout(150)
    rows, cols = (mounted.sent("_asked")[-1][name] for name in ("rows", "cols"))
    assert rows[0] <= row < rows[1]
    assert (rows[1] - rows[0]) * (cols[1] - cols[0]) < LONG * LONG / 4
    before = page.locator(".iw-surface__scroller").last.evaluate("(s) => [s.scrollTop, s.scrollLeft]")
    windows(mounted, weights)
    assert spoken(mounted, PATTERN).endswith(f": {weights[row, edges[3]]:.4f}")
    assert page.locator(".iw-surface__scroller").last.evaluate("(s) => [s.scrollTop, s.scrollLeft]") == before
    asked = len(mounted.sent("_asked"))
    key(mounted, PATTERN, "ArrowUp", "ArrowRight")
    page.wait_for_timeout(150)
    assert len(mounted.sent("_asked")) == asked  # what is there is not asked for again
    page.get_by_role("button", name="Whole").click()
    mounted.settle()
    expect(page.get_by_role("grid", name=PATTERN)).to_have_attribute("aria-rowcount", str(len(edges) - 1))


def test_a_window_of_another_picture_is_not_taken(page: Page) -> None:
    mounted = show(page, length=LONG, layers=4, heads=3, selected=(1, 1))
    key(mounted, PATTERN, *["PageDown"] * 15, "Enter")
    page.wait_for_function("() => harness.model.sent.some((message) => '_asked' in message)")
    page.wait_for_timeout(150)
    asked = mounted.sent("_asked")[-1]
    ones = states.patterns(1, 1, LONG)[0, 0] * 0 + 0.7654
    mounted.push(_window=asked | {"version": 99, "now": None, "baseline": states.wire(ones)})
    assert "0.7654" not in spoken(mounted, PATTERN)


@pytest.mark.parametrize("shape", [(3, 30, 9), (15, 2, 2), (200, 12, 12), (14, 80, 64), (300, 12, 12)], ids=str)
def test_nothing_sticks_out_at_any_width(page: Page, shape: tuple[int, int, int]) -> None:
    length, layers, heads = shape
    mounted = show(page, length=length, layers=layers, heads=heads, changed=True)
    for width in (360, 420, 900, 1500, 1800):
        page.set_viewport_size({"width": width, "height": 800})
        mounted.settle()
        assert page.evaluate(STICKING_OUT) == [], width


@pytest.mark.parametrize("length", [15, 34, 300])
def test_a_deep_models_three_panels_are_on_one_wide_screen(page: Page, length: int) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    show(page, length=length, changed=True)
    boxes = [page.get_by_role("region", name=name).bounding_box() for name in (HEADS, "Selected head", "Predictions")]
    for box in boxes:
        assert box
        assert box["y"] + box["height"] <= 1000


@pytest.mark.parametrize("width", [420, 700, 1500])
def test_the_whole_of_a_long_prompt_is_seen_without_scrolling(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    show(page, length=512)
    whole = page.get_by_role("grid", name="L23H3 attention pattern")
    hidden = "(el) => Math.max(el.scrollHeight - el.clientHeight, el.scrollWidth - el.clientWidth)"
    assert whole.evaluate(hidden) <= 1  # heights are rounded


@pytest.mark.sampled
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "length"), [(420, 15), (900, 3), (900, 15), (1500, 60), (700, 512), (1500, 512)])
def test_pictures_to_look_at(page: Page, dark: bool, width: int, length: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    mounted = show(page, length=length, changed=length in (15, 512))
    if dark:
        mounted.theme(dark=True)
    mounted.screenshot(f"attention-{width}-{length}-{'dark' if dark else 'light'}")
