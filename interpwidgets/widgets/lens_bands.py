"""A lens of a long prompt as it travels: bands of every metric, and the exact cells of the window in view."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..methods.lens import UNITS
from .bands import Kept, band_edges, in_codes, kept
from .wire import Wire

KEPT: dict[str, Kept] = {
    "probability": "mean",
    "log_probability": "mean",
    "entropy": "smallest",
    "rank": "smallest",
    "kl": "largest",
    "cross_entropy": "largest",
}
"""What a band shows: where the model is most certain, or most surprised. The largest of 16 probabilities is near 1
almost everywhere in early layers, whose readings are certain of something at some position: these are averaged."""

_LOG = ("rank", "kl", "cross_entropy")  # drawn on logarithmic scales, so that even steps would merge the small ones


def bands_to_wire(reading: xr.Dataset, before: xr.Dataset | None = None) -> Wire:
    """Every metric in bands; with `before`, also what changed since."""
    edges = _edges(reading)
    names = [name for name in UNITS if name in reading]
    values = {name: reading[name].values for name in names}
    known = {name: np.abs(array[np.isfinite(array)]) for name, array in values.items()}
    bands: Wire = {
        "edges": edges,
        "k": reading.sizes["k"],
        "bands": {
            name: in_codes(kept(values[name], edges, KEPT[name]), KEPT[name], log=name in _LOG) for name in names
        },
        "most": {name: float(array.max(initial=0.0)) for name, array in known.items()},
    }
    if before is not None:
        changes = {name: kept(_change(name, values[name], before[name].values), edges, "farthest") for name in names}
        bands["changes"] = {name: in_codes(change, "farthest") for name, change in changes.items()}
    return bands


def touched_bands(touched: np.ndarray) -> np.ndarray:
    """Whether an experiment reaches any position of each band, of (row, position), (row, band)."""
    edges = band_edges(touched.shape[1])
    return touched if edges is None else np.maximum.reduceat(touched, edges[:-1], axis=1)


def _edges(reading: xr.Dataset) -> list[int]:
    edges = band_edges(reading.sizes["position"])
    assert edges is not None
    return edges


def _change(metric: str, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """How much a value changed: a difference, for ranks the decades between them."""
    return np.log10((1 + now) / (1 + before)) if metric == "rank" else now - before
