"""A kernel in this process for pages that are not Jupyter's: real widgets, real messages, a page that polls.

It speaks the widgets' protocol 2: `comm_open` and `comm_msg` with a method, a state, the paths of its buffers and the
buffers beside it (ipywidgets, packages/schema/messages.md). A cell that runs holds up the page's messages, as on every
kernel without subshells; what the kernel sends goes out at any time.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comm
import pytest
from comm.base_comm import BaseComm
from playwright.sync_api import Page

Message = dict[str, Any]


class Kernel:
    """Holds what is on its way to the page, and what waits for a cell to end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._lock = threading.Lock()
        self._to_page: list[Message] = []
        self._from_page: list[Message] = []
        self._comms: dict[str, BaseComm] = {}
        self._busy = False
        self.ended = False
        self._restarted = False
        kernel = self

        class Comm(BaseComm):
            def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
                kernel._comms[self.comm_id] = self
                encoded = [base64.b64encode(buffer).decode() for buffer in buffers or ()]
                kernel._say({"type": msg_type, "comm": self.comm_id, "data": data, "buffers": encoded})

        monkeypatch.setattr(comm, "create_comm", Comm)

    def serve(self, page: Page) -> None:
        """Let the page call `exchange(messages)`: it hands over its own and gets what has come for it."""
        page.expose_function("exchange", self._exchange)

    @contextmanager
    def running_a_cell(self) -> Iterator[None]:
        """Until the block ends, what the page sends waits."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def end(self, *, restarted: bool) -> None:
        """From now on nothing is said; restarted, it takes what the page sends, and knows no widget that it is for."""
        self.ended, self._restarted = True, restarted

    def start(self) -> None:
        """As new: it knows nothing of the page's widgets."""
        with self._lock:
            self._comms, self._to_page, self._from_page, self.ended = {}, [], [], False

    def _say(self, message: Message) -> None:
        with self._lock:
            self._to_page.append(message)

    def _exchange(self, messages: list[Message]) -> list[Message]:
        if self.ended:
            return [_taken(message) for message in messages] if self._restarted else []
        self._from_page += messages
        while self._from_page and not self._busy:
            message = self._from_page.pop(0)
            if message["comm"] in self._comms:
                self._comms[message["comm"]].handle_msg({"content": {"data": message["data"]}, "buffers": []})
            self._say(_taken(message))
        with self._lock:
            answer, self._to_page = self._to_page, []
        return answer


def _taken(message: Message) -> Message:
    """What a kernel says when it has done with a message."""
    return {"type": "idle", "comm": message["comm"], "to": message["id"]}
