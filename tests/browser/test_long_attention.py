"""AttentionPattern at long prompts, a real widget behind the page: zooming, panning, the minimap."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

import interpwidgets as iw
from tests.browser.harness.live import Live
from tests.models import random_ids, tiny

GRID = "L1H2 attention pattern"
LENGTH = 600
PROMPT = random_ids(LENGTH)


@pytest.fixture(scope="module")
def session() -> Iterator[iw.Session]:
    with iw.Session(tiny("llama", max_position_embeddings=1024)) as session:
        yield session


@pytest.fixture
def live(page: Page, session: iw.Session) -> Iterator[Live]:
    page.set_viewport_size({"width": 1000, "height": 1500})
    widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2)
    yield Live(page, "attention_pattern.js", widget)
    widget.close()


@pytest.fixture(scope="module")
def exact(session: iw.Session) -> np.ndarray:
    return iw.attention_patterns(session, PROMPT).values[1, 2]


def grid(live: Live) -> Locator:
    return live.page.get_by_role("grid", name=GRID)


def window(live: Live) -> list[float]:
    """Top, bottom, left and right of the view, 0 to 1; empty while the whole is shown."""
    live.mounted.settle()
    minimap = live.page.locator(".iw-minimap")
    said = minimap.locator("canvas").get_attribute("data-window") if minimap.is_visible() else None
    return [float(share) for share in said.split()] if said else []


def pointed(live: Live) -> tuple[int, int]:
    """Query and key of the cell that is pointed at; of several, the first."""
    said = live.page.get_by_label("Selected head").locator(".iw-readout").inner_text()
    found = re.match(r"quer\w+ (\d+).*? → keys? (\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])


def wheel(live: Live, *, x: float, y: float, by: float, ctrl: bool = True) -> bool:
    """Turn the wheel over a place of the grid; whether the page is kept from doing so too."""
    box = grid(live).bounding_box()
    assert box
    return grid(live).evaluate(
        """(el, [x, y, by, ctrl]) => !el.dispatchEvent(new WheelEvent("wheel",
            { deltaY: by, clientX: x, clientY: y, ctrlKey: ctrl, bubbles: true, cancelable: true }))""",
        [box["x"] + x, box["y"] + y, by, ctrl],
    )


def test_the_wheel_with_ctrl_zooms_towards_the_pointer_and_without_it_is_the_pages(live: Live) -> None:
    at = {"x": 120.0, "y": 280.0}
    grid(live).hover(position=at)
    before = pointed(live)
    assert not wheel(live, **at, by=-40, ctrl=False)
    assert window(live) == []
    assert wheel(live, **at, by=-40)
    top, bottom, left, right = window(live)
    assert (bottom - top) < 0.5
    assert top < before[0] / LENGTH < bottom
    assert left < before[1] / LENGTH < right
    for _ in range(4):
        wheel(live, **at, by=-60)
        live.mounted.settle()
    smaller = window(live)
    assert smaller[1] - smaller[0] < (bottom - top) / 2
    grid(live).hover(position={"x": at["x"] + 1, "y": at["y"]})
    live.mounted.settle()
    here = pointed(live)
    assert abs(here[0] - before[0]) <= 4
    assert abs(here[1] - before[1]) <= 4
    for _ in range(12):
        wheel(live, **at, by=60)
        live.mounted.settle()
    assert window(live) == []


def test_two_turns_between_two_frames_keep_the_cell_that_was_drawn(live: Live) -> None:
    at = {"x": 120.0, "y": 280.0}
    grid(live).hover(position=at)
    before = pointed(live)
    box = grid(live).bounding_box()
    assert box
    grid(live).evaluate(
        """(el, [x, y]) => { for (let turn = 0; turn < 5; turn++) el.dispatchEvent(new WheelEvent("wheel",
            { deltaY: -60, clientX: x, clientY: y, ctrlKey: true, bubbles: true, cancelable: true })); }""",
        [box["x"] + at["x"], box["y"] + at["y"]],
    )
    top, bottom, left, right = window(live)
    assert top < before[0] / LENGTH < bottom
    assert left < before[1] / LENGTH < right


def test_keys_zoom_and_the_cells_that_come_are_exact(live: Live, exact: np.ndarray) -> None:
    grid(live).focus()
    for key in ("End", *["PageDown"] * 20, "+", "+", "+", "+"):
        live.page.keyboard.press(key)
        live.mounted.settle()
    assert window(live)[1] == pytest.approx(1, abs=0.01)
    live.page.keyboard.press("ArrowUp")
    spoken = grid(live).get_by_role("gridcell")
    live.until(lambda: "about" not in spoken.inner_text())
    query, key = (int(number) for number in re.findall(r"(?:query|key) (\d+)", spoken.inner_text()))
    if key <= query:
        assert f"{exact[query, key]:.4f}" in spoken.inner_text()
    live.page.keyboard.press("-")
    live.mounted.settle()
    live.page.keyboard.press("0")
    assert window(live) == []


def test_exact_cells_are_those_of_the_prompt_that_is_shown(live: Live, session: iw.Session) -> None:
    grid(live).focus()
    for key in ("+", "+", "+", "+", "ArrowDown", "ArrowDown", "ArrowDown"):
        live.page.keyboard.press(key)
        live.mounted.settle()
    spoken = grid(live).get_by_role("gridcell")
    live.until(lambda: "about" not in spoken.inner_text())
    other = PROMPT[::-1]
    live.widget.run(other)
    live.carry()
    live.until(lambda: "about" not in spoken.inner_text())
    query, key = (int(number) for number in re.findall(r"(?:query|key) (\d+)", spoken.inner_text()))
    weight = iw.attention_patterns(session, other).values[1, 2, query, key]
    assert f"{weight:.4f}" in spoken.inner_text()
    assert key <= query


def test_thumbnails_of_bins_say_that_their_difference_is_that_of_the_largest(live: Live, session: iw.Session) -> None:
    live.widget.ablate(0, 1)
    live.carry()
    live.page.get_by_role("button", name="Difference from baseline").click()
    live.carry()
    heads = live.page.get_by_role("region", name="All heads")
    expect(heads).to_contain_text("largest now − largest in the baseline, of each")
    live.page.get_by_role("grid", name="All heads").focus()
    expect(live.page.get_by_role("grid", name="All heads").get_by_role("gridcell")).to_contain_text("differ by at most")
    session.interventions.clear()


def test_dragging_pans_and_cuts_nothing(live: Live) -> None:
    live.page.get_by_role("button", name="Cells").click()
    live.page.locator(".iw-minimap canvas").click(position={"x": 30, "y": 80})
    before = window(live)
    box = grid(live).bounding_box()
    assert box
    mouse = live.page.mouse
    mouse.move(box["x"] + 300, box["y"] + 300)
    mouse.down()
    mouse.move(box["x"] + 200, box["y"] + 250, steps=4)
    mouse.up()
    after = window(live)
    cells = LENGTH - 1
    assert (after[2] - before[2]) * cells == pytest.approx(10, abs=1.1)
    assert (after[0] - before[0]) * cells == pytest.approx(5, abs=1.1)
    assert [request["op"] for request in live.mounted.requests()] == []


def test_two_fingers_zoom(live: Live) -> None:
    box = grid(live).bounding_box()
    assert box
    grid(live).evaluate(
        """(el, [x, y]) => {
          const touch = (type, id, dx) => el.dispatchEvent(new PointerEvent(type,
            { pointerId: id, pointerType: "touch", clientX: x + dx, clientY: y, bubbles: true, cancelable: true }));
          touch("pointerdown", 7, -20); touch("pointerdown", 8, 20);
          touch("pointermove", 7, -40); touch("pointermove", 8, 40);
          touch("pointerup", 7, -40); touch("pointerup", 8, 40);
        }""",
        [box["x"] + 250, box["y"] + 500],
    )
    top, bottom, *_ = window(live)
    assert bottom - top < 0.5


def test_the_minimap_shows_and_moves_the_window(live: Live) -> None:
    assert window(live) == []
    live.page.get_by_role("button", name="Cells").click()
    minimap = live.page.locator(".iw-minimap canvas")
    minimap.click(position={"x": 20, "y": 90})
    top, bottom, left, right = window(live)
    assert (top + bottom) / 2 == pytest.approx(90 / 104, abs=0.07)
    assert (left + right) / 2 == pytest.approx(20 / 104, abs=0.07)
    minimap.hover(position={"x": 20, "y": 90})
    live.page.mouse.down()
    minimap.hover(position={"x": 50, "y": 60})
    live.page.mouse.up()
    top, bottom, left, right = window(live)
    assert (top + bottom) / 2 == pytest.approx(60 / 104, abs=0.07)


def test_the_scale_is_that_of_the_thumbnails(live: Live) -> None:
    expect(live.page.get_by_label("Selected head")).to_contain_text("attention weight, square-root scale")


@pytest.mark.parametrize("width", [420, 900, 1500])
def test_pictures_to_look_at(live: Live, width: int) -> None:
    live.page.set_viewport_size({"width": width, "height": 1000})
    live.mounted.settle()
    grid(live).focus()
    for key in (*["PageDown"] * 9, *["ArrowRight"] * 12, "+", "+"):
        live.page.keyboard.press(key)
        live.mounted.settle()
    live.until(lambda: bool(live.mounted.sent("_asked")))
    live.carry()
    for dark in (False, True):
        live.mounted.theme(dark=dark)
        live.mounted.screenshot(f"attention-long-{width}-{'dark' if dark else 'light'}")
