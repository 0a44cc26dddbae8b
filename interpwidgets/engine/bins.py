"""Attention patterns reduced while a pass runs: the largest weight of each bin, where whole matrices are not kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Bins:
    """The largest weight of each bin of a pattern, of every layer and head.

    `site`: "pattern", or that of another stack. Queries and keys are binned alike: position 0 alone, because heads rest
    there, and the others in even bins, so that a side has at most `most`. A side of at most `most` is left as it is.
    """

    site: str
    most: int

    def edges(self, length: int) -> list[int]:
        """Where the bins of so many positions begin, and where the last one ends."""
        if length <= self.most:
            return list(range(length + 1))
        return [0, *range(1, length, self._width(length)), length]

    def __call__(self, pattern: Tensor) -> Tensor:
        """(row, query, head, key) -> (row, head, bin, bin)."""
        return self._along(self._along(pattern.transpose(1, 2), 2), 3)

    def of(self, weights: np.ndarray) -> np.ndarray:
        """Of one head's weights, (query, key) -> (bin, bin); of any numbers, for a difference too."""
        for axis in (0, 1):
            starts = self.edges(weights.shape[axis])[:-1]
            weights = np.maximum.reduceat(weights, starts, axis=axis)
        return weights

    def _width(self, length: int) -> int:
        return -(-(length - 1) // (self.most - 1))

    def _along(self, x: Tensor, axis: int) -> Tensor:
        length = x.shape[axis]
        if length <= self.most:
            return x.clone()
        width = self._width(length)
        bins, left = divmod(length - 1, width)
        binned = x.narrow(axis, 1, bins * width).unflatten(axis, (bins, width)).amax(axis + 1)
        last = [x.narrow(axis, length - left, left).amax(axis, keepdim=True)] if left else []
        return torch.cat([x.narrow(axis, 0, 1), binned, *last], axis)
