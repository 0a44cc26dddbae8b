"""What a widget shows as a matrix, for every way of drawing it outside of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bands import Kept
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
    kept: Kept
    """What a cell shows where several are drawn as one."""
    upward: bool = False
    """Whether row 0 is drawn lowest."""
    text: np.ndarray | None = None
    """What is written into the cells, (row, column)."""
    row_names: Sequence[str] | None = None
    """Short ones, for the ends of a run; the labels if there are none."""
    column_names: Sequence[str] | None = None
    narrow: Sequence[bool] = ()
    """For each column, whether it holds several."""
    captions: Sequence[str] = ()
    """Lines below the title: of which prompts it is, and what acted."""
