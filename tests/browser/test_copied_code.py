"""The Copy button beside a widget's code, with a clipboard and without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

import interpwidgets as iw
from tests.browser.harness.mounting import mount, state_of
from tests.models import tiny

PROMPT = [5, 17, 3, 44, 17, 60, 8, 91]
_SELECTED = "() => getSelection().toString()"
_HELD = "() => navigator.clipboard.readText()"


@pytest.fixture
def widget() -> Iterator[iw.LogitLens]:
    with iw.Session(tiny("llama")) as session:
        session.interventions.append(iw.Ablate("z", layer=1, head=2, how="mean"))
        widget = iw.LogitLens(session, PROMPT, metric="entropy")
        widget.wait(60)
        yield widget


def copy(page: Page, widget: iw.LogitLens) -> None:
    mount(page, "logit_lens.js", state_of(widget))
    page.get_by_role("button", name="Code", exact=True).click()
    page.get_by_role("button", name="Copy", exact=True).click()


def test_what_is_copied_is_what_code_gives(page: Page, widget: iw.LogitLens) -> None:
    # There is a clipboard in secure contexts only.
    page.route("https://notebook.test/", lambda route: route.fulfill(content_type="text/html", body=""))
    page.goto("https://notebook.test/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copy(page, widget)
    expect(page.get_by_text("copied", exact=True)).to_be_visible()
    assert page.evaluate(_HELD) == widget.code()


def test_where_the_clipboard_is_refused_the_code_is_selected_to_be_copied_by_hand(
    page: Page, widget: iw.LogitLens
) -> None:
    page.route("https://notebook.test/", lambda route: route.fulfill(content_type="text/html", body=""))
    page.goto("https://notebook.test/")
    page.evaluate(
        "() => { navigator.clipboard.writeText = () => Promise.reject(new DOMException('', 'NotAllowedError')); }"
    )
    copy(page, widget)
    expect(page.get_by_text("selected: press Ctrl+C", exact=True)).to_be_visible()
    assert page.evaluate(_SELECTED) == widget.code()
    page.context.grant_permissions(["clipboard-read"])
    page.keyboard.press("Control+c")
    assert page.evaluate(_HELD) == widget.code()


def test_where_there_is_no_clipboard_the_code_is_selected(page: Page, widget: iw.LogitLens) -> None:
    assert not page.evaluate("() => isSecureContext && Boolean(navigator.clipboard)")
    copy(page, widget)
    expect(page.get_by_text("selected: press Ctrl+C", exact=True)).to_be_visible()
    assert page.evaluate(_SELECTED) == widget.code()
