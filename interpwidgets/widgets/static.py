"""Pictures without a page: SVG matrices and small HTML tables, model text always escaped."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..tokens import elide
from .colours import DARK, colour_at, ink_on, stops
from .heatmap import Heatmap

_MOST_CELLS, _MOST_WORDS = 900, 560  # keep a picture in a notebook under 100 KB
_SANS = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
_MONO = "DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, monospace"
_LETTER, _SANS_LETTER = 6.7, 6.9  # pixels of a letter, at most, at 11 pixels
_LONGEST, _LEAST_LINE = 16, 80  # characters of a label at most, and of a line below the title that there is room for
_GREY = "#566070"


def drawing(shown: Heatmap, *, thin: bool = False) -> str:
    """A matrix as one SVG with a title, labels, axes and a legend; with `thin`, thinned out to less than 60 KB."""
    note = ""
    if thin:
        shown, note = _thinned(shown)
    down, across = shown.values.shape
    rows, columns = ([elide(label, _LONGEST) for label in labels] for labels in (shown.rows, shown.columns))
    wide = 50.0 if shown.text is not None else float(min(30, max(9, 600 // max(1, across, down))))
    tall = 17.0 if shown.text is not None else wide
    longest = max((len(label) for label in columns), default=1) * _LETTER
    slanted = longest > wide - 4
    left = 14 + max((len(label) for label in rows), default=1) * _LETTER
    said = 17 * len(shown.captions)
    top = 44 + said + (0.77 * longest + 6 if slanted else 14)
    floor = top + down * tall
    title = f"{shown.title}{note}"
    width = max(
        left + across * wide + (0.66 * longest if slanted else 8) + 8,
        20 + len(title) * 7.9,
        left + 180 + len(shown.unit) * _SANS_LETTER,
        *(16 + min(len(line), _LEAST_LINE) * _SANS_LETTER for line in shown.captions),
    )
    fits = int((width - 16) / _SANS_LETTER)
    height = floor + 44
    order = list(range(down - 1, -1, -1) if shown.upward else range(down))
    axes = f"{shown.row_title} {'↑' if shown.upward else '↓'}   {shown.column_title} →"
    parts = [
        f'<rect width="{_n(width)}" height="{_n(height)}" fill="#fff"/>',
        f'<text x="8" y="18" font-size="13" font-weight="600">{html.escape(title)}</text>',
        *(_text(8, 36 + 17 * i, elide(line, fits), "start") for i, line in enumerate(shown.captions)),
        f'<text x="8" y="{36 + said}" fill="{_GREY}">{html.escape(axes)}</text>',
        *_cells(shown, order, left, top, wide, tall),
        f'<g font-family="{_MONO}">{"".join(_labels(rows, columns, order, left, top, wide, tall, slanted))}</g>',
        _legend(shown, left, floor + 14),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
        f'viewBox="0 0 {_n(width)} {_n(height)}" font-family="{_SANS}" font-size="11" fill="{DARK}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
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


def _cells(shown: Heatmap, order: list[int], left: float, top: float, wide: float, tall: float) -> list[str]:
    """One path for each colour, then what is written on them, dark and light."""
    boxes: dict[str, list[str]] = {}
    words: dict[str, list[str]] = {}
    known, shares = np.isfinite(shown.values), shown.scale.shares(shown.values)
    for y, row in enumerate(order):
        for x in np.flatnonzero(known[row]):
            red, green, blue = colour_at(float(shares[row, x]), "blue", diverging=shown.scale.diverging)
            place = f"M{_n(left + x * wide)} {_n(top + y * tall)}"
            boxes.setdefault(f"#{red:02x}{green:02x}{blue:02x}", []).append(
                f"{place}h{_n(wide - 1)}v{_n(tall - 1)}h-{_n(wide - 1)}z"
            )
            word = "" if shown.text is None else str(shown.text[row, x])
            if word:
                at = f'x="{_n(left + (x + 0.5) * wide)}" y="{_n(top + (y + 0.5) * tall + 3.5)}"'
                written = html.escape(elide(word, int(wide / _LETTER)))
                words.setdefault(ink_on((red, green, blue)), []).append(f"<text {at}>{written}</text>")
    return [
        *(f'<path fill="{fill}" d="{"".join(paths)}"/>' for fill, paths in boxes.items()),
        *(
            f'<g fill="{ink}" text-anchor="middle" font-size="10" font-family="{_MONO}">{"".join(w)}</g>'
            for ink, w in words.items()
        ),
    ]


def _labels(
    rows: Sequence[str], columns: Sequence[str], order: list[int],
    left: float, top: float, wide: float, tall: float, slanted: bool,
) -> list[str]:  # fmt: skip
    """The labels of both axes; where cells are too small, of every few."""
    made = []
    every_row, every_column = (-(-12 // int(size)) for size in (tall, wide))
    for y, row in enumerate(order):
        if row % every_row == 0:
            made.append(_text(left - 5, top + (y + 0.5) * tall + 3.5, rows[row], "end"))
    for x, label in enumerate(columns):
        if x % every_column == 0 and slanted:
            made.append(_text(left + (x + 0.5) * wide, top - 6, label, "start", turn=True))
        elif x % every_column == 0:
            made.append(_text(left + (x + 0.5) * wide, top - 6, label, "middle"))
    return made


def _legend(shown: Heatmap, left: float, top: float) -> str:
    long, ends = 160, stops("blue", diverging=shown.scale.diverging)
    colours = "".join(
        f'<stop offset="{_n(100 * i / (len(ends) - 1))}%" stop-color="#{red:02x}{green:02x}{blue:02x}"/>'
        for i, (red, green, blue) in enumerate(ends)
    )
    bar = (
        f'<linearGradient id="iw-legend">{colours}</linearGradient>'
        f'<rect x="{_n(left)}" y="{_n(top)}" width="{long}" height="9" fill="url(#iw-legend)"/>'
    )
    sides = ["start", *["middle"] * (len(shown.scale.ticks) - 2), "end"]
    marks = "".join(
        _text(left + long * at, top + 21, text, side) for (at, text), side in zip(shown.scale.ticks, sides, strict=True)
    )
    return f'{bar}<g fill="{_GREY}">{marks}{_text(left + long + 10, top + 9, shown.unit, "start")}</g>'


def _text(x: float, y: float, text: str, anchor: str, turn: bool = False) -> str:
    turned = f' transform="rotate(-50 {_n(x)} {_n(y)})"' if turn else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{turned}>{html.escape(text)}</text>'


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _thinned(shown: Heatmap) -> tuple[Heatmap, str]:
    """At most as many cells as a small picture holds, and what is left out, in words."""
    (rows, columns), most = shown.values.shape, _MOST_CELLS if shown.text is None else _MOST_WORDS
    down, across = 1, 1
    while -(-rows // down) * -(-columns // across) > most:
        # Words of every layer are missed less than those of a position.
        if rows // down >= (8 if shown.text is not None else columns // across):
            down += 1
        else:
            across += 1
    if (down, across) == (1, 1):
        return shown, ""
    thinner = replace(
        shown, values=shown.values[::down, ::across], rows=shown.rows[::down], columns=shown.columns[::across],
        text=None if shown.text is None else shown.text[::down, ::across],
    )  # fmt: skip
    return thinner, f" (every {down}. row, every {across}. column)"
