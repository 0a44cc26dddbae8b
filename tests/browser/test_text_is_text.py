"""Hostile text in real widgets' traits, in their static frames and in their figures: a browser draws it as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import plotly.offline
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Page, expect

import interpwidgets as iw
from interpwidgets.tokens import elide
from tests.browser.harness.mounting import mount, state_of
from tests.embedded import opened
from tests.hostile import CORRUPTED, PROMPT, SHOWN, hostile_session

WIDGETS = {
    "attention_pattern.js": lambda s: iw.AttentionPattern(s, PROMPT, hide_bos=False),
    "logit_lens.js": lambda s: iw.LogitLens(s, PROMPT, tracked=[s.token_id(next(iter(SHOWN)))]),
    "patching_heatmap.js": lambda s: iw.PatchingHeatmap(s, clean=PROMPT, corrupted=CORRUPTED),
}


@pytest.fixture(scope="module")
def session() -> Iterator[iw.Session]:
    with hostile_session() as session:
        session.name = "<img src=x onerror=alert(1)>"
        yield session


@pytest.fixture(params=WIDGETS)
def widget(request: pytest.FixtureRequest, session: iw.Session) -> Any:
    widget = WIDGETS[request.param](session)
    widget.wait(30)
    return widget


@pytest.fixture(autouse=True)
def alarm(page: Page) -> Iterator[None]:
    """No text may run as a script."""
    rung: list[str] = []
    page.on("dialog", lambda dialog: (rung.append(dialog.message), dialog.dismiss()))
    yield
    assert not rung


def foreign(page: Page, within: str) -> list[str]:
    """Elements and handlers that no part of ours makes."""
    return page.locator(within).evaluate(
        "(root) => [...root.querySelectorAll('*')].flatMap((element) => ["
        " ...(['IMG', 'SCRIPT', 'IFRAME'].includes(element.tagName) ? [element.outerHTML] : []),"
        " ...[...element.attributes].filter((a) => a.name.startsWith('on') || a.name === 'src').map((a) => a.name)])"
    )


def test_a_widget_draws_it_as_text(page: Page, widget: Any) -> None:
    entry = next(name for name in WIDGETS if name.replace(".js", "").replace("_", "") == type(widget).__name__.lower())
    state = state_of(widget)
    mounted = mount(page, entry, state)
    assert foreign(page, ".iw-root") == []
    drawn = page.locator(".iw-token__text").all_text_contents()
    for shown in SHOWN.values():
        assert any(text == shown or (len(shown) > 24 and text == cut(shown)) for text in drawn), shown
    expect(page.locator(".iw-header")).to_contain_text("<img src=x onerror=alert(1)>")
    mounted.push(_status={**state["_status"], "error": {"title": "<b>x</b>", "text": PROMPT[:90], "hint": "<i>y</i>"}})
    expect(page.get_by_role("alert")).to_contain_text("<script>alert(1)</script>")
    assert foreign(page, ".iw-root") == []
    mounted.screenshot(f"hostile-{entry.removesuffix('.js')}")


def cut(text: str) -> str:
    """As the strip shortens a token to 24 characters."""
    return text[:12] + "…" + text[len(text) - 11 :]


def test_the_static_frame_draws_it_as_text(page: Page, widget: Any) -> None:
    page.set_content(f"<!doctype html><body>{opened(widget.static_frame())}</body>")
    assert foreign(page, "body") == []
    drawn = page.locator("td, th, text").all_text_contents()
    for shown in SHOWN.values():
        assert any(elide(shown, length) in drawn for length in (7, 8, 16, 64)), shown


def test_the_page_that_a_notebook_is_exported_to_draws_it_as_text(page: Page, widget: Any, tmp_path: Path) -> None:
    data, _ = widget._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data={"text/html": data["text/html"]})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("widget", outputs=[output])])
    exported = tmp_path / "notebook.html"
    exported.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    # nbconvert's own page asks a CDN for its scripts.
    page.route(re.compile("^https?://"), lambda route: route.fulfill(body=""))
    page.goto(exported.as_uri())
    output_area = ".jp-OutputArea-output"
    picture = page.locator(f"{output_area} img")
    assert picture.evaluate("(image) => image.complete && image.naturalWidth > 200")
    picture.evaluate("(image) => image.remove()")  # a picture runs nothing
    assert foreign(page, output_area) == []


def test_plotly_draws_it_as_text(page: Page, widget: Any) -> None:
    figure = widget.figure()
    page.set_content("<!doctype html><div id='figure' style='width:1200px;height:900px'></div>")
    page.add_script_tag(content=plotly.offline.get_plotlyjs())
    page.evaluate("(figure) => Plotly.newPlot('figure', figure.data, figure.layout)", json.loads(figure.to_json()))
    drawn = page.locator("#figure text").all_text_contents()
    for shown in SHOWN.values():
        assert elide(shown, 24) in drawn, shown
