"""A fuzzer of the widgets' wire: stale, repeated, oversized and malformed requests, and settings that make no sense."""

from __future__ import annotations

import itertools
import random
import time
import warnings
from collections import Counter
from typing import Any

import torch

import interpwidgets as iw
from tests.models import tiny

from .clicking import send, shows_the_model, widgets_of
from .state import CORRUPTED, LONG, PROMPT, state_of

STATES = ("idle", "queued", "running", "error", "cancelled", "closed")
PRIVATE = ("__init__", "__del__", "close", "_submit", "_fail", "set_state", "refresh", "wait", "figure", "open", "send")

GOOD: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "AttentionPattern": [
        ("run", {"prompt": list(PROMPT)}),
        ("run", {"prompt": "5, 17, 3"}),
        ("select", {"layer": 2, "head": 1}),
        ("ablate", {"layer": 1, "head": 3, "how": "mean"}),
        ("cut", {"layer": 0, "head": 2, "query": 2, "key": 1, "renormalize": False}),
    ],
    "LogitLens": [
        ("run", {"prompt": list(CORRUPTED)}),
        ("replace", {"position": 1, "token": 50}),
        ("transplant_cells", {"source": [1, 1], "target": [3, 2]}),
        ("track", {"token": 33}),
        ("untrack", {"token": 33}),
        ("compute", {"metric": "kl"}),
    ],
    "PatchingHeatmap": [
        ("run", {"clean": list(PROMPT), "corrupted": list(CORRUPTED)}),
        ("set", {"site": "z", "direction": "noise"}),
        ("set", {"site": "resid_pre", "metric": "probability", "normalize": False}),
        ("set", {"answer": 5, "foil": 6}),
        ("patch", {"cells": [{"site": "resid_pre", "layer": 1, "head": None, "position": 2}]}),
        ("drill", {"layer": 2}),
        ("drill", {"layer": None}),
    ],
}
HISTORY = [
    ("undo", {}), ("redo", {}), ("toggle", {"index": 0}), ("remove", {"index": 0}), ("clear", {}), ("stop", {}),
]  # fmt: skip
SETTINGS: dict[str, Any] = {
    "layer": 2, "head": 1, "view": "difference", "how": "mean", "renormalize": False, "hide_bos": False,
    "metric": "probability", "cell": [1, 1], "tracked": [3], "site": "z", "direction": "noise", "normalize": False,
    "_view_count": 1, "_asked": {"version": 1, "rows": [0, 2], "cols": [0, 2]},
}  # fmt: skip
OURS = (
    "_status", "_experiments", "_history", "_code", "_header", "_baseline_overview", "_overview", "_baseline_detail",
    "_detail", "_window", "_grid", "_sweep", "_task", "_run", "_past", "_still", "result", "selection",
    "linked", "_esm", "_title", "_prompt", "_prompts", "_sites", "_model_name", "no_such_trait",
)  # fmt: skip


def junk(draw: random.Random, depth: int = 0) -> Any:
    """A value that nobody should send."""
    kinds = [
        lambda: None,
        lambda: draw.choice((True, False)),
        lambda: draw.choice((-1, 0, 1, 3, 4, 8, 97, 999, -(10**6), 2**31, 2**63, 10**400)),
        lambda: draw.choice((0.0, 1.0, 1.5, -0.5, 1e308, float("nan"), float("inf"), -float("inf"))),
        lambda: draw.choice(
            ("", "x", "5, 17", "-1", "zero", "NaN", "\x00", "\ud800", "<script>", "🙂" * 9, "__init__")
        ),
        lambda: draw.choice(("resid_pre", "z", "resid_post", "scores", "kl", "logit_diff", "noise")),
        lambda: draw.choice("xy9") * draw.choice((1000, 100_000)),
        lambda: draw.choice((b"", b"\x05\x07", memoryview(b"\x00\xff" * 50), bytearray(5))),
    ]
    if depth < 3:
        kinds += [
            lambda: [junk(draw, depth + 1) for _ in range(draw.randrange(4))],
            lambda: {draw.choice(("id", "op", "site", "layer", "", "x")): junk(draw, depth + 1) for _ in range(2)},
            lambda: [draw.randrange(97) for _ in range(draw.choice((1, 60, 200)))],
            lambda: _nested(draw.choice((3, 100, 400))),
        ]
    return draw.choice(kinds)()


def _nested(depth: int) -> list:
    value: list = [5]
    for _ in range(depth):
        value = [value]
    return value


def a_message(draw: random.Random, widget, newest: int) -> dict[str, Any]:
    """What arrives in one message: a request, mostly, or settings, or both."""
    good = GOOD[type(widget).__name__] * 2 + HISTORY
    op, arguments = draw.choice(good)
    arguments = dict(arguments)
    number: Any = newest + draw.choice((1, 1, 1, 2, 1000))
    kind = draw.random()
    if kind < 0.25:
        pass
    elif kind < 0.50 and arguments:  # one argument is junk
        arguments[draw.choice(sorted(arguments))] = junk(draw)
    elif kind < 0.58:
        arguments[draw.choice(("extra", "self", "session", "0", "compute", "lane"))] = junk(draw)
    elif kind < 0.66:
        op = draw.choice((*PRIVATE, *(name for known in GOOD.values() for name, _ in known)))
    elif kind < 0.72:
        op = junk(draw)
    elif kind < 0.78:
        number = junk(draw)
    elif kind < 0.82:  # stale
        number = max(0, newest - draw.choice((1, 5, 10**9)))
    elif kind < 0.86:  # repeated
        return {"_request": dict(widget._request)}
    elif kind < 0.89:
        return {"_request": junk(draw)}
    elif kind < 0.94:
        return {draw.choice((*SETTINGS, *OURS)): junk(draw)}
    elif kind < 0.97:
        return {name: junk(draw) for name in draw.sample((*SETTINGS, *OURS), 3)} | {
            "_request": {"id": number, "op": op, **arguments}
        }
    else:
        name = draw.choice(sorted(SETTINGS))
        return {name: SETTINGS[name]}
    return {"_request": {"id": number, "op": op, **arguments}}


def _valid(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**53


def fuzz(requests: int, seed: int = 0) -> Counter:
    """Send messages with this many requests to a session's widgets. AssertionError for one that is not answered."""
    draw = random.Random(seed)
    figures: Counter = Counter()
    model, twin = tiny("llama"), tiny("llama")
    start = state_of(model)
    with warnings.catch_warnings(), iw.Session(model) as session:
        warnings.simplefilter("ignore")
        widgets = widgets_of(session)
        tickets: set[Any] = set()
        for n in itertools.count():
            if figures["requests"] >= requests:
                break
            widget = draw.choice(widgets)
            before, last = widget._status, dict(widget._request)
            message = a_message(draw, widget, before["id"])
            send(widget, message)
            if message.get("_request", ()) != last:  # one that is repeated has been answered
                _check_answer(widget, message, before, figures)
            tickets.update(widget._tickets.values())
            # Experiments pile up, as no user's do; stray requests would make every later pass longer and longer.
            if len(session.interventions) > 6:
                session.interventions.clear()
            if n % 100 == 99:
                _all_end(widgets)
                figures["runs superseded or stopped"] += sum(ticket.cancelled for ticket in tickets)
                tickets.clear()
        _all_end(widgets)
        for widget in widgets:  # settings that were changed rightly
            widget._view_count = 1
        shows_the_model(session, widgets, twin)
    assert state_of(model) == start
    figures["messages"] = n
    return figures


def _check_answer(widget, message: dict[str, Any], before: dict[str, Any], figures: Counter) -> None:
    """Every request is acknowledged before its message has been handled; errors are drawn."""
    status = widget._status
    assert status["state"] in STATES, status
    assert _valid(status["id"])
    assert status["state"] != "closed"
    assert len(str(status["error"])) < 10_000
    request = message.get("_request")
    if isinstance(request, dict):
        figures["requests"] += 1
        number = request.get("id")
        if _valid(number):
            assert status["id"] == number, (status, str(message)[:300])
        elif number != before.get("id"):
            assert status["error"] is not None, (before, status, str(message)[:500])
        if request.get("op") in PRIVATE:
            assert status["error"] is not None, (before, status, str(message)[:500])
        figures["refused" if status["error"] else "answered"] += 1
    elif "_request" in message:
        figures["requests"] += 1
        figures["refused"] += 1
        assert status["error"] is not None, (before, status, str(message)[:500])


def _all_end(widgets) -> None:
    deadline = time.monotonic() + LONG
    for widget in widgets:
        for ticket in list(widget._tickets.values()):
            assert ticket.wait(max(0.0, deadline - time.monotonic())), f"{widget} hangs on {str(widget._request)[:300]}"
        with widget.session.publishing:
            assert widget._status["state"] in ("idle", "error", "cancelled"), widget._status
    assert torch.is_grad_enabled()
