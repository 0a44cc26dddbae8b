"""Pictures without a page: SVG matrices and small HTML tables, model text always escaped."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from zlib import crc32

import numpy as np

from ..tokens import elide
from .colours import DARK, Rgb, colour_at, ink_on, stops
from .heatmap import NUMBERED, Heatmap, square

_SANS = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
_MONO = "DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, monospace"
_LETTER, _SANS_LETTER = 6.7, 6.9  # pixels of a letter, at most, at 11 pixels
_DIGIT = 6.1  # pixels of one in a cell
_LONGEST, _LEAST_LINE = 16, 80  # characters of a label at most, and of a line below the title that there is room for
_ROOMY = 30  # columns of words up to which they have much room
_SLIM = 18.0  # pixels of a column of several beside words
_LEAST_WITH_GAP, _LEAST_WITH_SIGN = 6.0, 8.0  # pixels of a cell that stands apart, and of one with a dash below zero
_GREY = "#566070"


@dataclass(frozen=True)
class _Grid:
    """Where cells are, in pixels."""

    lefts: Sequence[float]
    """Where columns begin, and where the last one ends."""
    top: float
    tall: float
    order: Sequence[int]
    """The rows from the topmost on."""

    @property
    def narrowest(self) -> float:
        return min((end - left for left, end in pairwise(self.lefts)), default=1.0)


def cell_size(shown: Heatmap) -> tuple[float, float]:
    """Width and height of a cell that is not narrow, in pixels."""
    if shown.text is not None:
        return 50.0 if len(shown.columns) <= _ROOMY else 38.0, 17.0
    size = float(square(*shown.values.shape))
    return size, size


def drawing(shown: Heatmap) -> str:
    """A matrix as one SVG with a title, labels, axes and a legend."""
    rows, columns = ([elide(label, _LONGEST) for label in labels] for labels in (shown.rows, shown.columns))
    wide, tall = cell_size(shown)
    widths = [_SLIM if shown.text is not None and narrow else wide for narrow in shown.narrow or [False] * len(columns)]
    longest = max((len(label) for label in columns), default=1) * _LETTER
    slanted = longest > min(widths, default=wide) - 4
    left = ceil(14 + max((len(label) for label in rows), default=1) * _LETTER)
    said = 17 * len(shown.captions)
    top = ceil(44 + said + (0.77 * longest + 6 if slanted else 14))
    order = list(range(len(rows) - 1, -1, -1) if shown.upward else range(len(rows)))
    grid = _Grid([*accumulate(widths, initial=left)], top, tall, order)
    floor = top + len(rows) * tall
    width = max(
        grid.lefts[-1] + (0.66 * longest if slanted else 8) + 8,
        20 + len(shown.title) * 7.9,
        left + 180 + len(shown.unit) * _SANS_LETTER,
        *(16 + min(len(line), _LEAST_LINE) * _SANS_LETTER for line in shown.captions),
    )
    fits = int((width - 16) / _SANS_LETTER)
    height = floor + 44
    axes = f"{shown.row_title} {'↑' if shown.upward else '↓'}   {shown.column_title} →"
    parts = [
        f'<rect width="{_n(width)}" height="{_n(height)}" fill="#fff"/>',
        f'<text x="8" y="18" font-size="13" font-weight="600">{html.escape(shown.title)}</text>',
        *(_text(8, 36 + 17 * i, elide(line, fits), "start") for i, line in enumerate(shown.captions)),
        f'<text x="8" y="{36 + said}" fill="{_GREY}">{html.escape(axes)}</text>',
        *_cells(shown, grid),
        f'<g font-family="{_MONO}">{"".join(_labels(rows, columns, grid, slanted))}</g>',
    ]
    drawn = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
        f'viewBox="0 0 {_n(width)} {_n(height)}" font-family="{_SANS}" font-size="11" fill="{DARK}" role="img" '
        f'aria-label="{html.escape(shown.title)}">{drawn}{_legend(shown, left, floor + 14, drawn)}</svg>'
    )


def image(svg: str, alt: str) -> str:
    """An SVG as an image, which is what sites that show notebooks leave in: inline SVG they take out."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<div><img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}"></div>'


def resized(svg: str, width: float) -> str:
    """The same picture at another width."""
    was_wide, was_tall = (float(re.findall(rf'{name}="([\d.]+)"', svg)[0]) for name in ("width", "height"))
    head, rest = svg.split(">", 1)
    tall = f'width="{_n(width)}" height="{_n(was_tall * width / was_wide)}"'
    return re.sub(r'width="[\d.]+" height="[\d.]+"', tall, head, count=1) + ">" + rest


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A small table; the first column is a header."""
    style = "padding:1px 8px;white-space:pre;font:11px monospace;text-align:left"
    lines = [
        "<tr>" + "".join(f'<th style="{style}">{html.escape(text)}</th>' for text in head) + "</tr>",
        *(
            f'<tr><th style="{style}">{html.escape(row[0])}</th>'
            + "".join(f'<td style="{style}">{html.escape(text)}</td>' for text in row[1:])
            + "</tr>"
            for row in rows
        ),
    ]
    return f'<table style="border-collapse:collapse">{"".join(lines)}</table>'


def _cells(shown: Heatmap, grid: _Grid) -> list[str]:
    """One path for each colour, then what is written on them, dark and light."""
    boxes: dict[str, list[str]] = {}
    words: dict[str, list[str]] = {}
    dashes: dict[str, list[str]] = {}
    known, shares = np.isfinite(shown.values), shown.scale.shares(shown.values)
    gap = 1 if min(grid.tall, grid.narrowest) >= _LEAST_WITH_GAP else 0
    # Hue alone must not say the sign.
    signed = shown.scale.diverging and min(grid.tall, grid.narrowest) >= _LEAST_WITH_SIGN
    below = signed & (shown.values <= -0.05 * shown.scale.high)
    for y, row in enumerate(grid.order):
        for x, (left, end) in enumerate(pairwise(grid.lefts)):
            ink = DARK
            if known[row, x]:
                colour = colour_at(float(shares[row, x]), shown.palette, diverging=shown.scale.diverging)
                across = _n(end - left - gap)
                box = f"M{_n(left)} {_n(grid.top + y * grid.tall)}h{across}v{_n(grid.tall - gap)}h-{across}z"
                boxes.setdefault(_hex(colour), []).append(box)
                ink = ink_on(colour)
            word = _written(shown, row, x, end - left)
            if word:
                at = f'x="{_n((left + end) / 2)}" y="{_n(grid.top + (y + 0.5) * grid.tall + 3.5)}"'
                words.setdefault(ink, []).append(f"<text {at}>{html.escape(word)}</text>")
            elif below[row, x]:
                long = min(8.0, (end - left) / 2)
                at = f"M{_n((left + end - long) / 2)} {_n(grid.top + (y + 0.5) * grid.tall)}h{_n(long)}"
                dashes.setdefault(ink, []).append(at)
    crisp = "" if gap else ' shape-rendering="crispEdges"'
    return [
        *(f'<path fill="{fill}"{crisp} d="{"".join(paths)}"/>' for fill, paths in boxes.items()),
        *(f'<path stroke="{ink}" d="{"".join(paths)}"/>' for ink, paths in dashes.items()),
        *(
            f'<g fill="{ink}" text-anchor="middle" font-size="10" font-family="{_MONO}">{"".join(w)}</g>'
            for ink, w in words.items()
        ),
    ]


def _written(shown: Heatmap, row: int, column: int, wide: float) -> str:
    """What stands in a cell of this width."""
    if not shown.written:
        return ""
    if shown.text is not None:
        return elide(str(shown.text[row, column]), int(wide / _LETTER))
    value = float(shown.values[row, column])
    if shown.number is None or wide < NUMBERED or not np.isfinite(value):
        return ""
    return shown.number(value, int((wide - 2) / _DIGIT))


def _labels(rows: Sequence[str], columns: Sequence[str], grid: _Grid, slanted: bool) -> list[str]:
    """The labels of both axes; where cells are too small, of every few, counted from the last."""
    made = []
    every_row, every_column = -(-12 // int(grid.tall)), -(-(15 if slanted else 12) // int(grid.narrowest))
    for y, row in enumerate(grid.order):
        if (len(rows) - 1 - row) % every_row == 0:
            made.append(_text(grid.lefts[0] - 5, grid.top + (y + 0.5) * grid.tall + 3.5, rows[row], "end"))
    for x, (label, (left, end)) in enumerate(zip(columns, pairwise(grid.lefts), strict=True)):
        if (len(columns) - 1 - x) % every_column == 0:
            made.append(_text((left + end) / 2, grid.top - 6, label, "start" if slanted else "middle", turn=slanted))
    return made


def _legend(shown: Heatmap, left: float, top: float, drawn: str) -> str:
    """Names its gradient after what is drawn: a document may have several pictures, and names are the document's."""
    long, ends = 160, stops(shown.palette, diverging=shown.scale.diverging)
    colours = "".join(
        f'<stop offset="{_n(100 * i / (len(ends) - 1))}%" stop-color="{_hex(colour)}"/>'
        for i, colour in enumerate(ends)
    )
    name = f"iw-legend-{crc32((drawn + colours).encode()):08x}"
    bar = (
        f'<linearGradient id="{name}">{colours}</linearGradient>'
        f'<rect x="{_n(left)}" y="{_n(top)}" width="{long}" height="9" fill="url(#{name})"/>'
    )
    sides = ["start", *["middle"] * (len(shown.scale.ticks) - 2), "end"]
    marks = "".join(
        _text(left + long * at, top + 21, text, side) for (at, text), side in zip(shown.scale.ticks, sides, strict=True)
    )
    return f'{bar}<g fill="{_GREY}">{marks}{_text(left + long + 10, top + 9, shown.unit, "start")}</g>'


def _text(x: float, y: float, text: str, anchor: str, turn: bool = False) -> str:
    turned = f' transform="rotate(-50 {_n(x)} {_n(y)})"' if turn else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{turned}>{html.escape(text)}</text>'


def _hex(colour: Rgb) -> str:
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
