"""Whether sessions and widgets let go of what they held: models, tensors, hooks, threads."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter

import psutil
import torch
from ipywidgets.widgets.widget import _instances

import interpwidgets as iw
from interpwidgets.engine.memory import NotEnoughMemory
from tests.models import tiny

from .clicking import widgets_of
from .state import LONG, PROMPT

TOKENS = {"AttentionPattern": 40, "LogitLens": 40, "PatchingHeatmap": 10}
"""Lengths of the prompts whose widgets' cells are run again: what they hold is large enough to be noticed."""


def tensor_bytes() -> int:
    """Bytes of all tensors that are alive, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name == "interpwidgets-worker"}


def collected(reference: weakref.ref) -> bool:
    gc.collect()
    return reference() is None


def lifetime(ending: str, work: str) -> Counter:
    """Make a session with three widgets, let it work, end it in one way, and see that the model is freed.

    `ending`: "close" the session, or "delete" it with all that refers to it. `work`: "none", "views", "error".
    """
    before_threads, before_widgets = threads(), set(_instances)

    def use() -> weakref.ref:
        model = tiny("llama")
        session = iw.Session(model)
        widgets = widgets_of(session) if work != "none" else []
        for widget in widgets:
            widget.wait(LONG)
        if work == "error":
            handle = model.model.layers[2].register_forward_hook(_fail)
            for widget in widgets:
                session._results.clear()
                widget.refresh()
                try:
                    widget.wait(LONG)
                except NotEnoughMemory:
                    continue
                raise AssertionError("the run did not fail")
            handle.remove()
        if ending == "close":
            session.close()
        return weakref.ref(model)

    reference = use()
    freed = collected(reference)
    for thread in threads() - before_threads:
        thread.join(LONG)
    leaks = int(not freed) + len(threads() - before_threads) + len(set(_instances) - before_widgets)
    return Counter({"sessions ended": 1, "leaks found": leaks})


def _fail(*_) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def rerun_a_cell(times: int, kind: str, displayed: bool, kept: bool) -> Counter:
    """Run a widget's cell again and again; give the growth in bytes of tensors after the first few.

    `displayed`: the page shows each widget until the next takes its place. `kept`: IPython's `Out` keeps them all.
    """
    make = {
        "AttentionPattern": lambda session, prompt: iw.AttentionPattern(session, prompt),
        "LogitLens": lambda session, prompt: iw.LogitLens(session, prompt),
        "PatchingHeatmap": lambda session, prompt: iw.PatchingHeatmap(
            session, clean=prompt, corrupted=[*prompt[:5], 9, *prompt[6:]]
        ),
    }[kind]
    figures: Counter = Counter()
    process = psutil.Process()
    with iw.Session(tiny("llama")) as session:
        session._results.budget = 2_000_000
        out, widget = [], None
        base = rss = 0
        for n in range(times):
            prompt = [(7 * i + n) % 90 + 3 for i in range(TOKENS[kind])]
            old, widget = widget, make(session, prompt)
            if kept:
                out.append(widget)
            if displayed:
                widget._repr_mimebundle_()
                widget._view_count = 1
                if old is not None:
                    old._view_count = 0
            del old
            if n % 10 == 5:
                session.interventions.append(iw.Ablate("z", layer=n // 10 % 4, head=0))
            widget.wait(LONG)
            if n == 9:
                base, rss = tensor_bytes() - session._results.held, process.memory_info().rss
        figures["cells run again"] = times
        figures["growth of tensors, bytes"] = tensor_bytes() - session._results.held - base
        figures["growth of the process, bytes"] = process.memory_info().rss - rss
        figures["over the cache budget, bytes"] = max(0, session._results.held - session._results.budget)
        figures["widgets alive"] = len(session.widgets)
        assert list(session.interventions)
        assert session.run(PROMPT).prediction.isfinite().all()
    return figures
