"""What a widget shows as a matrix, for every way of drawing it outside of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .scale import Scale


@dataclass(frozen=True)
class Heatmap:
    """A matrix (row, column) with everything that a picture of it says; NaN cells stay empty."""

    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    title: str
    row_title: str
    column_title: str
    unit: str
    scale: Scale
    upward: bool = False
    """Whether row 0 is drawn lowest."""
    text: np.ndarray | None = None
    """What is written into the cells, (row, column)."""
    captions: Sequence[str] = ()
    """Lines below the title: of which prompts it is, and what acted."""
