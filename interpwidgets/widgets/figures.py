"""The way out: what a widget shows as a plotly figure, for papers and further work."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from ..tokens import elide
from .colours import colour_at
from .heatmap import NUMBERED, Heatmap, square

_LONGEST_LINE = 110  # characters above the matrix
_DIGITS = 4  # of a number in a cell
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


def heatmap(shown: Heatmap) -> go.Figure:
    """A matrix as a figure, in the palettes of the widgets.

    Axes are indices with labels on the ticks, so that equal tokens stay apart.
    """
    written = _written(shown)
    low, high = sorted((shown.scale.low, shown.scale.high))
    trace = go.Heatmap(
        z=shown.values,
        zmin=low,
        zmax=high,
        colorscale=_colours(shown),
        showscale=False,
        text=None if written is None else [[_plain(cell) for cell in row] for row in written],
        texttemplate=None if written is None else "%{text}",
        hovertemplate=f"{shown.row_title} %{{y}}, {shown.column_title} %{{x}}: %{{z:.4f}}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = go.Figure([trace, _legend(shown)])
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


def _written(shown: Heatmap) -> np.ndarray | None:
    """What stands in the cells, (row, column), if anything does."""
    if not shown.written or shown.text is not None:
        return shown.text if shown.written else None
    number = shown.number
    if number is None or square(*shown.values.shape) < NUMBERED:
        return None
    written = [number(float(value), _DIGITS) if np.isfinite(value) else "" for value in shown.values.ravel()]
    return np.array(written).reshape(shown.values.shape)


def _colours(shown: Heatmap) -> list[tuple[float, str]]:
    """The colours as plotly reads them: at even steps of the value, whatever the scale."""
    shares = np.linspace(0, 1, 256)
    values = shown.scale.values(shares)
    places = (values - values.min()) / (values.max() - values.min())
    colours = [_rgb(share, shown) for share in shares]
    return sorted(zip(places.tolist(), colours, strict=True))


def _legend(shown: Heatmap) -> go.Scatter:
    """A trace that shows nothing but the colours, evenly: along the values those of a logarithm would not be seen."""
    scale = shown.scale
    bar = {"title": {"text": shown.unit, "side": "right"}, "thickness": 14, "outlinewidth": 0}
    ticks = {"tickvals": [at for at, _ in scale.ticks], "ticktext": [text for _, text in scale.ticks]}
    colours = [(float(share), _rgb(share, shown)) for share in np.linspace(0, 1, 9)]
    marker = {"color": [0], "cmin": 0, "cmax": 1, "colorscale": colours, "showscale": True, "colorbar": bar | ticks}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, hoverinfo="skip", showlegend=False)


def _rgb(share: float, shown: Heatmap) -> str:
    return "rgb({},{},{})".format(*colour_at(float(share), shown.palette, diverging=shown.scale.diverging))


def _plain(text: str, length: int = 24) -> str:
    """Text as plotly must be given it to draw it as it is: neither as its own markup nor, between $, as TeX."""
    return elide(text, length).translate(_ENTITIES)
