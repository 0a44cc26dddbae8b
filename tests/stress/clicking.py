"""Threads that click in three widgets, as their pages would, while a user uses the model."""

from __future__ import annotations

import threading
import time
import warnings
from collections import Counter

import numpy as np

import interpwidgets as iw
from interpwidgets.session import NoEffectWarning
from tests.sent import array, head

from .state import CORRUPTED, LONG, PROMPT, count_hooks, state_of
from .user import User, pair

LENGTH, LAYERS, HEADS = len(PROMPT), 4, 4


def send(widget, state: dict) -> None:
    """A message as the front end sends it."""
    widget._handle_msg({"content": {"data": {"method": "update", "state": state, "buffer_paths": []}}, "buffers": []})


def click(widget, op: str, **arguments) -> int:
    """A request as the front end sends it; gives its id."""
    number = int(widget._status["id"]) + 1
    send(widget, {"_request": {"id": number, "op": op, **arguments}})
    return number


def widgets_of(session) -> list:
    """The three widgets, on the same prompts."""
    return [
        iw.AttentionPattern(session, PROMPT, layer=1, head=2),
        iw.LogitLens(session, PROMPT),
        iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED, answer=7, foil=11),
    ]


def a_click(widget, draw) -> None:
    """A click that the widget's page could make."""
    layer, head = int(draw.integers(LAYERS)), int(draw.integers(HEADS))
    query = int(draw.integers(1, LENGTH))
    key = int(draw.integers(query))
    history = [("undo", {}), ("redo", {}), ("clear", {}), ("stop", {})]
    own = {
        "AttentionPattern": [
            ("select", {"layer": layer, "head": head}),
            ("ablate", {"layer": layer, "head": head, "how": ("zero", "mean")[int(draw.integers(2))]}),
            ("cut", {"layer": layer, "head": head, "query": query, "key": key}),
            ("run", {"prompt": list(CORRUPTED if draw.integers(2) else PROMPT)}),
        ],
        "LogitLens": [
            ("track", {"token": int(draw.integers(97))}),
            ("transplant_cells", {"source": [layer, key], "target": [layer + 1, query]}),
            ("replace", {"position": key, "token": int(draw.integers(97))}),
            ("compute", {"metric": ("kl", "entropy", "rank")[int(draw.integers(3))]}),
        ],
        "PatchingHeatmap": [
            ("set", {"site": ("resid_pre", "attn_out", "z", "v")[int(draw.integers(4))]}),
            ("set", {"direction": ("denoise", "noise")[int(draw.integers(2))]}),
            ("patch", {"cells": [{"site": "resid_pre", "layer": layer, "head": None, "position": query}]}),
            ("drill", {"layer": None if draw.integers(2) else layer}),
        ],
    }[type(widget).__name__]
    choices = own * 3 + history
    op, arguments = choices[int(draw.integers(len(choices)))]
    click(widget, op, **arguments)


def shows_the_model(session, widgets, twin) -> None:
    """After all is quiet, a click in each widget shows what a fresh session finds in the twin."""
    session.interventions.clear()
    attention, lens, heatmap = widgets
    click(attention, "run", prompt=list(PROMPT))
    click(lens, "run", prompt=list(PROMPT))
    click(heatmap, "set", site="resid_pre", metric="logit_diff", direction="denoise", answer=7, foil=11)
    click(heatmap, "run", clean=list(PROMPT), corrupted=list(CORRUPTED))
    click(attention, "select", layer=1, head=2)
    for widget in widgets:
        widget.wait(LONG)
        assert widget._status["error"] is None
    with iw.Session(twin) as fresh:
        pattern = iw.attention_patterns(fresh, PROMPT).sel(layer=1, head=2)
        read = iw.logit_lens(fresh, PROMPT)
        swept = iw.patch_sweep(fresh, PROMPT, CORRUPTED, answer=7, foil=11, normalize=False)
    assert np.allclose(head(attention), pattern, atol=1e-6)
    assert np.allclose(array(lens._grid["p"]), read["top_probability"], atol=1e-6)
    assert np.allclose(array(heatmap._sweep["values"]), swept, atol=1e-4)


def click_while_the_user_works(clicks: int, seed: int = 0) -> Counter:
    """Click in three widgets from three threads, with a cell and a user's thread beside them."""
    model, twin = pair()
    hooks = count_hooks(model)
    start = state_of(twin)
    session = iw.Session(model)
    widgets = widgets_of(session)
    user = None
    done = threading.Event()
    figures: Counter = Counter()
    failures: list[BaseException] = []

    def guarded(work):
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again by the main thread
                failures.append(error)
                done.set()

        return run

    def page(i: int) -> None:
        draw = np.random.default_rng([seed, i])
        for n in range(clicks // len(widgets)):
            if done.is_set():
                return
            a_click(widgets[i], draw)
            if n % 10 == 9:  # look at the picture now and then; errors of a moment's experiments are drawn
                _settle(widgets[i])

    def cell() -> None:
        draw = np.random.default_rng([seed, 100])
        while not done.is_set():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NoEffectWarning)
                session.run(PROMPT, "z", [iw.Ablate("z", layer=int(draw.integers(4)), head=int(draw.integers(4)))])
            figures["runs in a cell"] += 1

    def work() -> None:
        nonlocal user
        user = User(model, twin)
        draw = np.random.default_rng([seed, 200])
        while not done.is_set():
            user.act(draw)
        user.finish()

    pages = [threading.Thread(target=guarded(lambda i=i: page(i)), name=f"page-{i}") for i in range(len(widgets))]
    others = [threading.Thread(target=guarded(w), name=w.__name__) for w in (cell, work)]
    for thread in (*pages, *others):
        thread.start()
    deadline = time.monotonic() + LONG + clicks
    for thread in pages:
        thread.join(deadline - time.monotonic())
    done.set()
    for thread in (*pages, *others):
        thread.join(LONG)
        assert not thread.is_alive(), f"{thread.name} hangs"
    if failures:
        raise failures[0]
    assert user is not None
    shows_the_model(session, widgets, twin)
    user.call(np.random.default_rng(0))
    session.close()
    end = state_of(model)
    assert count_hooks(model) == hooks
    assert end == state_of(twin)
    assert end.logits != start.logits  # the user did train
    figures.update(user.figures)
    figures["clicks"] = clicks
    figures["threads"] = len(pages) + len(others) + 2  # the worker's and the main thread
    figures["runs of the user's own"] = sum(n for name, n in user.figures.items() if name.startswith("user: "))
    return figures


def _settle(widget) -> None:
    try:
        widget.wait(LONG)
    except TimeoutError:
        raise
    except (ValueError, IndexError):
        assert widget._status["error"] is not None
