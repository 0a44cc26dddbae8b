"""One forward pass that answers a whole heatmap: a row of the pass is one experiment.

The rows lie end to end in one sequence (`engine/packed.py`). Positions before the first differing token are computed
once, the undisturbed run is in the pass once, a row joins at the block where its first edit acts, as a copy of that
run, and carries the positions from that edit on. So the weights of each block are read once, and no cell computes again
what its edit cannot change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from .engine import Engine
from .forward import Edit, ForwardPass
from .memory import NotEnoughMemory, explained
from .packed import PackedPass, Span
from .plan import Plan, make_plan, span
from .sites import SITES

Metric = Callable[[Tensor], Tensor]
"""Logits at the answer's position (row, token) -> one number a row.

One that has `tokens` (ids) and `of_tokens` (their logits, (row, token) -> one number a row) spares the others.
"""
Partial = Callable[[np.ndarray], None]
Progress = Callable[[int, int], None]
P = TypeVar("P", bound=PackedPass)

_FOR_LESS = "Lower session.memory_budget ({:.2g} GiB), sweep fewer places, or shorten the prompts."


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the first `length` positions of a run, per layer (kv head, position, d_head)."""

    keys: list[Tensor]
    values: list[Tensor]
    length: int


class _PrefixLayer(DynamicLayer):
    """Tells the model how many positions were before; our attention joins their keys and values to each row's own."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys[None], values[None]  # (1, kv head, position, d_head)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        return key_states, value_states


@dataclass(frozen=True)
class SweepResult:
    """`values`: the metric of each row; `base`: of the run without any row's edits."""

    values: np.ndarray
    base: float


@dataclass(frozen=True)
class Sweep:
    """Every row's edits on the prompt `ids` (1, position), whose answer is read at position `at`.

    `source` are the ids (1, position) that an encoder reads. `base` edits act in every row. A `prefix` holds what is
    the same in all rows. `packed=False` uses the full-batch form, for models whose blocks do not treat positions by
    themselves: every row whole, from the embedding on.
    """

    engine: Engine
    ids: Tensor
    rows: Sequence[Sequence[Edit]]
    at: int
    base: Sequence[Edit] = ()
    prefix: Prefix | None = None
    packed: bool = True
    source: Tensor | None = None

    @cached_property
    def is_packed(self) -> bool:
        """Rows of a packed pass join behind the embedding, so that none may edit it."""
        return self.packed and not any(e.site == "embed" for row in self.rows for e in row)

    @cached_property
    def end(self) -> int:
        """The position before which everything is computed: what follows the answer's does not matter to it."""
        whole = any(SITES[e.site].base in ("scores", "pattern") for row in (self.base, *self.rows) for e in row)
        return self.at + 1 if self.engine.causal and not whole else self.ids.shape[1]

    @cached_property
    def start(self) -> int:
        return self.prefix.length if self.prefix is not None and self.is_packed else 0

    @cached_property
    def spans(self) -> list[Span | None]:
        """Where each row begins; None for a row that cannot differ from the base run."""
        return [self._span(edits) if edits else None for edits in self._acting]

    @cached_property
    def _acting(self) -> list[list[Edit]]:
        """Each row's edits that can matter to the answer, as early in the pass as they can be made."""
        return [self._early([e for e in row if self._matters(e)]) for row in self.rows]

    def _span(self, edits: Sequence[Edit]) -> Span:
        if not self.is_packed:
            return Span(0, 0)
        begins = span(edits, self.engine.architecture.n_layers)
        if not self.engine.causal:
            return Span(begins.block, 0)
        return replace(begins, position=max(begins.position, self.start))

    def _matters(self, edit: Edit) -> bool:
        if edit.positions is None or not self.engine.causal or SITES[edit.site].of_source:
            return edit.positions is None or len(edit.positions) > 0
        return any(self.start <= p <= self.at for p in edit.positions)

    def _early(self, row: list[Edit]) -> list[Edit]:
        """An edit of what leaves a block is one of what enters the next: the row can join there."""
        edit = row[0] if len(row) == 1 and self.is_packed else None
        if edit is None or edit.site != "resid_post" or edit.layer is None:
            return row
        following = edit.layer + 1
        taken = any(e.site == "resid_pre" and e.layer == following for e in self.base)
        moves = following < self.engine.architecture.n_layers and not taken
        return [replace(edit, site="resid_pre", layer=following) if moves else edit]

    def plan(self, budget: int, at_least: int = 1, priority: Sequence[float] = ()) -> Plan:
        read = 0 if self.source is None else self.source.shape[1]
        length = self.end + read
        return make_plan(self.engine, self.spans, length, budget=budget, at_least=at_least, priority=priority)

    def run(
        self,
        metric: Metric,
        *,
        budget: int,
        check: Callable[[], None] | None = None,
        progress: Progress | None = None,
        partial: Partial | None = None,
        priority: Sequence[float] = (),
    ) -> SweepResult:
        """The metric of every row.

        `budget` is the bytes that the rows of one pass may take; what does not fit is split, rows of the highest
        `priority` first. `partial` receives the values so far (NaN where not known yet) after each pass, `progress`
        (rows done, rows to do).
        """
        plan = self.plan(budget, at_least=4 if partial else 1, priority=priority)
        values = np.full(len(self.rows), np.nan)
        unchanged = np.array([s is None for s in self.spans], bool)
        base_value = np.nan
        total, before, halved = max(plan.rows, 1), 0, False
        waiting: list[tuple[int, ...]] = [p.rows for p in plan.passes] or [()]
        while waiting:
            chosen = waiting.pop(0)

            def on_block(layer: int, done: int = before, size: int = len(chosen)) -> None:
                if progress is not None:
                    progress(done + size * layer // self.engine.architecture.n_layers, total)

            tokens = self.ids.shape[1]
            asked = f"a sweep of {plan.rows} rows, {len(chosen)} in this pass, each of {tokens} tokens"
            try:
                with explained(asked, _FOR_LESS.format(budget / 2**30)):
                    one_pass = self._packed_pass if self.is_packed else self._full_pass
                    result = one_pass(chosen, metric, check, on_block)
            except NotEnoughMemory:
                if halved or len(chosen) < 2:
                    raise
                # The budget is an estimate; a machine that is shared has less by the time it is needed.
                halved, waiting = True, [half for each in (chosen, *waiting) for half in _halves(each)]
                continue
            base_value = float(result[0])
            values[unchanged] = base_value
            values[list(chosen)] = result[1:]
            before += len(chosen)
            if progress is not None:
                progress(before, total)
            if partial is not None:
                partial(values)
        return SweepResult(values, base_value)

    def _packed_pass(
        self,
        chosen: Sequence[int],
        metric: Metric,
        check: Callable[[], None] | None,
        on_block: Callable[[int], None],
    ) -> np.ndarray:
        edits, spans = self.laid_out(chosen)
        forward, arguments = self.packed_pass(PackedPass, edits, spans, check=check, on_block=on_block)
        values = self.measure(metric, self.ids[:, self.start : self.end], forward, arguments, forward.by_row)
        out = np.empty(len(chosen) + 1)
        out[forward.order] = values.double().cpu().numpy()
        return out

    def laid_out(self, chosen: Sequence[int]) -> tuple[list[Edit], list[Span]]:
        """The edits and spans of a pass of these rows, behind the undisturbed run."""
        edits, spans = list(self.base), [Span(0, self.start)]
        for place, i in enumerate(chosen, start=1):
            begins = self.spans[i]
            assert begins is not None
            spans.append(begins)
            edits += [replace(e, row=place) for e in self._acting[i]]
        return edits, spans

    def packed_pass(self, kind: type[P], edits: list[Edit], spans: Sequence[Span], **more: Any) -> tuple[P, Any]:
        """A pass over the positions that the sweep computes, and what the model is called with for it."""
        shared = self.prefix if self.start else None
        forward = kind(
            self.engine, edits=edits, spans=spans, end=self.end, at=self.at,
            keys=shared.keys if shared else (), values=shared.values if shared else (), **more,
        )  # fmt: skip
        if shared is None:
            return forward, {"use_cache": False}
        layers: list[Any] = [_PrefixLayer(*kv) for kv in zip(shared.keys, shared.values, strict=True)]
        return forward, {"use_cache": True, "past_key_values": Cache(layers=layers)}

    def _full_pass(
        self,
        chosen: Sequence[int],
        metric: Metric,
        check: Callable[[], None] | None,
        on_block: Callable[[int], None],
    ) -> np.ndarray:
        edits = list(self.base)
        for place, i in enumerate(chosen, start=1):
            edits += [replace(e, row=place) for e in self._acting[i]]
        forward = ForwardPass(self.engine, self.source, edits=edits, check=check, on_block=on_block)
        arguments = {"use_cache": False} | (self.engine.last_logits_only if self.at == self.end - 1 else {})
        batch = self.ids[:, : self.end].expand(len(chosen) + 1, -1)
        values = self.measure(metric, batch, forward, arguments, lambda x: x[:, self.at - self.end])
        return values.double().cpu().numpy()

    def measure(
        self,
        metric: Metric,
        batch: Tensor,
        forward: ForwardPass,
        arguments: dict[str, Any],
        pick: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The metric of the logits that `pick` takes, one a row."""
        return measured(metric, self.engine.reading(batch, forward, pick, **arguments))


def measured(metric: Metric, read: Callable[[list[int] | None], Tensor]) -> Tensor:
    """The metric of the logits (row, token) that `read` gives, all or of some tokens."""
    tokens = getattr(metric, "tokens", None)
    return metric(read(None)) if tokens is None else metric.of_tokens(read(tokens))  # type: ignore[attr-defined]


def _halves(rows: tuple[int, ...]) -> list[tuple[int, ...]]:
    middle = -(-len(rows) // 2)
    return [half for half in (rows[:middle], rows[middle:]) if half]
