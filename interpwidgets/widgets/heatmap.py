"""What a widget shows as a matrix, for every way of drawing it outside of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .bands import Kept
from .scale import Scale

NUMBERED = 22
"""Pixels of a cell from which on it shows its number."""


def square(rows: int, columns: int) -> int:
    """Pixels of a cell without words."""
    return min(30, max(4, 600 // max(1, rows, columns)))


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
    palette: str = "blue"
    text: np.ndarray | None = None
    """What stands in the cells, (row, column)."""
    number: Callable[[float, int], str] | None = None
    """A cell's value in so many letters at most; "" where it would say nothing, or another number."""
    written: bool = True
    """Whether text and numbers are written."""
    row_edges: Sequence[int] | None = None
    """Where the rows begin that the page draws of these, and where the last one ends; None if each is drawn."""
    column_edges: Sequence[int] | None = None
    row_names: Sequence[str] | None = None
    """Short ones, for the ends of a run; the labels if there are none."""
    column_names: Sequence[str] | None = None
    narrow: Sequence[bool] = ()
    """For each column, whether it holds several."""
    captions: Sequence[str] = ()
    """Lines below the title: of which prompts it is, and what acted."""
