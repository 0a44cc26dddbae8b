"""The still picture that a notebook keeps of a widget: how it follows what is done, and leads back to a live one."""

from __future__ import annotations

import html
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display

from .unicode import encodable

_QUIET_SECONDS = 1.5  # without a change before the notebook gets another picture, so that quick clicks make one
_MOST_CODE = 20_000  # characters of code that a still picture carries

_log = logging.getLogger("interpwidgets")
_one_by_one = threading.Lock()
"""Many linked widgets change at once; a click meanwhile must find the processor free."""


class Still:
    """An output with the picture of a widget, and those of its further displays."""

    def __init__(self, name: str, words: str, frame: weakref.WeakMethod[Callable[[], str | None]]) -> None:
        """`name` is the id of the element, which the page hides; `frame` gives the picture, None if it stays.

        `words` stand for it where there are no pictures.
        """
        self._name, self._words = name, words
        self._frame = frame
        self._shown = ""
        self._publisher: Any = None
        """What sends outputs to a notebook; None where there is none, or none that would be told of another picture."""
        self._changed = 0.0
        self._waiting = False
        self._lock = threading.RLock()

    def display(self, frame: str) -> None:
        """Put the picture into the output of the cell that runs."""
        self._shown = frame
        self._publisher = _publisher()
        display(self._data(frame), raw=True, display_id=self._name)

    def changed(self, change: Any = None) -> None:
        """Draw again, once nothing has changed for a while."""
        if self._publisher is None:
            return
        self._changed = time.monotonic()
        with self._lock:
            if not self._waiting:
                self._waiting = True
                self._wait(_QUIET_SECONDS)

    def _wait(self, seconds: float) -> None:
        timer = threading.Timer(seconds, _look, [weakref.ref(self)])
        timer.daemon = True
        timer.start()

    def _look(self) -> None:
        left = self._changed + _QUIET_SECONDS - time.monotonic()
        if left > 0:
            self._wait(left)
            return
        with self._lock:
            self._waiting = False
        with _one_by_one:
            draw = self._frame()
            try:
                frame = None if draw is None else draw()
                if frame is not None and frame != self._shown:
                    self._publisher.publish(self._data(frame), transient={"display_id": self._name}, update=True)
                    self._shown = frame
            except Exception:  # noqa: BLE001 - on a thread of its own nobody would hear of it
                _log.exception("the picture that the notebook keeps was not renewed")

    def _data(self, frame: str) -> Any:
        return encodable({"text/html": f'<div id="{self._name}">{frame}</div>', "text/plain": self._words})


def live_again(code: str) -> str:
    """From a still picture to a live one: the code of what is on the screen, and a button that runs it."""
    hint = '<div style="color:#767676">A still picture: run the cell to click in it.</div>'
    if len(code) > _MOST_CODE:
        return hint
    style = "font:12px/1.5 monospace;white-space:pre-wrap;overflow-wrap:anywhere"
    said = "Python that shows this picture live again"
    shown = f'<details><summary>{said}</summary><pre style="{style}">{html.escape(code)}</pre></details>'
    return hint + _button(code) + shown


def _button(code: str) -> str:
    """A button that adds the code as a cell below and runs it, by commands of JupyterLab's, as outputs have no scripts.

    Elsewhere it takes no room: no other page, nor what nbconvert makes, has the variable that its size is taken from.
    """
    commands = ["notebook:insert-cell-below", "notebook:replace-selection", "notebook:run-cell"]
    given = {"commands": commands, "args": {"text": code}}
    size = "calc(var(--jp-private-menubar-height,0px)*.46)"
    style = f"font:{size}/1.5 system-ui,sans-serif;padding:.15em .7em;margin:.3em 0;border-width:.08em;cursor:pointer"
    return (
        f'<div><button type="button" style="{style}" data-commandlinker-command="apputils:run-all-enabled" '
        f'data-commandlinker-args="{html.escape(json.dumps(given))}">Live again, in a new cell</button></div>'
    )


def _look(still: weakref.ref[Still]) -> None:
    alive = still()
    if alive is not None:
        alive._look()


def _publisher() -> Any:
    """What sends outputs to a notebook that can be told of another picture of one."""
    if "VOILA_PREHEAT" in os.environ:  # its page has what the cells put out, once they have run
        return None
    module, shell = sys.modules.get("ipykernel.zmqshell"), get_ipython()
    publisher = getattr(shell, "display_pub", None)
    return publisher if module is not None and isinstance(publisher, module.ZMQDisplayPublisher) else None
