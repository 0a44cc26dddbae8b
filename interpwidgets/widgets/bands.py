"""Bands, runs of positions or of layers that are one column or row until they are opened; windows of exact values."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import traitlets as t

from .wire import Wire, to_wire

MOST = 64  # positions that are drawn one by one: more would not fit on a screen as columns that can be read
_WIDTH = 16
_MOST_BANDS = 64  # that are drawn before any is opened
_MOST_ROWS = 46  # layers that a map draws one by one
_NONE = 255  # the code of a band in which nothing is known

Kept = Literal["largest", "smallest", "farthest", "mean"]
"""What a band shows of its values; "farthest" is the one of largest magnitude."""


def band_edges(length: int, first: int = 0) -> list[int] | None:
    """Where the bands of so many positions begin, and where the last one ends; None if each position has its column.

    The positions before `first` are one band; the others have a column each if they are few enough.
    """
    if length <= MOST:
        return None
    step = 1 if length - first <= MOST else _WIDTH
    return [*([0] if first else []), *range(first, length, step), length]


def layer_edges(layers: int) -> list[int] | None:
    """Where the rows of a map of so many layers begin, and where the last one ends; None if each layer has its row."""
    step = -(-layers // _MOST_ROWS)
    return None if step == 1 else [*range(0, layers, step), layers]


def drawn_edges(edges: list[int] | None, *, alone: int = 0, opened: int | None = None) -> list[int] | None:
    """Where the columns begin that the page draws of these bands, and where the last one ends.

    Those `alone` at the start are joined with no others where they are too many; that of the position `opened` is open.
    """
    if edges is None:
        return None
    joined = max(1, -(-(len(edges) - 1 - alone) // _MOST_BANDS))
    columns = {*edges[:alone], *edges[alone:-1:joined], edges[-1]}
    if opened is not None:
        for within in (edges, range(edges[-1])):
            first, end = max(e for e in columns if e <= opened), min(e for e in columns if e > opened)
            columns.update(e for e in within if first < e < end)
    return sorted(columns)


def kept(values: np.ndarray, edges: list[int], which: Kept) -> np.ndarray:
    """What each band shows of (row, position), (row, band); NaN where nothing is known."""
    if which == "farthest":
        rise, fall = (kept(values, edges, name) for name in ("largest", "smallest"))
        return np.where(np.abs(rise) >= np.abs(fall), rise, fall)
    if which == "mean":
        known = np.isfinite(values)
        sums, counts = (
            np.add.reduceat(x, edges[:-1], axis=1) for x in (np.where(known, values, 0.0), known.astype(float))
        )
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    best = np.fmax if which == "largest" else np.fmin
    return best.reduceat(values, edges[:-1], axis=1)


def in_codes(values: np.ndarray, which: Kept, *, log: bool = False) -> Wire:
    """Bands, (row, band), in 8 bits between their extremes; `log`: even steps of log(1 + value), for values from 0 up.

    Those "farthest" from 0 lie symmetrically about it.
    """
    scaled = np.log1p(values) if log else values
    known = scaled[np.isfinite(scaled)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if which == "farthest":
        high = max(abs(low), abs(high))
        low = -high
    share = (scaled - low) / (high - low or 1.0)
    codes = np.where(np.isnan(scaled), _NONE, np.rint(254 * np.nan_to_num(share.clip(0, 1))))
    return {"codes": to_wire(codes.astype(np.uint8)), "low": low, "high": high, "log": log, "kept": which}


class Windowed(t.HasTraits):
    """A view that draws a long prompt coarsely, and sends the exact values of the window that its page asks for."""

    _asked = t.Dict().tag(sync=True)
    """The window in view, {rows: [first, end], cols: [first, end]}, and of which picture it is."""

    @t.validate("_asked")
    def _two_ranges(self, proposal: Any) -> Wire:
        asked: Wire = proposal["value"]
        for name in ("rows", "cols"):
            window: Any = asked.get(name)
            pair = isinstance(window, list | tuple) and len(window) == 2 and all(type(place) is int for place in window)
            if not pair or not 0 <= window[0] < window[1]:
                raise t.TraitError(f"{name}={window!r}: a window is [first, end], two whole numbers in rising order")
        return asked
