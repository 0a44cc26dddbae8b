"""Puts the tests of a front end together, so that each is started once."""

from __future__ import annotations

import pytest

from tests.browser.front_ends import FRONT_ENDS


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # pytest groups by the place of a parameter in its list, and the lists of these tests differ.
    places = [place for place, item in enumerate(items) if _front_end(item) in FRONT_ENDS]
    ours = sorted((items[place] for place in places), key=_place)
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def _front_end(item: pytest.Item) -> str:
    call = getattr(item, "callspec", None)
    return "" if call is None else call.params.get("host", "")


def _place(item: pytest.Item) -> tuple[int, int]:
    """Front ends in the order of the table, tests in that of their file."""
    return FRONT_ENDS.index(_front_end(item)), item.reportinfo()[1] or 0
