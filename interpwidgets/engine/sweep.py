"""One forward pass that answers a whole heatmap.

A sweep is a list of rows; a row is a list of edits, and begins at the first block that it edits. The prompt runs
once; at each block, the rows that begin there join the batch as copies of row 0, the undisturbed run itself. No row
computes a block above its edits, each block's weights are read once for all rows, and positions before `start` come
from a cache of keys and values that all rows share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from .engine import Engine
from .forward import Edit, ForwardPass
from .memory import NotEnoughMemory, explained
from .sites import SITES

Metric = Callable[[Tensor], Tensor]
"""Logits at the answer's position (row, token) -> one number a row.

One that has `tokens` (ids) and `of_tokens` (their logits, (row, token) -> one number a row) spares the others.
"""
Partial = Callable[[np.ndarray], None]
Progress = Callable[[int, int], None]

_CPU_FLOPS, _GPU_FLOPS = 6e10, 1e13  # what a modest machine does in a second


_FOR_LESS = "Lower session.memory_budget ({:.2g} GiB), sweep fewer places, or shorten the prompts."


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the first `length` positions of a run, per layer (kv head, position, d_head)."""

    keys: list[Tensor]
    values: list[Tensor]
    length: int


class _PrefixLayer(DynamicLayer):
    """One layer's shared keys and values, served to however many rows are there."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._shared = keys[None], values[None]  # (1, kv head, position, d_head) each
        self.keys, self.values = self._shared
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        rows = key_states.shape[0]
        keys, values = (t.expand(rows, -1, -1, -1) for t in self._shared)
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)


@dataclass(frozen=True)
class SweepResult:
    """`values`: the metric of each row; `base`: of the run without any row's edits."""

    values: np.ndarray
    base: float


def sweep(
    engine: Engine,
    ids: Tensor,
    rows: Sequence[Sequence[Edit]],
    metric: Metric,
    at: int,
    *,
    source: Tensor | None = None,
    base: Sequence[Edit] = (),
    prefix: Prefix | None = None,
    budget: int,
    shared: bool = True,
    check: Callable[[], None] | None = None,
    progress: Progress | None = None,
    partial: Partial | None = None,
) -> SweepResult:
    """Run every row's edits on the prompt `ids` (1, position) and give the metric, at position `at`, of each.

    `source` are the ids that an encoder reads, (1, position). `base` edits act in every row. `shared=False` uses the
    full-batch form, for attention that cannot share a prefix or let rows join late: every row from the embedding on.
    `budget` is the bytes that the rows of one pass may take; what does not fit is split. `partial` receives the values
    so far (NaN where not known yet) after each pass.
    """
    values = np.full(len(rows), np.nan)
    base_value = np.nan
    # A row without edits is the base run; nothing needs to be computed for it.
    active = [i for i, edits in enumerate(rows) if edits]
    read = 0 if source is None else source.shape[1]
    passes = _split(engine, ids.shape[1] + read, rows, active, budget, shared, prefix, at_least=4 if partial else 1)
    total, before, halved = max(len(active), 1), 0, False
    waiting = passes or [[]]
    while waiting:
        chosen = waiting.pop(0)

        def on_block(layer: int, done: int = before, size: int = len(chosen)) -> None:
            if progress is not None:
                progress(done + size * layer // engine.architecture.n_layers, total)

        asked = f"a sweep of {len(active)} rows, {len(chosen)} in this pass, each of {ids.shape[1]} tokens"
        try:
            with explained(asked, _FOR_LESS.format(budget / 2**30)):
                result = _one_pass(
                    engine, ids, [rows[i] for i in chosen], metric, at, base, prefix, shared, check, on_block, source
                )
        except NotEnoughMemory:
            if halved or len(chosen) < 2:
                raise
            # The budget is an estimate; a machine that is shared has less by the time it is needed.
            halved, waiting = True, [half for each in (chosen, *waiting) for half in _halves(each)]
            continue
        base_value = float(result[0])
        values[[i for i in range(len(rows)) if i not in set(active)]] = base_value
        values[chosen] = result[1:]
        before += len(chosen)
        if progress is not None:
            progress(before, total)
        if partial is not None:
            partial(values)
    return SweepResult(values, base_value)


def _halves(rows: list[int]) -> list[list[int]]:
    middle = -(-len(rows) // 2)
    return [half for half in (rows[:middle], rows[middle:]) if half]


def _begin(edits: Sequence[Edit]) -> int:
    """The block at which a row begins to differ; -1 for the embedding."""
    last = 1 << 30
    return min(
        -1 if e.site == "embed" or SITES[e.site].of_source else last if e.layer is None else e.layer for e in edits
    )


def _one_pass(
    engine: Engine,
    ids: Tensor,
    rows: Sequence[Sequence[Edit]],
    metric: Metric,
    at: int,
    base: Sequence[Edit],
    prefix: Prefix | None,
    shared: bool,
    check: Callable[[], None] | None,
    on_block: Callable[[int], None],
    source: Tensor | None,
) -> np.ndarray:
    n_layers = engine.architecture.n_layers
    begins = [min(_begin(r), n_layers - 1) for r in rows]
    from_start = not shared or any(b < 0 for b in begins)
    start = 0 if from_start or prefix is None else prefix.length
    order = range(len(rows)) if from_start else sorted(range(len(rows)), key=lambda i: begins[i])
    grow: dict[int, int] = {}
    edits = list(base)
    for place, i in enumerate(order, start=1):
        if not from_start:
            grow[begins[i]] = grow.get(begins[i], 0) + 1
        edits += [replace(e, row=place) for e in rows[i]]
    forward = ForwardPass(engine, source, edits=edits, start=start, grow=grow, check=check, on_block=on_block)
    arguments: dict[str, object] = {"use_cache": False}
    if start and prefix is not None:
        layers: list[Any] = [_PrefixLayer(k, v) for k, v in zip(prefix.keys, prefix.values, strict=True)]
        arguments = {"use_cache": True, "past_key_values": Cache(layers=layers)}
    arguments |= engine.last_logits_only if at == ids.shape[1] - 1 else {}
    batch = ids[:, start:].expand(len(rows) + 1 if from_start else 1, -1)
    tokens = getattr(metric, "tokens", None)
    if tokens is None:
        values = metric(engine.run(batch, forward, **arguments)[:, at - ids.shape[1]])
    else:
        values = metric.of_tokens(engine.run_for_tokens(batch, forward, tokens, **arguments)[:, at - ids.shape[1]])  # type: ignore[attr-defined]
    out = np.empty(len(rows) + 1)
    out[[0, *(1 + i for i in order)]] = values.double().cpu().numpy()
    return out


def _split(
    engine: Engine,
    length: int,
    rows: Sequence[Sequence[Edit]],
    active: list[int],
    budget: int,
    shared: bool,
    prefix: Prefix | None,
    at_least: int,
) -> list[list[int]]:
    """Pack rows of `length` positions into passes that fit the budget: late blocks (cheap) first, alike in cost."""
    n_layers = engine.architecture.n_layers
    order = sorted(active, key=lambda i: -_begin(rows[i]))
    cost = [n_layers - max(_begin(rows[i]), 0) if shared else n_layers for i in order]
    computed = length - (prefix.length if prefix else 0)
    at_most = max(1, min(budget // row_bytes(engine, length, computed), _rows_a_block(engine, computed)))
    # A pass costs about as much as eight of its rows at small batches; do not cut a short sweep up.
    wanted = min(at_least, max(1, len(order) // 64))
    share = sum(cost) / wanted if order else 0
    passes: list[list[int]] = []
    spent = share
    for i, c in zip(order, cost, strict=True):
        if spent >= share or len(passes[-1]) >= at_most:
            passes.append([])
            spent = 0
        passes[-1].append(i)
        spent += c
    return passes


def _rows_a_block(engine: Engine, computed: int) -> int:
    """How many rows of `computed` positions one block takes in about a second: so long does Stop have to wait."""
    block = engine.architecture.blocks[-1].module
    flops = 2 * sum(p.numel() for p in block.parameters()) * computed
    return int((_CPU_FLOPS if engine.device.type == "cpu" else _GPU_FLOPS) // flops)


def row_bytes(engine: Engine, length: int, computed: int) -> int:
    """Bytes that one row of a sweep holds at its widest: stream, MLP, keys and values of a layer, logits.

    `computed` of the `length` positions are computed; the others come from the shared prefix.
    """
    a = engine.architecture
    size = engine.model.get_input_embeddings().weight.element_size()  # type: ignore[operator]
    per_position = (
        6 * a.d_model + 3 * max(a.d_mlp or [0]) + 2 * max(h * d for h, d in zip(a.n_heads, a.d_head, strict=True))
    )
    keys = 4 * length * max(h * d for h, d in zip(a.n_heads, a.d_head, strict=True))
    scores = max(a.n_heads) * computed * length
    return size * (computed * per_position + keys + scores) + 8 * a.n_vocab
