"""Still pictures for places without a kernel: small HTML tables and SVG matrices, model text always escaped."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import numpy as np

from ..tokens import elide

_BLUE, _ORANGE = (33, 102, 172), (200, 95, 20)
_MOST_CELLS = 1200  # keeps a picture under 100 KB


def shade(value: float, bound: float) -> str:
    """White for 0, blue towards +bound, orange towards -bound."""
    share = 0.0 if not np.isfinite(value) or bound == 0 else min(1.0, abs(value) / bound)
    target = _BLUE if value >= 0 else _ORANGE
    r, g, b = (round(255 + (c - 255) * share) for c in target)
    return f"#{r:02x}{g:02x}{b:02x}"


def matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], caption: str, *, upward: bool = False
) -> str:
    """A matrix (row, column) as SVG with labels; NaN cells are left out. Thinned out evenly if it is too large."""
    values, rows, columns, step = _thinned(values, rows, columns)
    bound = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    size, left, top = (22 if len(columns) <= 32 else 12), 84, 78
    order = range(len(rows) - 1, -1, -1) if upward else range(len(rows))
    cells = []
    for y, i in enumerate(order):
        cells.append(_text(left - 4, top + y * size + size * 0.7, rows[i], "end"))
        for x, value in enumerate(values[i]):
            if np.isfinite(value):
                fill = shade(float(value), bound)
                cells.append(
                    f'<rect x="{left + x * size}" y="{top + y * size}" '
                    f'width="{size - 1}" height="{size - 1}" fill="{fill}"/>'
                )
    for x, label in enumerate(columns):
        cells.append(_text(left + x * size + size * 0.7, top - 6, label, "start", turn=True))
    width, height = left + len(columns) * size + 70, top + len(rows) * size + 8
    note = f" (every {step[0]}. row, every {step[1]}. column)" if step != (1, 1) else ""
    return (
        f"<div>{html.escape(caption)}: 0 white, {bound:.3g} darkest{note}</div>"
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'style="background:#fff;color:#222" font-family="monospace" font-size="11" fill="#222" role="img" '
        f'aria-label="{html.escape(caption)}">{"".join(cells)}</svg>'
    )


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], colour: Callable[[int, int], str | None] | None = None
) -> str:
    """A small table; the first column is a header. `colour(row, column)` fills a cell."""
    style = "padding:1px 5px;white-space:pre;font:11px monospace;text-align:left"
    out = ["<tr>" + "".join(f'<th style="{style}">{html.escape(h)}</th>' for h in head) + "</tr>"]
    for i, row in enumerate(rows):
        cells = []
        for j, cell in enumerate(row):
            fill = colour(i, j) if colour is not None and j else None
            background = f";background:{fill};color:{_ink(fill)}" if fill else ""
            cells.append(f'<td style="{style}{background}">{html.escape(cell)}</td>')
        out.append(f"<tr>{''.join(cells)}</tr>")
    return f'<table style="border-collapse:collapse">{"".join(out)}</table>'


def _ink(fill: str) -> str:
    r, g, b = (int(fill[i : i + 2], 16) for i in (1, 3, 5))
    return "#fff" if 0.3 * r + 0.6 * g + 0.1 * b < 140 else "#222"


def _text(x: float, y: float, text: str, anchor: str, turn: bool = False) -> str:
    turned = f' transform="rotate(-50 {x:.0f} {y:.0f})"' if turn else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{turned}>{html.escape(elide(text, 11))}</text>'


def _thinned(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str]
) -> tuple[np.ndarray, Sequence[str], Sequence[str], tuple[int, int]]:
    down, across = 1, 1
    while (len(rows) // down) * (len(columns) // across) > _MOST_CELLS:
        if len(rows) // down >= len(columns) // across:
            down += 1
        else:
            across += 1
    return values[::down, ::across], rows[::down], columns[::across], (down, across)
