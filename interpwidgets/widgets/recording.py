"""What a widget has shown lately: the results that a page without a kernel can show again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ..experiments import Experiment

_MOST_RESULTS = 8
_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Result:
    """One picture: what was asked, and every trait of the page that shows it."""

    question: dict[str, Any]
    """What the picture depends on beside the experiments, by the names of the requests' arguments."""
    experiments: tuple[Experiment, ...]
    traits: dict[str, Any]

    def run(self) -> str:
        """The run that it is of: what acts, and what it is compared with, as the page compares runs."""
        return canonical([self.entries(), self.question.get("baseline")])

    def entries(self) -> list[dict[str, Any]]:
        """The experiments as the page compares them."""
        return [{"code": repr(e.intervention), "on": e.on} for e in self.experiments]


@dataclass
class Recording:
    """The newest results of a widget, one for each question and list of experiments."""

    _results: dict[str, Result] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Keep a result, in place of an older one to the same question; the oldest go where they are too many."""
        key = canonical([result.question, result.entries()])
        self._results.pop(key, None)
        self._results[key] = result
        while len(self._results) > 1 and (len(self._results) > _MOST_RESULTS or self._bytes() > _MOST_BYTES):
            del self._results[next(iter(self._results))]

    def results(self) -> list[Result]:
        """What is kept, oldest first; the last is what was shown last."""
        return list(self._results.values())

    def _bytes(self) -> int:
        """What the arrays take; what several results share counts once."""
        values = {id(v): v for result in self._results.values() for v in result.traits.values()}
        return sum(map(_bytes_in, values.values()))


def canonical(value: Any) -> str:
    """JSON by which the page compares requests and questions, as its own `canonical` writes it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _bytes_in(value: Any) -> int:
    if isinstance(value, memoryview):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes_in, value.values()))
    return 0
