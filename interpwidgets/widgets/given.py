"""What a widget is made with, checked before Python's own complaint about it would mislead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from anywidget import AnyWidget

from ..engine.names import unknown
from ..engine.plain import short
from ..session import Session


def check_session(kind: type, prompt_names: Iterable[str], given: Any) -> None:
    """Raise TypeError, with the call that would be right, unless a session comes first."""
    if not isinstance(given, Session):
        call = f"iw.{kind.__name__}({', '.join(('session', *prompt_names))})"
        got = "nothing" if given is None else f"{type(given).__name__} {short(given)}"
        raise TypeError(
            f"{call} needs a session first, such as iw.load() or iw.Session(model, tokenizer) gives; got {got}"
        )


def check_settings(kind: type[AnyWidget], given: Iterable[str]) -> None:
    """Raise ValueError, with the nearest setting, for an argument that ipywidgets would ignore."""
    for name in given:
        if name not in kind.class_trait_names():
            own = set(kind.class_trait_names(sync=True)) - set(AnyWidget.class_trait_names())
            raise unknown("setting", name, sorted(n for n in own if not n.startswith("_")))
