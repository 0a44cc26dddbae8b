"""What a widget sent to its page, read back as the page does."""

from __future__ import annotations

from typing import Any

import numpy as np

import interpwidgets as iw


def array(wire: dict[str, Any]) -> np.ndarray:
    """An array from its bytes; of lower triangles, with zeros above them."""
    data, shape = np.frombuffer(wire["view"], wire["dtype"]), wire["shape"]
    if not wire["triangle"]:
        return data.reshape(shape)
    whole = np.zeros(shape, data.dtype)
    rows, columns = np.tril_indices(shape[-1])
    whole[..., rows, columns] = data.reshape(*shape[:-2], -1)
    return whole


def head(widget: iw.AttentionPattern, kind: str = "now") -> np.ndarray:
    """The selected head's weights, (query, key), "now" or as in the "baseline"; of a long prompt, in 255ths."""
    changed = widget._detail["now"] if kind == "now" else None
    return array(widget._baseline_detail["weights"] if changed is None else changed)


def thumbnails(widget: iw.AttentionPattern, kind: str = "now") -> np.ndarray:
    """The largest weights of bins in 255ths, (layer, head, bin, bin), "now" or as they are in the "baseline"."""
    found = array(widget._baseline_overview["weights"]).copy()
    if kind == "now" and widget._overview["now"] is not None:
        found[widget._overview["first"] :] = array(widget._overview["now"])
    return found


def under_experiments(lens: iw.LogitLens, name: str) -> np.ndarray:
    """A lens' "top" tokens, probabilities "p" or metric under the experiments, (layer, position, ...), all rows."""

    def of(sent: dict[str, Any]) -> np.ndarray:
        return array(sent[name] if name in ("top", "p") else sent["metrics"][name])

    return np.concatenate([of(lens._grid)[: lens._now["row"]], of(lens._now)])
