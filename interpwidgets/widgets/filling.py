"""A patching map while it fills: an estimate of all cells, exact ones over it, and what is left if it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine.gradient import NoGradient, Recorded
from ..engine.memory import NotEnoughMemory
from ..engine.plan import Plan
from ..engine.sweep import Progress
from ..methods.attribution import doubt, estimate_grid
from ..methods.cells import RESIDUAL_SITES, Grid, grid
from ..methods.patching import Patches, patch_rows, plan_patches, run_grid, unaffected, unpatched
from ..methods.task import METRICS, Task
from ..session import Session
from .bands import MOST
from .patching_map import PatchingMap
from .wire import Wire, to_wire

_MOST_FINISHED = 50  # maps that are kept
_WORTH = 6.0  # forward passes: three are what the estimate costs at most, and three more a person would wait for


@dataclass
class Filling:
    """The map of a site, (layer, position) or (layer, head); with a `layer`, of that layer's heads (head, position)."""

    session: Session
    ask: Callable[[], Task]
    record: Callable[[], Recorded | None]
    """Runs the prompts so that an estimate takes no pass of its own, where that can be (`way_back`)."""
    site: str
    direction: str
    layer: int | None
    estimates: bool
    """Whether an estimate is wanted first."""
    asked: tuple[Any, ...] = ()
    """All that the map depends on beside the weights."""
    task: Task | None = None
    plan: Plan | None = None
    estimate: np.ndarray | None = None
    """The raw metric of each cell's patched run, to first order; None if there was none, or none is needed any more."""
    doubt: str = ""
    note: str = ""
    """Why there is no estimate, where one was wanted."""
    values: np.ndarray | None = None
    """The raw metric of each cell's patched run, NaN where it has not run."""
    _begun: bool = field(default=False, init=False)

    def run(self, show: Callable[[], None], show_part: Callable[[], None], progress: Progress) -> None:
        """Compute the map; `show` is called once the plan and the estimate are known, `show_part` after each pass."""
        task, where, patches = self._begin()
        show()

        def part(values: np.ndarray) -> None:
            self.values, self._begun = values, True
            show_part()

        change = None if self.estimate is None else np.abs(self.estimate - unpatched(task, self.direction))
        priority = None if change is None else np.nan_to_num(change)
        self.values = run_grid(
            self.session, task, where, self.direction, patches=patches, priority=priority, progress=progress,
            partial=part,
        )  # fmt: skip
        self.estimate = None

    def take(self, finished: Filling) -> None:
        """Be a map that is known already."""
        self.task, self.plan, self.values, self.note = finished.task, finished.plan, finished.values, finished.note

    def so_far(self) -> PatchingMap:
        """The map as far as it has run, NaN in the other cells."""
        assert self.task is not None
        assert self.values is not None
        return PatchingMap(self.task, self.site, self.direction, self.values)

    def _begin(self) -> tuple[Task, Grid, Patches]:
        # Not held on to while the map fills: it is as large as all that the pass computed.
        recorded = self.record() if self.estimates and self.layer is None else None
        self.task = task = self.ask()
        where = grid(self.session, self.site, task.clean, layer=self.layer)
        patches = patch_rows(self.session, task, where, self.direction)
        self.plan = plan_patches(self.session, task, patches)
        if self.estimates and self.plan.forwards > _WORTH:
            self._estimate(task, where, patches, recorded)
        return task, where, patches

    def _estimate(self, task: Task, where: Grid, patches: Patches, recorded: Recorded | None) -> None:
        try:
            self.estimate = estimate_grid(self.session, task, where, self.direction, recorded=recorded)
        except (NoGradient, NotEnoughMemory) as error:
            self.note = f"no estimate first: {error}"
            return
        self.doubt = doubt(task, where, self.direction, self.estimate)
        known = [bool(cell and not row) for cell, row in zip(where.cells, patches.rows, strict=True)]
        self.values = np.where(np.array(known).reshape(where.shape), unpatched(task, self.direction), np.nan)
        self._begun = True

    def left(self, name: str, number: int) -> Wire:
        """What stays on the screen of a run that was stopped, as the trait `name`; nothing if it had shown nothing."""
        if not self._begun or self.values is None:
            return {}
        known = int(np.isfinite(self.values).sum())
        rest = "" if self.estimate is None else ", the hatched ones are estimates"
        stopped = f"{known} of {self.values.size} cells are exact{rest}"
        return {name: self.to_wire(number) | {"stopped": True}, "message": stopped}

    def to_wire(self, number: int) -> Wire:
        """The map as the front end draws it."""
        task, plan = self.task, self.plan
        assert task is not None
        assert plan is not None
        over = "position" if self.site in RESIDUAL_SITES else "head"
        long = len(task.clean) > MOST
        by_position = over == "position" or self.layer is not None
        # The columns before show nothing, and do not travel.
        first = min(unaffected(self.session, task), len(task.clean) - 1) if long and by_position else 0
        return {
            "id": number,
            "site": self.site,
            "layer": self.layer,
            "dims": ["layer", over] if self.layer is None else ["head", "position"],
            "first": first,
            "values": to_wire(None if self.values is None else self.values[:, first:]),
            "estimate": to_wire(None if self.estimate is None else self.estimate[:, first:]),
            "doubt": self.doubt if self.estimate is not None else "",
            "stopped": False,
            "clean": task.clean_value,
            "corrupted": task.corrupted_value,
            "baseline": unpatched(task, self.direction),
            "direction": self.direction,
            "metric": task.metric,
            "units": METRICS[task.metric],
            "gap_is_zero": task.gap_is_zero,
            "labels": {} if long else {"position": list(task.clean.strings), "corrupted": list(task.corrupted.strings)},
        }

    def task_to_wire(self) -> Wire:
        """What is measured, in words and numbers."""
        task = self.task
        assert task is not None
        return {
            "answer": {"id": task.answer, "text": self.session.show_token(task.answer)},
            "foil": {"id": task.foil, "text": self.session.show_token(task.foil)},
            "clean": task.clean_value,
            "corrupted": task.corrupted_value,
            "units": METRICS[task.metric],
            "gap_is_zero": task.gap_is_zero,
            "rows": list(task.predictions),
        }

    def cost(self) -> dict[str, str]:
        """What the sweep computes, for the status line: in short, and in full."""
        assert self.plan is not None
        return {"message": f"≈ {self.plan.forwards:.3g} forward passes", "detail": str(self.plan)}


class Finished:
    """Maps of a session that are kept, to be shown again without a sweep."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._maps: dict[Any, Filling] = {}  # by what was asked, and of which weights

    def known(self, filling: Filling) -> Filling | None:
        """A finished map of the same question."""
        return self._maps.get(self.question(filling))

    def complete(
        self, filling: Filling, show: Callable[[], None], show_part: Callable[[], None], progress: Progress
    ) -> None:
        """Compute a map as `Filling.run` does, unless it is known."""
        # Asked before the sweep: weights that change during it make the map stale.
        question = self.question(filling)
        known = self._maps.get(question)
        if known is not None:
            filling.take(known)
            return
        filling.run(show, show_part, progress)
        if question[-1] is not None:  # otherwise nobody can tell whether the weights are still the same
            self._maps = dict([*self._maps.items(), (question, filling)][-_MOST_FINISHED:])

    def question(self, filling: Filling) -> tuple[Any, ...]:
        """All that the map depends on, the weights too."""
        return *filling.asked, self._session.engine.version()
