"""A real widget behind the harness page: what the page sends reaches it, and what changes in it reaches the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

from interpwidgets.widgets.base import LiveWidget
from tests.browser.harness.mounting import Mounted, as_sent, mount, state_of

_PATIENCE = 30.0  # seconds


class Live:
    """A widget on the page and in Python."""

    def __init__(self, page: Page, entry: str, widget: LiveWidget, **changes: Any) -> None:
        widget.wait(_PATIENCE)
        self.page, self.widget = page, widget
        self._seen = 0
        self._shown = dict(widget.get_state())
        self.mounted: Mounted = mount(page, entry, state_of(widget) | changes)

    def until(self, happened: Callable[[], bool]) -> None:
        """Carry messages to and fro until something shows on the page. Raises TimeoutError."""
        deadline = time.monotonic() + _PATIENCE
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError("the page does not show what was waited for")
            self.carry()
            self.mounted.settle()

    def carry(self) -> None:
        """Bring what the page sent to Python, and what that changed to the page."""
        sent = self.page.evaluate("(from) => harness.model.sent.slice(from)", self._seen)
        self._seen += len(sent)
        for message in sent:
            self.widget.set_state(message)
        self.widget.wait(_PATIENCE)
        state = self.widget.get_state()
        sent_back = sent[-1] if sent else {}
        changed = {
            name: value
            for name, value in state.items()
            if value != self._shown.get(name) and (name not in sent_back or value != sent_back[name])
        }
        self._shown = dict(state)
        if changed:
            self.mounted.push(**{name: as_sent(value) for name, value in changed.items()})
