"""Pictures of exactly what a page shows, asked for from Python: the page draws, and Python writes the file."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import traitlets as t

from ..session import Session
from .displaying import is_heard_meanwhile, is_held
from .exporting import Exporting
from .unicode import encodable
from .wire import Wire

_KINDS = (".png", ".svg")
_WIDTHS = (50, 20_000)  # pixels, as in the page's own menu
_AGAIN = 3.0  # seconds after which a page is asked once more, twice as many each time


@dataclass
class _Asked:
    """A picture that a page is to send."""

    path: Path
    awaited: bool
    """Whether the call still waits; otherwise an error is drawn."""
    answered: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class Saving(Exporting):
    """A view that saves itself as its page shows it."""

    _to_save: t.List[Wire] = t.List().tag(sync=True)
    """Pictures that Python asks for, until the first page has answered: {id, kind, width, scale, times}."""

    session: Session
    _fail: Callable[..., None]

    def __init__(self, **traits: Any) -> None:
        self._numbers_of_pictures = count(1)
        self._asked_pictures: dict[int, _Asked] = {}
        self._heard_on: int | None = None
        """The thread on which the page's last message came."""
        super().__init__(**traits)

    def save_as_seen(
        self, path: str | Path, *, width: float | None = None, scale: float = 2.0, timeout: float = 30.0
    ) -> bool:
        """Save exactly what a page shows of this widget, as SVG or PNG by the ending of `path`.

        It is the picture of the Save menu: all that is seen but controls and status, with theme, size, selection, zoom
        and opened bands, `width` pixels wide (as it is seen, if none is given), PNG with `scale` pixels of the image to
        one of the picture. A file that is there is replaced. Of several views the first to answer is saved. Waits until
        nothing is running, and until that has been drawn.

        True if the file is written. False where the page cannot be heard before the running cell ends (without
        subshells, and in front ends that have none): the file is written then, once the widget is in sight, and an
        error is drawn in it.

        Raises ValueError for another ending or a number out of range, FileNotFoundError for a folder that is not there,
        RuntimeError if no page shows the widget, and TimeoutError after `timeout` seconds in which none has answered:
        what is scrolled away, or in a tab in the background, may not be drawn. `to_svg` and `to_png` need no page.
        """
        path = Path(path)
        _check(path, width, scale)
        self._ready()
        if not is_held(self):
            raise RuntimeError("no page shows this widget: display it first, or use to_svg() or to_png()")
        # What came on this thread may have come before there was a subshell.
        elsewhere = self._heard_on not in (None, threading.get_ident())
        hears = elsewhere or is_heard_meanwhile(wait=self._heard_on is None)
        with self.session.publishing:
            number, asked = next(self._numbers_of_pictures), _Asked(path.absolute(), awaited=hears)
            self._asked_pictures[number] = asked
            size = {"width": None if width is None else float(width), "scale": float(scale)}
            request = {"id": number, "kind": path.suffix.lower()[1:], **size, "times": 1}
            self._to_save = [*self._to_save, request]
        if not hears:
            return False
        try:
            self._await(asked, number, timeout)
        finally:
            self._forget(number)
        if asked.error is not None:
            raise asked.error
        return True

    def _await(self, asked: _Asked, number: int, timeout: float) -> None:
        """Wait for a page's answer, and ask again: a message to a subshell that is about to end is lost."""
        until, wait = time.monotonic() + timeout, _AGAIN
        while not asked.answered.wait(max(0.0, min(wait, until - time.monotonic()))):
            if time.monotonic() >= until:
                raise TimeoutError(
                    f"no page has sent its picture within {timeout} s: the widget has to be in sight, in a tab that is "
                    "in front. to_svg() and to_png() need no page"
                )
            with self.session.publishing:
                again = [{**each, "times": each["times"] + (each["id"] == number)} for each in self._to_save]
                self._to_save = again
            wait *= 2

    def _handle_msg(self, msg: Any) -> None:
        self._heard_on = threading.get_ident()
        super()._handle_msg(msg)

    def _take_picture(self, answer: Wire) -> None:
        """Write the file that a page has sent."""
        asked = self._forget(answer["picture"])
        if asked is None:
            return  # another view was first
        try:
            asked.path.write_bytes(_bytes_of(answer, asked.path.suffix.lower()))
        except (OSError, ValueError, RuntimeError) as error:
            asked.error = error
            if not asked.awaited:
                self._fail(error, title="The picture was not saved")
        asked.answered.set()

    def _forget(self, number: int) -> _Asked | None:
        with self.session.publishing:
            asked = self._asked_pictures.pop(number, None)
            if asked is not None:
                self._to_save = [request for request in self._to_save if request["id"] != number]
        return asked


def _check(path: Path, width: float | None, scale: float) -> None:
    if path.suffix.lower() not in _KINDS:
        raise ValueError(f"path={str(path)!r}: a name that ends in {' or '.join(_KINDS)} is needed")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: there is no folder {str(path.parent)!r}")
    if width is not None and not _WIDTHS[0] <= width <= _WIDTHS[1]:
        raise ValueError(f"width={width!r}: from {_WIDTHS[0]} to {_WIDTHS[1]} pixels are possible")
    if not 0 < scale <= 16:
        raise ValueError(f"scale={scale!r}: a number above 0 and up to 16 is needed")


def _bytes_of(answer: Wire, suffix: str) -> bytes:
    if "error" in answer:
        raise RuntimeError(f"the page could not draw its picture: {answer['error']}")
    data = answer.get("data")
    if not isinstance(data, str):
        raise ValueError("the page sent no picture")
    return base64.b64decode(data, validate=True) if suffix == ".png" else str(encodable(data)).encode()
