"""The way out: what a widget shows as a plotly figure, for papers and further work."""

from __future__ import annotations

import plotly.graph_objects as go

from ..tokens import elide
from .heatmap import Heatmap
from .static import shade

_LONGEST_LINE = 110  # characters above the matrix
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


def heatmap(shown: Heatmap) -> go.Figure:
    """A matrix as a figure, in the palettes of the widgets.

    Axes are indices with labels on the ticks, so that equal tokens stay apart.
    """
    trace = go.Heatmap(
        z=shown.values,
        zmin=-shown.bound if shown.signed else 0.0,
        zmax=shown.bound,
        colorscale=_colours(shown.signed),
        colorbar={"title": {"text": shown.unit, "side": "right"}, "thickness": 14, "outlinewidth": 0},
        text=None if shown.text is None else [[_plain(cell) for cell in row] for row in shown.text],
        texttemplate=None if shown.text is None else "%{text}",
        hovertemplate=f"{shown.row_title} %{{y}}, {shown.column_title} %{{x}}: %{{z:.4f}}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(trace)
    # plotly reads a label as markup of its own; model text is text.
    names = [[_plain(label) for label in labels] for labels in (shown.rows, shown.columns)]
    across = {"title": {"text": shown.column_title}, "tickvals": list(range(len(shown.columns))), "ticktext": names[1]}
    down = {"title": {"text": shown.row_title}, "tickvals": list(range(len(shown.rows))), "ticktext": names[0]}
    said = [_plain(line, _LONGEST_LINE) for line in shown.captions]
    figure.update_layout(
        title={
            "text": _plain(shown.title, _LONGEST_LINE),
            "subtitle": {"text": "<br>".join(said)},
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 18},
        },
        margin={"t": 62 + 17 * len(said)},
        template="plotly_white",
        xaxis=across | {"showgrid": False, "zeroline": False, "tickangle": -45},
        yaxis=down | {"showgrid": False, "zeroline": False, "autorange": True if shown.upward else "reversed"},
        height=min(900, max(460, 200 + (17 if shown.text is not None else 28) * len(shown.rows))),
    )
    return figure


def _colours(signed: bool) -> list[tuple[float, str]]:
    shares = [i / 8 for i in range(9)]
    return [(at, "rgb({},{},{})".format(*shade(2 * at - 1 if signed else at, signed=signed))) for at in shares]


def _plain(text: str, length: int = 24) -> str:
    """Text as plotly must be given it to draw it as it is: neither as its own markup nor, between $, as TeX."""
    return elide(text, length).translate(_ENTITIES)
