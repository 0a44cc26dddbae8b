"""What a sweep will compute: which rows share a pass, and what each pass takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .engine import Engine
from .forward import Edit
from .packed import Span

_CPU_FLOPS, _GPU_FLOPS = 6e10, 1e13  # what a modest machine does in a second


@dataclass(frozen=True)
class Pass:
    """One forward pass of a sweep; `rows` are indices of the rows given."""

    rows: tuple[int, ...]
    tokens: int
    """Positions computed, counted once for each block that they go through."""
    flops: float
    """Multiplications and additions of the blocks' matrices and of attention; of a mixture, all experts counted."""
    bytes: int
    """What its rows hold at their widest, estimated."""


@dataclass(frozen=True)
class Plan:
    """The passes of a sweep, in order. Rows that are known to be the undisturbed run are in none of them."""

    passes: tuple[Pass, ...]
    forwards: float
    """How many plain forward passes over the prompt have as many tokens."""

    @property
    def rows(self) -> int:
        return sum(len(p.rows) for p in self.passes)

    @property
    def tokens(self) -> int:
        return sum(p.tokens for p in self.passes)

    @property
    def flops(self) -> float:
        return sum(p.flops for p in self.passes)

    @property
    def bytes(self) -> int:
        return max((p.bytes for p in self.passes), default=0)

    def __str__(self) -> str:
        several = f"{len(self.passes)} passes" if len(self.passes) != 1 else "1 pass"
        return (
            f"{self.rows} rows in {several}: {self.tokens:,} tokens through a block (as in {self.forwards:.1f} forward "
            f"passes), {self.flops / 1e9:,.1f} GFLOP, at most {self.bytes / 2**20:,.0f} MiB at a time"
        )


def span(edits: Sequence[Edit], n_layers: int) -> Span:
    """Where a row begins to differ from the undisturbed run; at block -1 for the embedding."""
    after = {("resid_post", n_layers - 1), ("ln_final", None)}
    blocks = [n_layers if (e.site, e.layer) in after else -1 if e.layer is None else e.layer for e in edits]
    return Span(min(blocks), min(0 if e.positions is None else min(e.positions) for e in edits))


def make_plan(
    engine: Engine,
    spans: Sequence[Span | None],
    end: int,
    *,
    budget: int,
    at_least: int = 1,
    priority: Sequence[float] = (),
) -> Plan:
    """Pack rows, given by where they begin, into passes over the positions before `end`.

    None stands for a row that needs no computing. Passes are few enough for `budget` bytes and short enough to stop in;
    passes are alike in cost. Rows of the highest `priority` come first, of equal ones those of late blocks (the cheap
    ones). `at_least` passes are wanted for results to show meanwhile, where the sweep is long enough for that.
    """
    n_layers = engine.architecture.n_layers
    if len(priority) not in (0, len(spans)):
        raise ValueError(f"priority has {len(priority)} numbers, and there are {len(spans)} rows: one a row is needed")
    first = priority if len(priority) else np.zeros(len(spans))
    waiting = [i for i, s in enumerate(spans) if s is not None]
    waiting.sort(key=lambda i: (-first[i], -_of(spans[i]).block))
    tokens = {i: _tokens(_of(spans[i]), end, n_layers) for i in waiting}
    at_once = _tokens_a_block(engine)
    # A pass costs about as much as eight of its rows at small batches; do not cut a short sweep up.
    share = sum(tokens.values()) / min(at_least, max(1, len(waiting) // 64))
    chosen: list[list[int]] = []
    sizes = {n: row_bytes(engine, end, n) for n in {end - _of(spans[i]).position for i in waiting}}
    held, wide, spent = 0, 0, share
    for i in waiting:
        computed = end - _of(spans[i]).position
        size = sizes[computed]
        if spent >= share or held + size > budget or wide + computed > at_once:
            chosen.append([])
            held, wide, spent = 0, 0, 0
        chosen[-1].append(i)
        held, wide, spent = held + size, wide + computed, spent + tokens[i]
    passes = tuple(_pass(engine, rows, [_of(spans[i]) for i in rows], end, sizes) for rows in chosen)
    return Plan(passes, sum(tokens.values()) / (n_layers * end))


def _of(span: Span | None) -> Span:
    assert span is not None
    return span


def _tokens(span: Span, end: int, n_layers: int) -> int:
    return (end - span.position) * (n_layers - max(span.block, 0))


def _pass(engine: Engine, rows: list[int], spans: list[Span], end: int, sizes: dict[int, int]) -> Pass:
    a = engine.architecture
    matrices = [sum(p.numel() for p in b.module.parameters() if p.dim() > 1) for b in a.blocks]
    widths = [heads * width for heads, width in zip(a.n_heads, a.d_head, strict=True)]
    # From a block to the last one.
    below, across = (np.append(np.cumsum(x[::-1])[::-1], 0) for x in (matrices, widths))
    flops = 0.0
    for s in spans:
        computed, block = end - s.position, max(s.block, 0)
        keys = computed * (s.position + (computed + 1) / 2)  # pairs of query and key
        flops += 2.0 * computed * below[block] + 4.0 * keys * across[block]
    tokens = sum(_tokens(s, end, a.n_layers) for s in spans)
    return Pass(tuple(rows), tokens, flops, sum(sizes[end - s.position] for s in spans))


def _tokens_a_block(engine: Engine) -> int:
    """How many tokens one block takes in about a second: so long does Stop have to wait."""
    flops = 2 * sum(p.numel() for p in engine.architecture.blocks[-1].module.parameters())
    return int((_CPU_FLOPS if engine.device.type == "cpu" else _GPU_FLOPS) // flops)


def row_bytes(engine: Engine, length: int, computed: int) -> int:
    """Bytes that one row of a sweep holds at its widest: stream, MLP, keys and values of a layer, logits.

    `computed` of the `length` positions are computed; the others are the undisturbed run's.
    """
    a = engine.architecture
    size = engine.model.get_input_embeddings().weight.element_size()  # type: ignore[operator]
    per_position = (
        6 * a.d_model + 3 * max(a.d_mlp or [0]) + 2 * max(h * d for h, d in zip(a.n_heads, a.d_head, strict=True))
    )
    keys = 4 * length * max(h * d for h, d in zip(a.n_heads, a.d_head, strict=True))
    scores = max(a.n_heads) * computed * length
    return size * (computed * per_position + keys + scores) + 8 * a.n_vocab
