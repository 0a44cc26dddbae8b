"""The colour scale of each metric of a lens, and its name: those of the page, `static/lens_metrics.js`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..methods.lens import UNITS
from .scale import Scale

_SAYS = {
    "probability": "probability of the top token",
    "log_probability": "log-probability of the top token",
    "entropy": "entropy of the prediction",
    "rank": "rank of the actual token",
    "kl": "KL divergence from the last layer",
    "cross_entropy": "cross-entropy on the actual token",
}


def metric_says(metric: str) -> str:
    """What a metric is, with its unit."""
    return ", ".join(filter(None, (_SAYS[metric], UNITS[metric])))


def metric_scale(metric: str, most: float) -> Scale:
    """Of values up to `most` in size: dark is much, except for ranks, where dark is the top."""
    bound = most or 1.0
    half, end = (f"{at * bound:.{int(bound < 10)}f}" for at in (0.5, 1))
    match metric:
        case "probability":
            return Scale(0.0, 1.0, [(0, "0"), (0.25, ".25"), (0.5, ".5"), (0.75, ".75"), (1, "1")])
        case "log_probability":
            return Scale(-bound, 0.0, [(0, f"−{end}"), (0.5, f"−{half}"), (1, "0")])
        case "rank":
            return _rank_scale(max(10.0, most))
        case "kl" | "cross_entropy":
            return _near_log_scale(max(1.0, most))
    return Scale(0.0, bound, [(0, "0"), (0.5, half), (1, end)])


def _rank_scale(worst: float) -> Scale:
    """A logarithmic scale of 0-based ranks."""
    scale = Scale(worst, 0.0, (), "log")
    marks = [m for m in (10_000.0, 1000.0, 100.0, 10.0) if m < worst and float(scale.shares(m)) > 0.16]
    return _marked(scale, [worst, *marks, 0.0], lambda m: str(int(m + 0.5)) if m < 1000 else f"{int(m / 1000 + 0.5)}k")


def _near_log_scale(bound: float) -> Scale:
    """Linear near 0 and logarithmic beyond 1: the embedding's row is often ten times everything else."""
    scale = Scale(0.0, bound, (), "log")
    marks = [m for m in (0.0, 1.0, 10.0, 100.0) if float(scale.shares(m)) < 0.84]
    return _marked(scale, [*marks, bound], lambda m: f"{m:.{int(m < 10 and m % 1 > 0)}f}")


def _marked(scale: Scale, marks: Sequence[float], write: Callable[[float], str]) -> Scale:
    return replace(scale, ticks=[(float(scale.shares(mark)), write(mark)) for mark in marks])
