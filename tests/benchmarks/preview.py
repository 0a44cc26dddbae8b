"""The heatmap's estimate beside the exact map: how alike they are, where they are least, and how long each takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

import interpwidgets as iw
from interpwidgets.engine.gradient import Recorded
from interpwidgets.methods.attribution import way_back
from interpwidgets.methods.patching import sources
from interpwidgets.methods.task import Task, patching_task, prompt_pair
from interpwidgets.session import Session
from interpwidgets.widgets.filling import Filling

from .workloads import DemoPrompts, Pair, random_pair

SITES = ("resid_pre", "attn_out", "mlp_out", "z")
STEPS = (1, 5)
TELLING = 0.05
"""Signs are compared where the exact effect is more than this share of the map's largest."""
TARGET = 3.0
"""Forward passes until the picture is complete."""
CITY = "{} is in the city of"
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
    """An indirect object, a fact whose first difference is early, an induction sequence."""
    if quick:
        return {name: random_pair(97, 9, first) for name, first in (("IOI", 5), ("fact", 1), ("induction", 3))}
    say = DemoPrompts()
    return {
        "IOI": say.ioi(),
        "fact": say.pair(CITY.format("The Eiffel Tower"), CITY.format("The Colosseum"), " Paris", " Rome"),
        "induction": say.pair(SEQUENCE.format("lamp"), SEQUENCE.format("chair"), " lamp", " chair"),
    }


def previews(session: Session, chosen: Mapping[str, Pair], runs: int) -> Iterator[Preview]:
    """Every pair and site; each time until complete is the median of `runs`, forward passes timed in between."""
    for name, pair in chosen.items():
        for site in SITES:
            yield from _previews(session, name, pair, site, runs)


def _previews(session: Session, name: str, pair: Pair, site: str, runs: int) -> Iterator[Preview]:
    clean, corrupted = list(pair.clean), list(pair.corrupted)
    asked = (session, clean, corrupted, site, pair.answer, pair.foil)
    one = statistics.median(_seconds(lambda: _forward(session, corrupted)) for _ in range(3 * runs))
    whole = _fill(session, clean, corrupted, site, pair, stop=False)
    task = whole.filling.task
    exact = (whole.filling.values - task.corrupted_value) / task.gap
    for steps in STEPS:
        times = []
        for _ in range(runs):
            forward = statistics.median(_seconds(lambda: _forward(session, corrupted)) for _ in range(3))
            if steps == 1:
                seconds = _fill(session, clean, corrupted, site, pair, stop=True).shown
            else:
                session._results.clear()
                seconds = _seconds(lambda n=steps: iw.attribution_sweep(*asked, steps=n))
            times.append(seconds / forward)
        estimate = iw.attribution_sweep(*asked, steps=steps).values
        yield _preview(name, len(clean), site, steps, estimate, exact, times, whole.ended / one if steps == 1 else None)


def _preview(
    name: str, length: int, site: str, steps: int, estimate: np.ndarray, exact: np.ndarray, times: list[float],
    ended: float | None,
) -> Preview:  # fmt: skip
    ran = exact != 0
    telling = np.abs(exact) > TELLING * np.abs(exact).max()
    row, column = np.unravel_index(np.abs(estimate - exact).argmax(), exact.shape)
    place = f"L{row}H{column}" if site == "z" else f"L{row}, position {column}"
    return Preview(
        name, length, site, steps, _spearman(estimate[ran], exact[ran]),
        float((np.sign(estimate) == np.sign(exact))[telling].mean()),
        f"{place}: {estimate[row, column]:.2f} for {exact[row, column]:.2f}", statistics.median(times), ended,
    )  # fmt: skip


class _Shown(Exception):
    """Leaves a filling once its estimate is there."""


@dataclass(frozen=True)
class _Filled:
    """A map as the widget fills it; seconds until it has an estimate of every cell, and until it was left."""

    filling: Filling
    shown: float
    ended: float


def _fill(session: Session, clean: list[int], corrupted: list[int], site: str, pair: Pair, *, stop: bool) -> _Filled:
    """From nothing known, to the end or until all cells have an estimate."""
    session._results.clear()
    shown = []

    def ask() -> Task:
        return patching_task(session, clean, corrupted, pair.answer, pair.foil, capture=sources(session, site))

    def show() -> None:
        shown.append(time.perf_counter())
        if stop:
            raise _Shown

    def record() -> Recorded | None:
        return way_back(session, *prompt_pair(session, clean, corrupted), site, "denoise", ())

    filling = Filling(session, ask, record, site, "denoise", None, True)
    start = time.perf_counter()
    with suppress(_Shown):
        filling.run(show, lambda: None, lambda done, total: None)
    return _Filled(filling, shown[0] - start, time.perf_counter() - start)


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
