"""What was aimed at, to be held against what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .outcome import Outcome
from .startup import LIMITS
from .workloads import DEMO

if TYPE_CHECKING:
    from .report import Results

RATIOS = (
    ("IOI pair", "TransformerLens", 150),
    ("IOI pair", "nnsight", 100),
    ("fact pair, early difference", "TransformerLens", 30),
    ("IOI pair, heads", "TransformerLens", 45),
)
"""Workloads of the demo model on the CPU, and how many times faster than a tool ours is to be."""
TIMES_THE_FLOOR = ("long pair", 1.6)
MOST_JAVASCRIPT, MOST_OPENING = 60_000, 100_000
"""Bytes of a widget's module, and of what opens it."""


@dataclass(frozen=True)
class Target:
    what: str
    wanted: str
    measured: str
    met: bool


def targets(results: Results) -> Iterator[Target]:
    """Those of which there are figures."""
    yield from _of_sweeps(results.outcomes)
    if results.peaks:
        share = max(peak.share for peak in results.peaks)
        yield Target("a sweep's peak of memory", "at most the budget", f"{share:.2f} of it", share <= 1)
    for step, limit in LIMITS.items():
        if step in results.startup:
            seconds = results.startup[step]
            yield Target(step, f"under {limit} s", f"{seconds:.2f} s", seconds < limit)
    if results.modules:
        yield _bytes("JavaScript of a widget", max(js for js, _ in results.modules.values()), MOST_JAVASCRIPT)
    if results.sent:
        yield _bytes("comm_open", max(s.size for s in results.sent if s.what == "comm_open"), MOST_OPENING)


def _of_sweeps(outcomes: list[Outcome]) -> Iterator[Target]:
    main = {o.workload.name: o for o in outcomes if (o.workload.model, o.workload.device) == (DEMO, "cpu")}
    for name, tool, wanted in RATIOS:
        if name in main:
            ratio = main[name].ratio(tool)
            yield Target(f"{name} against {tool}", f"at least {wanted}x", f"{ratio:.0f}x", ratio >= wanted)
    name, most = TIMES_THE_FLOOR
    if name in main:
        times = main[name].times_the_floor
        yield Target(f"{name} against the floor", f"at most {most}x", f"{times:.2f}x", times <= most)
    if outcomes:
        same = sum(o.same for o in outcomes)
        yield Target("values equal", "all workloads", f"{same} of {len(outcomes)}", same == len(outcomes))


def _bytes(what: str, size: int, most: int) -> Target:
    return Target(what, f"at most {most:,} bytes", f"{size:,}", size <= most)
