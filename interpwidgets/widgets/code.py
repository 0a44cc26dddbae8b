"""The Python that rebuilds a view, in a kernel that has nothing but this package."""

from __future__ import annotations

from collections.abc import Iterable

from ..engine.interventions import Intervention
from ..experiments import Experiment
from ..session import Session

Lines = list[str]


def code_of_session(session: Session) -> Lines:
    """Opens a session like this one, or says which is needed."""
    lines = ["import interpwidgets as iw", ""]
    if session.opened_by is None:
        lines.append(f"# session = iw.Session(model, tokenizer), of the model {session.name!r}")
    else:
        lines.append(f"session = {session.opened_by}  # or the one that is open already")
    if session.prepend_bos != session.prepends_bos_when_opened:
        lines.append(f"session.prepend_bos = {session.prepend_bos}")
    return lines


def code_of_experiments(of: str, entries: Iterable[Experiment], baseline: Iterable[Intervention]) -> Lines:
    """Puts these into the list `of`, and its baseline."""
    spelled = [f"    {(e.intervention if e == Experiment(e.intervention) else e).code()}," for e in entries]
    pinned = [f"    {i.code()}," for i in baseline]
    lines = [f"{of}.replace([", *spelled, "])"] if spelled else []
    return [*lines, f"{of}.baseline = [", *pinned, "]"] if pinned else lines
