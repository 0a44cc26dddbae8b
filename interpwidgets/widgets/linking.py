"""link: selection, prompt, baseline and what is pointed at follow each other in several widgets."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import traitlets as t

from ..engine.interventions import Intervention
from ..experiments import Experiments
from ..session import Session
from .base import LiveWidget
from .displaying import weakly
from .experimenting import check_fits

_NO_PLACE = (TypeError, ValueError, t.TraitError)
"""What a widget raises for what it cannot show: it is left as it is."""


class Link:
    """Widgets that follow each other until `close`; one that is closed leaves the others linked."""

    def __init__(self, *widgets: LiveWidget, selection: bool, prompt: bool, baseline: bool, hover: bool) -> None:
        # Weakly: a link must not keep a widget, and with it a model, that nothing else refers to.
        self._widgets: weakref.WeakSet[LiveWidget] = weakref.WeakSet(widgets)
        self._passing = threading.local()  # clicks come on one thread, cells on another
        self._id = uuid4().hex
        self._observed: list[tuple[Callable[[Any], None], str]] = []
        self._lists: dict[Experiments, tuple[weakref.ref[Session], tuple[Intervention, ...]]] = {}
        """Lists of experiments, with the session they act in and the baseline they had."""
        self._observer = weakly(self._on_experiments)
        if selection:
            self._observe(self._on_selection, "selection")
        if prompt:
            self._observe(self._on_prompts, "_prompts_now")
        if baseline:
            self._lists = {w.experiments: (weakref.ref(w.session), w.experiments.baseline) for w in widgets}
            for experiments in self._lists:
                experiments.observe(self._observer)
        if hover:
            for widget in widgets:
                widget._links = [*widget._links, self._id]

    def close(self) -> None:
        """Let each widget go its own way again; nothing happens if that has been done."""
        for widget in list(self._widgets):
            for callback, name in self._observed:
                widget.unobserve(callback, names=name)
            widget._links = [each for each in widget._links if each != self._id]
        for experiments in self._lists:
            experiments.unobserve(self._observer)
        self._widgets.clear()
        self._lists.clear()

    def _observe(self, callback: Callable[[Any], None], name: str) -> None:
        self._observed.append((callback, name))
        for widget in self._widgets:
            widget.observe(callback, names=name)

    def _others(self, widget: LiveWidget) -> Iterator[LiveWidget]:
        # A widget that was closed has left its session.
        return (w for w in list(self._widgets) if w is not widget and w in w.session.widgets)

    @contextmanager
    def _pass(self) -> Iterator[None]:
        """What the others change while they follow is not passed on."""
        self._passing.on = True
        try:
            yield
        finally:
            self._passing.on = False

    def _follows(self) -> bool:
        """Whether what changes on this thread is a widget that follows."""
        return getattr(self._passing, "on", False)

    def _on_selection(self, change: Any) -> None:
        old, new = change["old"], change["new"]
        chosen = any(value != getattr(old, name, None) for name, value in new.to_json().items())
        if self._follows() or not chosen:
            return
        place = change["owner"]._place_chosen()
        with self._pass():
            for widget in self._others(change["owner"]):
                with suppress(*_NO_PLACE):
                    following = widget._following(place)
                    if following is not None:
                        widget.selection = following

    def _on_prompts(self, change: Any) -> None:
        if self._follows() or not change["new"]:
            return
        tokens = next(iter(change["new"].values()))  # of a pair, the clean one
        with self._pass():
            for widget in self._others(change["owner"]):
                # Ids of one tokenizer are other words in another.
                if tokens.text is None and widget.session is not change["owner"].session:
                    continue
                with suppress(*_NO_PLACE):
                    widget._follow_prompt(tokens.given)

    def _on_experiments(self) -> None:
        if self._follows():
            return
        changed = [e for e, (_, known) in self._lists.items() if e.baseline != known]
        for pinned in (e.baseline for e in changed[:1]):
            with self._pass():
                for experiments, (reference, _) in self._lists.items():
                    session = reference()
                    if session is not None and experiments.baseline != pinned and _fits(session, pinned):
                        experiments.baseline = pinned
        self._lists = {e: (session, e.baseline) for e, (session, _) in self._lists.items()}


def link(
    *widgets: LiveWidget, selection: bool = True, prompt: bool = True, baseline: bool = True, hover: bool = True
) -> Link:
    """Let widgets follow each other from here on; `close` of what is given back ends it.

    They may be of different models. `selection`: layer, head and position, each as far as the other widget has a place
    for it; an attention edge stands for its query's position, and -1, the embedding, is no layer of attention. In a
    PatchingHeatmap what is selected is what is patched, so that it runs that patch, unless several cells are patched
    jointly. `prompt`: also a heatmap's clean one; a heatmap follows a preset's prompt with the preset's pair, and
    another one only if it has as many tokens as its own corrupted prompt. `baseline`: what is pinned, for widgets that
    do not share `session.interventions`. `hover`: what is pointed at, in the page alone. What a widget has no place
    for leaves it as it is.

    Raises TypeError for what is no widget of this package, ValueError for fewer than two.

    Example: `iw.link(iw.AttentionPattern(session, "The cat"), iw.LogitLens(session, "The cat"))`
    """
    for widget in widgets:
        if not isinstance(widget, LiveWidget):
            raise TypeError(f"a widget is needed, such as iw.LogitLens(session, prompt); got {widget!r}")
    if len(set(widgets)) < 2:
        raise ValueError(f"two widgets or more are needed to be linked; got {len(set(widgets))}")
    return Link(*widgets, selection=selection, prompt=prompt, baseline=baseline, hover=hover)


def _fits(session: Session, interventions: tuple[Intervention, ...]) -> bool:
    """Whether the session's model has the layers and heads of all of them."""
    try:
        check_fits(session, interventions)
    except ValueError:
        return False
    return True
