"""Pictures of more than fits: a cell of several rows or columns shows the one that counts, and the picture says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from .bands import kept
from .heatmap import NUMBERED, Heatmap, square

_MOST = 54_000  # bytes of an SVG; as an image in a notebook, it is a third larger
_CELL, _WORD, _LABEL = 21, 50, 75  # bytes that each takes, about
_LEAST_ROWS = 8  # of words, of which those of a layer are missed less than those of a position


def folded(shown: Heatmap) -> Heatmap:
    """As the page draws a long prompt before anything of it is opened or zoomed."""
    return _merged(shown, *_edges(shown))


def thinned(shown: Heatmap) -> Heatmap:
    """With as many cells as an SVG of less than 60 KB holds; the last row and column stay as they are.

    Of words, rows are left out, which leaves each word its colour; whatever else is too much is drawn together.
    """
    rows, columns = _edges(shown)
    down, across = 1, 1
    while True:
        fewer = (_joined if shown.text is None else _left)(rows, down), _joined(columns, across)
        if _bytes(shown, *fewer) <= _MOST:
            return _merged(shown, *fewer)
        tall, wide = map(len, fewer)
        if shown.text is not None:
            down, across = (down + 1, across) if tall > _LEAST_ROWS + 1 else (down, across + 1)
        else:
            down, across = down + (tall >= wide), across + (wide >= tall)


def _edges(shown: Heatmap) -> list[Sequence[int]]:
    """Where rows and columns begin, and where the last ones end."""
    given = zip((shown.row_edges, shown.column_edges), shown.values.shape, strict=True)
    return [range(size + 1) if edges is None else edges for edges, size in given]


def _joined(edges: Sequence[int], step: int) -> list[int]:
    """Every `step` of these runs as one, counted from the last, which stays alone: it is the one that is read."""
    starts = edges[:-1][::-1][::step][::-1]
    return [*([] if starts[0] == edges[0] else edges[:1]), *starts, edges[-1]]


def _left(edges: Sequence[int], step: int) -> list[int]:
    """Runs that end with every `step`th of these, counted from the last; the first stays alone."""
    ends = edges[1:][::-1][::step][::-1]
    return [edges[0], *([] if ends[0] == edges[1] else edges[1:2]), *ends]


def _bytes(shown: Heatmap, rows: Sequence[int], columns: Sequence[int]) -> float:
    """About how large the SVG is."""
    cells = (len(rows) - 1) * (len(columns) - 1)
    words = 0.0
    if shown.text is not None and shown.written:
        alone = np.flatnonzero(np.diff(columns) == 1)
        words = (len(rows) - 1) * float((shown.text[:, np.array(columns)[alone]] != "").mean(0).sum())
    known = float(np.isfinite(shown.values).mean())
    if shown.number is not None and square(len(rows) - 1, len(columns) - 1) >= NUMBERED:
        words = cells * known
    return cells * known * _CELL + words * _WORD + (len(rows) + len(columns)) * _LABEL


def _merged(shown: Heatmap, rows: Sequence[int], columns: Sequence[int]) -> Heatmap:
    """With the rows and columns between these edges drawn as one each."""
    values = np.where(np.isfinite(shown.values), shown.values, np.nan)
    tall, wide = (max(map(int, np.diff(edges))) for edges in (rows, columns))
    if (tall, wide) == (1, 1):
        return shown
    merged = kept(values, list(columns), shown.kept)
    text, last = shown.text, np.array(rows[1:]) - 1
    narrow = np.diff(columns) > 1
    if text is None:
        merged = kept(merged.T, list(rows), shown.kept).T
    else:
        merged = merged[last]
        text = np.where(narrow, "", text[np.ix_(last, np.array(columns[:-1]))])
    names = _names(shown.rows, shown.row_names, rows), _names(shown.columns, shown.column_names, columns)
    return replace(
        shown, values=merged, rows=[shown.rows[i] for i in last] if shown.text is not None else names[0],
        columns=names[1], narrow=narrow.tolist(), text=text, captions=[*shown.captions, *_notes(shown, tall, wide)],
    )  # fmt: skip


def _names(labels: Sequence[str], names: Sequence[str] | None, edges: Sequence[int]) -> list[str]:
    """A label for what is alone; for a run, the short names of its ends."""
    ends = labels if names is None else names
    spans = pairwise(edges)
    return [labels[first] if end - first == 1 else f"{ends[first]}–{ends[end - 1]}" for first, end in spans]


def _notes(shown: Heatmap, tall: int, wide: int) -> list[str]:
    """What a cell of several shows."""
    which = {"farthest": "largest in size"}.get(shown.kept, shown.kept)
    if shown.text is not None:
        left_out = [f"rows: one {shown.row_title} of {tall}, counted from the last"] if tall > 1 else []
        return left_out + ([f"narrow columns: the {which} of up to {wide} {shown.column_title}s"] if wide > 1 else [])
    rows, columns = _counted(tall, shown.row_title), _counted(wide, shown.column_title)
    if min(tall, wide) > 1:
        return [f"a cell is the {which} of up to {rows} × {columns}"]
    axis, several = ("rows", rows) if tall > 1 else ("columns", columns)
    return [f"{axis} of several: the {which} of up to {several}"]


def _counted(number: int, name: str) -> str:
    return f"{number} {name.removesuffix('y')}ies" if name == "query" else f"{number} {name}s"
