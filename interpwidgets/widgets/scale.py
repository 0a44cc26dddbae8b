"""Which value has which colour: the scales of the page, for pictures that Python draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Curve = Literal["linear", "root", "log"]
Tick = tuple[float, str]
"""Where it stands along the colours, 0 to 1, and its number."""


@dataclass(frozen=True)
class Scale:
    """Values along a palette."""

    low: float
    """The value of the first colour, of ranks the larger one."""
    high: float
    """The value of the last colour."""
    ticks: Sequence[Tick]
    curve: Curve = "linear"
    """Even steps of colour are even steps of the value, of its root with its sign, or of log(1 + value)."""
    diverging: bool = False
    """Whether the palette has a side for each sign; zero is then in the middle."""

    def shares(self, values: np.ndarray | float) -> np.ndarray:
        """Where values stand along the colours, 0 to 1; values beyond an end stand there."""
        low, high = _bent(self.low, self.curve), _bent(self.high, self.curve)
        return np.clip((_bent(values, self.curve) - low) / (high - low), 0, 1)

    def values(self, shares: np.ndarray) -> np.ndarray:
        """The values that stand there."""
        low, high = _bent(self.low, self.curve), _bent(self.high, self.curve)
        bent = low + (high - low) * shares
        if self.curve == "root":
            return np.sign(bent) * bent**2
        return np.expm1(bent) if self.curve == "log" else bent


def weight_scale(bound: float, *, diverging: bool, root: bool) -> Scale:
    """Attention weights from 0, or their differences about it."""
    if root:
        return Scale(-bound if diverging else 0.0, bound, _root_ticks(bound, diverging), "root", diverging)
    if diverging:
        return Scale(-bound, bound, [(0, f"−{bound:.2f}"), (0.5, "0"), (1, f"+{bound:.2f}")], diverging=True)
    return Scale(0.0, bound, [(0, "0"), (0.5, f"{bound / 2:.2f}"), (1, f"{bound:.2f}")])


def effect_scale(bound: float) -> Scale:
    """Effects about zero."""
    end = f"{float(f'{bound:.{3 if bound < 10 else 4}g}'):g}"
    return Scale(-bound, bound, [(0, f"−{end}"), (0.5, "0"), (1, f"+{end}")], diverging=True)


def _root_ticks(bound: float, diverging: bool) -> list[Tick]:
    """Evenly spaced."""
    # Three digits at the quarters would run into those at the ends.
    evenly = ((-1, 0, 1) if bound < 0.1 else (-1, -0.5, 0, 0.5, 1)) if diverging else (0, 0.25, 0.5, 0.75, 1)

    def written(at: float) -> str:
        number = f"{at * at * bound:.{3 if bound < 0.1 else 2}f}".removeprefix("0")
        return "0" if at == 0 else f"{'−' if at < 0 else '+' if diverging else ''}{number}"

    return [((at + 1) / 2 if diverging else at, written(at)) for at in evenly]


def _bent(values: np.ndarray | float, curve: Curve) -> np.ndarray:
    """What even steps of colour are even steps of."""
    exact = np.asarray(values, np.float64)
    if curve == "root":
        return np.sign(exact) * np.sqrt(np.abs(exact))
    return np.log1p(exact) if curve == "log" else exact
