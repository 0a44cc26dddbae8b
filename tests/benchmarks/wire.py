"""What goes to the browser: bytes of every message of a widget, from its opening and from each kind of click."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comm
from comm.base_comm import BaseComm

import interpwidgets as iw
from interpwidgets.widgets.bands import MOST
from interpwidgets.widgets.base import LiveWidget
from interpwidgets.widgets.esm import bundle, stylesheet

from .workloads import DEMO, DemoPrompts, Pair, model_of, random_pair

ENTRIES = {"AttentionPattern": "attention_pattern", "LogitLens": "logit_lens", "PatchingHeatmap": "patching_heatmap"}
LENGTHS = (15, 128, 512, 1024)
QUICK = (15, 24)
DIFFERING = 16
"""Tokens that follow the first one that differs, in the pairs."""

_WINDOW, _COLUMNS, _ELSEWHERE = "window", "columns", "elsewhere"  # clicks that are no request of the widget's
Click = tuple[str, str, dict[str, Any]]
"""What is done, the request's op, and its arguments."""


@dataclass(frozen=True)
class Sent:
    """Bytes of the messages of one click (or of opening a widget) and seconds until its picture is up to date."""

    widget: str
    what: str
    length: int
    size: int
    seconds: float


class _Recorder(BaseComm):
    """A kernel's channel that counts instead of sending."""

    sent: list[tuple[str, int]]

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        text = json.dumps({"data": data, "metadata": metadata}, ensure_ascii=False, default=str)
        size = len(text.encode()) + sum(memoryview(buffer).nbytes for buffer in buffers or ())
        self.sent.append((msg_type, size))


@contextmanager
def recorded() -> Iterator[list[tuple[str, int]]]:
    """Type and bytes of each message of the widgets that are made inside, oldest first."""
    sent: list[tuple[str, int]] = []
    before, comm.create_comm = comm.create_comm, type("Recorder", (_Recorder,), {"sent": sent})
    try:
        yield sent
    finally:
        comm.create_comm = before


def modules() -> dict[str, tuple[int, int]]:
    """Bytes of JavaScript and of CSS that each widget sends, as they travel."""
    return {
        widget: (len(bundle(f"{entry}.js").encode()), len(stylesheet(f"{entry}.css").encode()))
        for widget, entry in ENTRIES.items()
    }


@contextmanager
def opened(quick: bool) -> Iterator[tuple[iw.Session, Callable[[int], Pair]]]:
    """A session on the demo model, or a tiny one, and pairs of any length for it."""
    say = None if quick else DemoPrompts()

    def pair_of(length: int) -> Pair:
        return random_pair(97, length, length - 4) if say is None else say.long(length, min(length - 1, DIFFERING))

    with iw.Session(model_of(DEMO, quick), say and say.tokenizer) as session:
        yield session, pair_of


def clicks(session: iw.Session, pair_of: Callable[[int], Pair], lengths: Sequence[int]) -> list[Sent]:
    """Open every widget at every length and click in it."""
    found = []
    for length in lengths:
        pair = pair_of(length)
        layer = _middle(session)
        cell = {"site": "resid_pre", "layer": layer, "position": length - 1}
        token = {"position": length - 1, "token": pair.foil}
        moved = {"source": [layer, length - 1], "target": [1, length - 2]}
        makers: list[tuple[Callable[[], LiveWidget], list[Click]]] = [
            (
                lambda pair=pair: iw.AttentionPattern(session, pair.clean),
                [
                    ("select a head", "select", {"layer": layer, "head": 1}),
                    ("ablate a head", "ablate", {"layer": layer, "head": 1}),
                    ("select a later head", "select", {"layer": layer + 1, "head": 0}),
                    ("ablate a second head", "ablate", {"layer": layer - 1, "head": 1}),
                    *([("exact window of 128 x 64", _WINDOW, {})] if length > 256 else []),
                ],
            ),
            (
                lambda pair=pair: iw.LogitLens(session, pair.clean),
                [
                    ("transplant a state", "transplant_cells", moved),
                    ("ablate a head elsewhere", _ELSEWHERE, {}),
                    ("replace a token", "replace", token),
                    *([("exact cells of a band", _COLUMNS, {})] if length > MOST else []),
                ],
            ),
            (
                lambda pair=pair: iw.PatchingHeatmap(session, clean=pair.clean, corrupted=pair.corrupted),
                [
                    ("patch a cell", "patch", {"cells": [cell]}),
                    ("ablate a head elsewhere", _ELSEWHERE, {}),
                    ("another site", "set", {"site": "attn_out"}),
                ],
            ),
        ]
        for make, asked in makers:
            found += _clicks_of(make, asked, length)
            session.interventions.clear()
    return found


def _clicks_of(make: Callable[[], LiveWidget], asked: list[Click], length: int) -> list[Sent]:
    with recorded() as sent:
        start = time.perf_counter()
        widget = make()
        widget.wait()
        kind, seconds = type(widget).__name__, time.perf_counter() - start
        opening = sum(size for message, size in sent if message == "comm_open")
        found = [
            Sent(kind, "comm_open", length, opening, 0.0),
            Sent(kind, "first picture", length, _bytes(sent) - opening, seconds),
        ]
        for number, (what, operation, arguments) in enumerate(asked, start=1):
            before, start = _bytes(sent), time.perf_counter()
            _act(widget, number, operation, arguments)
            widget.wait()
            found.append(Sent(kind, what, length, _bytes(sent) - before, time.perf_counter() - start))
        widget.close()
    return found


def _middle(session: iw.Session) -> int:
    return session.engine.architecture.n_layers // 2


def _bytes(sent: list[tuple[str, int]]) -> int:
    return sum(size for _, size in sent)


def _act(widget: LiveWidget, number: int, operation: str, arguments: dict[str, Any]) -> None:
    """A click, as the page sends it; or an experiment that another widget made."""
    if operation == _ELSEWHERE:
        widget.session.interventions.append(iw.Ablate("z", layer=_middle(widget.session), head=1))
        return
    state = {"_request": {"id": number, "op": operation, **arguments}}
    if operation == _WINDOW:
        state = {"_asked": {"version": widget._detail["version"], "rows": [100, 228], "cols": [50, 114]}}
    if operation == _COLUMNS:
        place = {"rows": [0, len(widget._grid["rows"])], "cols": [16, 32]}
        state = {"_asked": {"number": number, "reading": widget._grid["reading"], **place}}
    content = {"data": {"method": "update", "state": state, "buffer_paths": []}}
    widget._handle_msg({"content": content, "buffers": []})
