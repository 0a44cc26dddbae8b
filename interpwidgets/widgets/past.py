"""The runs that a widget has shown, to go back to."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ..engine.names import unknown
from .view import View

_MOST = 50


@dataclass
class Visit:
    """A run that was shown."""

    number: int
    question: Any
    """What was asked: the same question is the same visit."""
    view: View
    summary: dict[str, Any]
    time: float = field(default_factory=time.time)


class Past:
    """The last runs of a widget, and which of them is on the screen."""

    def __init__(self) -> None:
        self._visits: list[Visit] = []
        self._numbers = count(1)
        self.current = 0

    def note(self, question: Any, view: View, summary: dict[str, Any]) -> None:
        """A run is shown: a new one, or one that has been shown before."""
        known = next((visit for visit in self._visits if visit.question == question), None)
        if known is None:
            known = Visit(next(self._numbers), question, view, summary)
            self._visits = [*self._visits, known][-_MOST:]
        known.view, known.summary = view, summary
        self.current = known.number

    def keep(self, question: Any, view: View) -> None:
        """Another view of the run that is shown, if it is still the question's."""
        for visit in self._visits:
            if visit.number == self.current and visit.question == question:
                visit.view = view

    def view(self, number: Any) -> View:
        """What a run was shown as. Raises ValueError for a number that is not kept."""
        for visit in self._visits:
            if visit.number == number:
                return visit.view
        raise unknown("run", number, [str(visit.number) for visit in self._visits])

    def summaries(self) -> list[dict[str, Any]]:
        """The newest first."""
        return [
            {"number": visit.number, "time": visit.time, "current": visit.number == self.current}
            | deepcopy(visit.summary)
            for visit in reversed(self._visits)
        ]
