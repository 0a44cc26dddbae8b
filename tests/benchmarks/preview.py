"""The heatmap's estimate beside the exact map: how alike they are, where they are least, and how long each takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

import interpwidgets as iw
from interpwidgets.methods.patching import patching_task, sources
from interpwidgets.session import Session
from interpwidgets.widgets.filling import Filling

from .workloads import FACT, DemoPrompts, Pair, random_pair

SITES = ("resid_pre", "attn_out", "mlp_out", "z")
STEPS = (1, 5)
TELLING = 0.05
"""Signs are compared where the exact effect is more than this share of the map's largest."""
TARGET = 3.0
"""Forward passes until the picture is complete."""
SEQUENCE = "The code of the day was blue seven green {}. Everyone repeated it: blue seven green"


@dataclass(frozen=True)
class Preview:
    """One map: the estimate against the exact one; times in forward passes of the corrupted prompt."""

    pair: str
    length: int
    site: str
    steps: int
    spearman: float
    """Over the cells that a sweep runs: all others are 0 in both."""
    signs: float
    worst: str
    """The cell that is furthest off: its estimate and its exact effect, as shares of the gap."""
    complete: float
    """Until every cell has a colour, from nothing: both plain runs, the plan, the gradients."""
    exact: float | None
    """Until all cells are exact, the estimate included; of an estimate that the widget does not make, None."""


def pairs(quick: bool) -> dict[str, Pair]:
    """An indirect object, a fact with an early difference, an induction sequence."""
    if quick:
        return {name: random_pair(97, 9, first) for name, first in (("IOI", 5), ("fact", 1), ("induction", 3))}
    say = DemoPrompts()
    return {
        "IOI": say.ioi(),
        "fact": say.pair(FACT.format("The Eiffel Tower"), FACT.format("The Colosseum"), " Paris", " Rome"),
        "induction": say.pair(SEQUENCE.format("lamp"), SEQUENCE.format("chair"), " lamp", " chair"),
    }


def previews(session: Session, chosen: Mapping[str, Pair], runs: int) -> Iterator[Preview]:
    """Every pair and site; each time is the median of `runs`, forward passes timed in between."""
    for name, pair in chosen.items():
        for site in SITES:
            for steps in STEPS:
                yield _preview(session, name, pair, site, steps, runs)


def _preview(session: Session, name: str, pair: Pair, site: str, steps: int, runs: int) -> Preview:
    clean, corrupted = list(pair.clean), list(pair.corrupted)
    asked = (session, clean, corrupted, site, pair.answer, pair.foil)
    times: dict[str, list[float]] = {"forward": [], "complete": [], "exact": []}
    for _ in range(runs):
        times["forward"] += [_seconds(lambda: _forward(session, corrupted)) for _ in range(3)]
        session._results.clear()
        if steps == 1:
            shown, ended = _fill(session, clean, corrupted, site, pair)
            times["complete"].append(shown)
            times["exact"].append(ended)
        else:
            times["complete"].append(_seconds(lambda: iw.attribution_sweep(*asked, steps=steps)))
    one = statistics.median(times["forward"])
    exact, estimate = iw.patch_sweep(*asked).values, iw.attribution_sweep(*asked, steps=steps).values
    ran = exact != 0
    telling = np.abs(exact) > TELLING * np.abs(exact).max()
    row, column = np.unravel_index(np.abs(estimate - exact).argmax(), exact.shape)
    place = f"L{row}H{column}" if site == "z" else f"L{row}, position {column}"
    return Preview(
        name, len(clean), site, steps, _spearman(estimate[ran], exact[ran]),
        float((np.sign(estimate) == np.sign(exact))[telling].mean()),
        f"{place}: {estimate[row, column]:.2f} for {exact[row, column]:.2f}",
        statistics.median(times["complete"]) / one,
        statistics.median(times["exact"]) / one if times["exact"] else None,
    )  # fmt: skip


def _fill(session: Session, clean: list[int], corrupted: list[int], site: str, pair: Pair) -> tuple[float, float]:
    """Seconds until the widget has an estimate of every cell, and until all are exact."""
    start, shown = time.perf_counter(), []

    def ask():
        return patching_task(session, clean, corrupted, pair.answer, pair.foil, capture=sources(session, site))

    filling = Filling(session, ask, site, "denoise", None, True)
    filling.run(lambda: shown.append(time.perf_counter()), lambda: None, lambda done, total: None)
    return shown[0] - start, time.perf_counter() - start


def _forward(session: Session, ids: list[int]) -> None:
    with torch.no_grad():
        session.model(torch.tensor([ids], device=session.engine.device), use_cache=False)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def table(found: list[Preview]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows, for the report."""
    head = (
        "pair", "site", "steps", "rank correlation", f"same sign, effects above {TELLING:.0%} of the largest",
        "furthest off, estimate for exact", "complete, forward passes", "exact, forward passes",
    )  # fmt: skip
    rows = [
        (
            f"{p.pair} ({p.length} tokens)", p.site, str(p.steps), f"{p.spearman:.2f}", f"{p.signs:.0%}", p.worst,
            f"{p.complete:.1f}", "" if p.exact is None else f"{p.exact:.1f}",
        )
        for p in found
    ]  # fmt: skip
    return head, rows
