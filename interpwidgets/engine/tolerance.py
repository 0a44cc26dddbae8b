"""When two tensors count as the same: what the rounding of their dtype explains."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Relative error that a sum recomputed in this dtype may have."""


def close(a: Tensor, b: Tensor) -> bool:
    """Equal within what the dtype's rounding explains."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    scale = b.abs().max().clamp_min(1e-12)
    return bool((a - b).abs().max() <= TOLERANCE.get(a.dtype, 1e-5) * scale)


def factor(whole: Tensor, part: Tensor, beside: Tensor | None = None) -> float | None:
    """The number c with whole = c * part, or with whole = beside + c * part; None if there is none, or it is 0.

    A sum is allowed its own rounding, entry by entry: where the stream is thousands of times larger than what is
    added to it, that is far more than the rounding of what is added.
    """
    rest = whole.double() if beside is None else whole.double() - beside.double()
    wide = part.double()
    c = float(rest.flatten() @ wide.flatten() / wide.square().sum().clamp_min(1e-300))
    tolerance = TOLERANCE.get(part.dtype, 1e-5)
    if abs(c - 1) <= 10 * tolerance:
        c = 1.0
    allowed = tolerance * rest.abs().max().clamp_min(1e-12)
    if beside is not None:
        allowed = allowed + 4 * torch.finfo(part.dtype).eps * beside.double().abs()
    fits = bool(((c * wide - rest).abs() <= allowed).all())
    return c if abs(c) > 1e-3 and fits else None
