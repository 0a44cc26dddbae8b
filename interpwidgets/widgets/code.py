"""The Python that rebuilds a view, in a kernel that has nothing but this package."""

from __future__ import annotations

from collections.abc import Iterable

from ..engine.interventions import Intervention
from ..experiments import Experiment
from ..session import Session, name_to_find

Lines = list[str]


def code_of_session(session: Session) -> Lines:
    """Takes the session that is open on a model like this one's, or opens one.

    Of a session that was not opened by `iw.load`, the model is called `model` there, and its tokenizer `tokenizer`.
    """
    opened = session.opened_by or f"iw.Session(model{'' if session.tokenizer is None else ', tokenizer'})"
    found = f"iw.find_session({name_to_find(session)!r}, {session.engine.dtype_name!r})"
    lines = ["import interpwidgets as iw", "", f"session = {found} or {opened}"]
    if session.prepend_bos != session.prepends_bos_when_opened:
        lines.append(f"session.prepend_bos = {session.prepend_bos}")
    return lines


def code_of_experiments(of: str, entries: Iterable[Experiment], baseline: Iterable[Intervention]) -> Lines:
    """Puts these into the list `of`, and its baseline."""
    spelled = [f"    {(e.intervention if e == Experiment(e.intervention) else e).code()}," for e in entries]
    pinned = [f"    {i.code()}," for i in baseline]
    lines = [f"{of}.replace([", *spelled, "])"] if spelled else []
    return [*lines, f"{of}.baseline = [", *pinned, "]"] if pinned else lines
