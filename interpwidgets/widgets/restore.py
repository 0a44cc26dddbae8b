"""restore(): a widget, or a workbench, from the state of another one."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..engine.names import unknown
from ..loading import DEMO_NAME, load
from ..session import Session
from .base import LiveWidget
from .view import View
from .workbench import Workbench, views_of


def restore(state: Any, session: Session | None = None) -> LiveWidget | Workbench:
    """A new widget that shows what another one did when `state` was read from it; of a workbench's, a workbench.

    Without a session, the demo model is loaded if the state is of it. The state's experiments become those of the
    session, as one step of its history, unless the widget was made with `linked=False`. Warns of a state of another
    model (OtherModelWarning). Raises ValueError or TypeError for what is no state, or does not fit the model.

    Example: `iw.restore(json.loads(text), session)`
    """
    if isinstance(state, dict) and state.get("widget") == Workbench.__name__:
        views = views_of(state)
        return Workbench.rebuilt(_session(views["attention"], session), views)
    view = View.from_json(state)
    package = import_module("interpwidgets")
    public = {name: getattr(package, name) for name in package.__all__}
    kinds = {n: k for n, k in public.items() if isinstance(k, type) and issubclass(k, LiveWidget)}
    if view.widget not in kinds:
        raise unknown("widget", view.widget, [*kinds, Workbench.__name__])
    return kinds[view.widget].rebuilt(_session(view, session), view)


def _session(view: View, given: Session | None) -> Session:
    """The session that is given, or one on the demo model if the view is of that. Raises ValueError otherwise."""
    if given is not None:
        return given
    if view.model != DEMO_NAME:
        raise ValueError(f"the state is of the model {view.model!r}: iw.restore(state, session) needs a session on it")
    session = load()
    session.prepend_bos = view.prepend_bos
    return session
