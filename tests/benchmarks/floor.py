"""The time below which no sweep of this kind goes: the operations it needs over the measured rate of matrix products.

Counted are matrix products, two operations a multiplication: of each row from the block where its patch begins, at the
positions that it can change, and in the last block only what the last position reads. Both prompts run once, what they
share only once. Norms, activations, softmax and the two unembedded tokens are not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from .workloads import Cell, Pair, Workload

_HEIGHTS = (64, 256, 1024)  # rows of the left factor


@dataclass(frozen=True)
class Blocks:
    """Multiplications of one block at one position, by what is multiplied."""

    layers: int
    kv: int
    query: int
    out: int
    mlp: int
    score: int
    """Of one query with one key and its value, all heads."""
    parallel: bool
    """Attention and MLP read the same stream."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> Blocks:
        c = model.config
        d, heads = c.hidden_size, c.num_attention_heads
        width = d // heads
        kv_heads = getattr(c, "num_key_value_heads", None) if c.model_type == "llama" else heads
        inner = getattr(c, "intermediate_size", None) or 4 * d
        return cls(
            layers=c.num_hidden_layers, kv=2 * d * (kv_heads or heads) * width, query=d * heads * width,
            out=heads * width * d, mlp=(3 if c.model_type == "llama" else 2) * d * inner, score=2 * heads * width,
            parallel=bool(getattr(c, "use_parallel_residual", False)),
        )  # fmt: skip

    def block(self, layer: int, first: int, length: int) -> int:
        """Operations of a whole block at the positions `first` to `length`."""
        n = length - first
        keys = (first + 1 + length) * n // 2  # seen by these queries
        if layer == self.layers - 1:
            return 2 * (n * self.kv + self.query + self.out + self.mlp + self.score * length)
        return 2 * (n * (self.kv + self.query + self.out + self.mlp) + self.score * keys)

    def blocks(self, layer: int, first: int, length: int) -> int:
        """Operations of all blocks from `layer` on."""
        return sum(self.block(i, first, length) for i in range(layer, self.layers))

    def row(self, cell: Cell, first: int, length: int) -> int:
        """Operations of one patched run; none for a patch that reaches no prediction or writes what was there."""
        last = cell.layer == self.layers - 1
        if cell.site == "z":
            n = 1 if last else length - first
            within = n * (self.out + (0 if self.parallel else self.mlp))
            return 2 * within + self.blocks(cell.layer + 1, first, length)
        if cell.index < first:
            return 0
        if cell.site == "resid_pre":
            return self.blocks(cell.layer, cell.index, length)
        if last and cell.index < length - 1:
            return 0
        within = self.mlp if cell.site == "attn_out" and not self.parallel else 0
        return 2 * within + self.blocks(cell.layer + 1, cell.index, length)

    def pair(self, pair: Pair, cells: list[Cell]) -> int:
        """Operations of one sweep, both plain runs included."""
        length, first = len(pair.clean), pair.first_difference
        plain = self.blocks(0, 0, length) + self.blocks(0, first, length)
        return plain + sum(self.row(cell, first, length) for cell in cells)


def operations(model: PreTrainedModel, workload: Workload) -> int:
    """What all sweeps of a workload need; each site is a sweep that runs both prompts anew."""
    blocks = Blocks.of(model)
    cells = workload.cells(model.config.num_hidden_layers, model.config.num_attention_heads)
    by_site = [[cell for cell in cells if cell.site == site] for site in workload.sites]
    return sum(blocks.pair(pair, some) for pair in workload.pairs for some in by_site)


def rate(model: PreTrainedModel) -> float:
    """Operations a second of torch's matrix product into the MLP's width: the fastest that is seen at a few heights."""
    d = model.config.hidden_size
    inner = getattr(model.config, "intermediate_size", None) or 4 * d
    right = torch.randn(d, inner, dtype=model.dtype, device=model.device)
    return max(_product_rate(torch.randn(n, d, dtype=model.dtype, device=model.device), right) for n in _HEIGHTS)


def _product_rate(left: torch.Tensor, right: torch.Tensor, seconds: float = 0.1) -> float:
    work = 2 * left.shape[0] * left.shape[1] * right.shape[1]
    times: list[float] = []
    while sum(times) < seconds or len(times) < 5:
        start = time.perf_counter()
        left @ right
        synchronize(left.device)
        times.append(time.perf_counter() - start)
    return work / min(times)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
