"""What came of one workload: each tool's seconds, how far their values are from ours, and the floor."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from .workloads import Workload

OURS = "interpwidgets"


@dataclass
class Outcome:
    """Seconds of each run by tool (a peer's scaled up to all cells), and how far its values are from ours."""

    workload: Workload
    n_cells: int
    n_timed: int
    """Cells that each peer ran."""
    operations: int
    rates: list[float] = field(default_factory=list)
    """Operations a second of a matrix product, beside each of our runs: other work on the machine changes it."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    """Of lower precision, by tool: how far its values are from those of float32."""
    allowed: float = 0.0

    @property
    def floor(self) -> float:
        """Seconds that the operations take at the median rate."""
        return self.operations / statistics.median(self.rates)

    @property
    def times_the_floor(self) -> float:
        """Our seconds over the floor at the rate beside the run; the median of the runs."""
        return statistics.median(s * r / self.operations for s, r in zip(self.seconds[OURS], self.rates, strict=True))

    def ratio(self, tool: str) -> float:
        """A tool's seconds over ours in the same round; the median of the rounds."""
        rounds = zip(self.seconds[tool], self.seconds[OURS], strict=True)
        return statistics.median(theirs / ours for theirs, ours in rounds)

    def median(self, tool: str) -> float:
        return statistics.median(self.seconds[tool])

    @property
    def same(self) -> bool:
        return all(value <= self.allowed for value in self.difference.values())
