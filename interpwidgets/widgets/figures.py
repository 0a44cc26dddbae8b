"""The way out: what a widget shows as a plotly figure, for papers and further work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from ..tokens import elide

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


def heatmap(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    row_title: str,
    column_title: str,
    unit: str,
    signed: bool,
    upward: bool = False,
    text: np.ndarray | None = None,
) -> go.Figure:
    """A matrix (row, column) as a figure; NaN cells stay empty.

    Axes are indices with labels on the ticks, so that equal tokens stay apart. `signed` takes a diverging palette,
    symmetric about zero. `text` (row, column) is written into the cells.
    """
    bound = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    trace = go.Heatmap(
        z=values,
        zmin=-bound if signed else 0.0,
        zmax=bound,
        colorscale="RdBu" if signed else "Blues",
        colorbar={"title": {"text": unit}},
        text=None if text is None else [[_plain(cell) for cell in row] for row in text],
        texttemplate=None if text is None else "%{text}",
        hovertemplate=f"{row_title} %{{y}}, {column_title} %{{x}}: %{{z:.4f}}<extra></extra>",
    )
    figure = go.Figure(trace)
    # plotly reads a label as markup of its own; model text is text.
    names = [[_plain(label) for label in labels] for labels in (rows, columns)]
    figure.update_layout(
        title={"text": title},
        xaxis={"title": {"text": column_title}, "tickvals": list(range(len(columns))), "ticktext": names[1]},
        yaxis={
            "title": {"text": row_title}, "tickvals": list(range(len(rows))), "ticktext": names[0],
            "autorange": True if upward else "reversed",
        },
    )  # fmt: skip
    return figure


def _plain(text: str) -> str:
    """Text as plotly must be given it to draw it as it is: neither as its own markup nor, between $, as TeX."""
    return elide(text, 24).translate(_ENTITIES)
