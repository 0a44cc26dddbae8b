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


def factor(whole: Tensor, part: Tensor) -> float | None:
    """The number c with whole = c * part; None if there is none, or it is 0 for a part that is not."""
    if not part.any():  # a map whose weights are zero adds nothing, whatever the scale
        return None if whole.any() else 1.0
    wide = part.double().flatten()
    c = float(whole.double().flatten() @ wide / (wide @ wide).clamp_min(1e-300))
    if abs(c - 1) <= 10 * TOLERANCE.get(part.dtype, 1e-5):
        c = 1.0
    return c if abs(c) > 1e-3 and close(part * c, whole) else None
