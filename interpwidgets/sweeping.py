"""How a session runs many experiments on one prompt: what is asked as data, planned, and run here or elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .asking import Asker, tensors
from .engine.check import Check
from .engine.executor import Executor
from .engine.finite import NotFinite
from .engine.interventions import Intervention
from .engine.jobs import check_cancelled
from .engine.metrics import StandardMetric
from .engine.plan import Plan
from .engine.request import SweepRequest
from .engine.sites import Site, resolve
from .engine.sweep import Metric, Partial, Prefix, Progress, Sweep, SweepResult
from .experiments import checked
from .run import Run
from .tokens import Tokens


class NotFiniteWarning(UserWarning):
    """Some rows of a sweep have no finite value."""


class Sweeper(Asker):
    """What a session knows of sweeps."""

    executor: Executor | None
    """Where sweeps run (see `engine/executor.py`); None: here."""
    checked: Check
    _budget: int

    def prefix(self, prompt: Any, length: int, interventions: tuple[Intervention, ...] = ()) -> Prefix:
        """Keys and values of the first positions of a prompt's run, for sweeps to share."""
        run = self.ask(self.tokenize(prompt), (Site("k"), Site("v")), interventions)
        return prefix_of(run, self.engine.architecture.n_layers, length)

    def sweep(
        self,
        prompt: Any,
        rows: Sequence[Sequence[Intervention]],
        metric: Metric,
        *,
        interventions: Sequence[Intervention] = (),
        answer_position: int | None = None,
        prefix: int = 0,
        progress: Progress | None = None,
        partial: Partial | None = None,
        priority: Sequence[float] = (),
    ) -> SweepResult:
        """Run many experiments on one prompt in one forward pass (see `engine/sweep.py`).

        Each row is a list of interventions, tried on its own on top of `interventions`, under which the rows'
        sources are read too. `metric` maps the logits at `answer_position` (by default the session's for this prompt),
        (row, token), to one number a row.
        `progress(done, total)` counts rows; `partial(values)` receives the values so far, NaN where not known yet.
        The first `prefix` positions, where the caller knows them to be the same in all rows, are computed once. Rows of
        one pass take at most what results leave of `memory_budget`; more are split over passes. If a pass runs out of
        memory all the same, the sweep goes on with half the rows a pass; if that does too, it raises NotEnoughMemory.
        Of several passes, those with rows of the highest `priority`, one number a row, come first.
        Where `executor` is set it runs there, and the metric must be data (`iw.LogitDifference`, ...), not a function.
        """
        self._require_ready()
        tokens = self.tokenize(prompt)
        acting, checked_rows = interventions_of(interventions), tuple(interventions_of(row) for row in rows)
        at = self._answer_position(tokens, answer_position)
        request = SweepRequest(
            tokens, checked_rows, metric, acting, at, prefix, streams=partial is not None, priority=tuple(priority)
        )
        if self.executor is None:
            result = self.execute(request, progress=progress, partial=partial)
        else:
            spelled = request.in_ids(lambda prompt: self.tokenize(prompt).prompt)
            result = self.executor.execute(spelled, progress=progress, partial=partial)
        if not np.isfinite(result.base):
            self.ask(tokens, interventions=acting)  # says where it begins
        bad = np.flatnonzero(~np.isfinite(result.values)).tolist()
        if bad:
            try:
                self.ask(tokens, interventions=(*acting, *checked_rows[bad[0]]))
            except NotFinite as error:
                said = f"{len(bad)} of {len(rows)} rows have no finite value. Of the first, {error}"
                warnings.warn(said, NotFiniteWarning, stacklevel=2)
            else:
                if none := int(np.isnan(result.values).sum()):
                    said = f"the metric of {none} of {len(rows)} rows is NaN, though the first one's logits are finite"
                    warnings.warn(said, NotFiniteWarning, stacklevel=2)
        return result

    def execute(
        self, request: SweepRequest, *, progress: Progress | None = None, partial: Partial | None = None
    ) -> SweepResult:
        """Run a sweep that is given as data, here; `sweep` makes the request, and a worker is given one.

        Raises ValueError for a metric of tokens that the model does not have, and as `sweep`.
        """
        self._require_ready()
        if isinstance(request.metric, StandardMetric):
            request.metric.require_vocabulary(self.engine.architecture.n_vocab)
        with self.engine.lock:
            whole = self._sweep(
                self.tokenize(request.prompt), request.rows, request.interventions, request.answer_position,
                request.prefix,
            )  # fmt: skip
            budget = self._budget - self._results.held
            return whole.run(
                request.metric, budget=budget, check=check_cancelled, progress=progress, partial=partial,
                priority=request.priority,
            )  # fmt: skip

    def plan(
        self,
        prompt: Any,
        rows: Sequence[Sequence[Intervention]],
        *,
        interventions: Sequence[Intervention] = (),
        answer_position: int | None = None,
        prefix: int = 0,
    ) -> Plan:
        """What `sweep` with these arguments will compute: passes, rows, tokens, FLOPs and bytes, each and in all.

        Only what the rows patch in is run, and kept for the sweep. Example: `print(session.plan(prompt, rows))`
        """
        self._require_ready()
        acting, checked_rows = interventions_of(interventions), [interventions_of(row) for row in rows]
        with self.engine.lock:
            tokens = self.tokenize(prompt)
            whole = self._sweep(tokens, checked_rows, acting, self._answer_position(tokens, answer_position), prefix)
            return whole.plan(self._budget - self._results.held)

    def _sweep(
        self,
        tokens: Tokens,
        rows: Sequence[tuple[Intervention, ...]],
        acting: tuple[Intervention, ...],
        answer_position: int,
        prefix: int,
    ) -> Sweep:
        (at,) = resolve(answer_position, len(tokens), "answer_position")
        if not 0 <= prefix <= len(tokens):
            raise ValueError(f"prefix={prefix}: the prompt has {len(tokens)} tokens")
        shared = min(prefix, at) if self.causal and self.checked.one_pass else 0  # the answer's is computed in each row
        base = self._edits(tokens, acting, self.read(tokens))
        read = self.read(tokens, acting, whole=True)
        edits = [self._edits(tokens, row, read) for row in rows]
        ids, source = tensors([tokens])
        kept = self.prefix(tokens, shared, acting) if shared else None
        return Sweep(self.engine, ids, edits, at, base, kept, self.checked.one_pass, source)


def prefix_of(run: Run, n_layers: int, length: int) -> Prefix:
    """Keys and values of the first `length` positions of a run that holds them all."""
    keys, values = ([run.tensor(s, i)[:length].transpose(0, 1) for i in range(n_layers)] for s in ("k", "v"))
    return Prefix(keys, values, length)


def interventions_of(given: Any) -> tuple[Intervention, ...]:
    """What a caller gave as interventions. Raises TypeError for anything else."""
    if isinstance(given, Intervention):
        raise TypeError(f"interventions={given!r}: a list of interventions is needed, [{given!r}]")
    return tuple(checked(i) for i in given)
