"""The still picture where no kernel runs: its button takes room only in an application that has what it asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page

import interpwidgets as iw
from tests.browser.harness.mounting import SCREENSHOTS
from tests.models import tiny

PROMPT = [5, 17, 3, 44, 17, 60, 8, 91]
JUPYTER = "<style>:root { --jp-private-menubar-height: 28px; }</style>"


@pytest.fixture(scope="module")
def frame() -> Iterator[str]:
    with iw.Session(tiny("llama")) as session:
        session.interventions.append(iw.Ablate("z", layer=1, head=2))
        widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2)
        widget.wait(60)
        yield widget.static_frame()


def shown(page: Page, frame: str, style: str = "") -> Locator:
    page.set_content(f'<!doctype html><html lang="en"><title>notebook</title>{style}<body>{frame}')
    return page.get_by_role("button", name="Live again, in a new cell")


def test_the_button_takes_no_room_where_nothing_would_answer_it(page: Page, frame: str) -> None:
    box = shown(page, frame).bounding_box()
    assert box
    assert max(box["width"], box["height"]) <= 1
    page.screenshot(path=SCREENSHOTS / "still-elsewhere.png")


def test_the_button_can_be_seen_and_hit_in_jupyterlab(page: Page, frame: str) -> None:
    box = shown(page, frame, JUPYTER).bounding_box()
    assert box
    assert box["height"] >= 24
    assert box["y"] < 200
    page.screenshot(path=SCREENSHOTS / "still-jupyterlab.png")
