"""Made-up traits of LogitLens: from half way up, the actual next token is on top more and more often."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.browser.harness.mounting import IDLE
from tests.browser.harness.states import attention, tokens, wire

FILLER = 500
"""Ids from here on are words that no prompt has."""
_LONG = "␣antidisestablishmentarianism"
_MARKUP = "<img src=x onerror=alert(1)>"
_FILLERS = ["␣(", ",", "␣the", "␣and", "'s", "␣", _LONG, "<filename>", "↵", _MARKUP, "␣of", "-"]
UNITS = {
    "probability": "", "log_probability": "nats", "entropy": "nats", "rank": "0 = top", "kl": "nats",
    "cross_entropy": "nats",
}  # fmt: skip


def reading(
    length: int, layers: int, *, seed: int = 0, part: slice | None = None, kl: bool = False, number: int = 1
) -> dict[str, Any]:
    """`_grid`, or `_part` with these rows of it; ids 100, 101, ... are the prompt's words."""
    random = np.random.default_rng(seed)
    rows, k = layers + 1, 10
    target = np.array([100 + position for position in range(length)], np.int32)
    top = FILLER + np.argsort(random.random((rows, length, len(_FILLERS))), axis=-1)[..., :k].astype(np.int32)
    p = np.sort(random.dirichlet(np.full(k, 0.4), (rows, length)) * 0.96)[..., ::-1].astype(np.float32)
    share = np.arange(rows)[:, None] / max(1, layers)  # (row, 1)
    found = random.random((rows, length)) < np.clip(2 * share - 0.9, 0, 0.9)
    top[..., 0] = np.where(found, target, top[..., 0])
    lower = np.round(40_000 ** (1.05 - share) * random.uniform(0.3, 1, (rows, length)))
    rank = np.where(found, 0, lower).astype(np.float32)
    metrics = {
        "probability": p[..., 0],
        "log_probability": np.log(p[..., 0]),
        "entropy": -(p * np.log(p + 1e-9)).sum(-1),
        "rank": rank,
        "cross_entropy": np.log1p(rank),
    }
    metrics["cross_entropy"][:, -1] = np.nan
    if kl:
        metrics["kl"] = (12 * (1 - share) * random.uniform(0.6, 1, (rows, length))).astype(np.float32)
    place: dict[str, Any] = {}
    if part is not None:
        place = {"reading": seed, "row": part.start}
        top, p = top[part], p[part]
        metrics = {name: values[part] for name, values in metrics.items()}
    words = {str(100 + position): token["text"] for position, token in enumerate(tokens(length + 1)[1:])}
    return {
        "id": number, "rows": ["emb", *map(str, range(layers))], "target": wire(target),
        "top": wire(top), "p": wire(p), "units": UNITS,
        "metrics": {name: wire(values.astype(np.float32)) for name, values in metrics.items()},
        "texts": words | {str(FILLER + i): text for i, text in enumerate(_FILLERS)}, **place,
    }  # fmt: skip


def causal_cone(length: int, layers: int, row: int, position: int) -> np.ndarray:
    """1 where a state written at (row, position) can be felt, (row, position)."""
    cone = np.zeros((layers + 1, length), np.uint8)
    cone[row, position] = 1
    cone[row + 1 :, position:] = 1
    return cone


def experiment(
    length: int, layers: int, *, row: int = 13, position: int = 4, number: int = 1, **more: Any
) -> dict[str, Any]:
    """The traits that change when a state is transplanted to (row, position)."""
    row, position = min(row, layers), min(position, length - 1)
    touched = causal_cone(length, layers, row, position)
    return {
        "_now": {**reading(length, layers, seed=3, number=number, **more), "touched": wire(touched)},
        "_experiments": [{
            "label": f"L{row - 1} @2 → resid_post L{row - 1} @{position}", "on": True, "note": "",
            "code": f"iw.Patch('resid_post', layer={row - 1}, position={position})",
        }],
        "_history": {"undo": True, "redo": False},
        "_pinned": {"labels": [], "differs": True},
    }  # fmt: skip


def tracks(length: int, layers: int, count: int = 3, *, now: bool = False) -> dict[str, Any]:
    """`tracked` and `_tracks`: words that rise towards the top layer, each in its own way."""
    rows = np.arange(layers + 1)
    nth = np.arange(count)[:, None]  # (token, 1)
    rise = (0.9 - 0.25 * nth) / (1 + np.exp(-(rows - layers * (0.5 + 0.12 * nth)) / 2))  # (token, row)
    probability = np.repeat(rise[..., None], length, -1).astype(np.float32)  # (token, row, position)
    rank = np.round(20_000 * (1 - probability) ** (4 + nth[..., None])).astype(np.int32)
    named = [{"id": 100 + i, "text": tokens(count + 1)[1 + i]["text"]} for i in range(count)]
    return {
        "tracked": [token["id"] for token in named],
        "_tracks": {
            "id": 1, "first": 0, "tokens": named, "probability": wire(probability), "rank": wire(rank),
            "now_probability": wire(probability * np.float32(0.6)) if now else None,
        },
    }  # fmt: skip


def lens(length: int = 15, layers: int = 30, **traits: Any) -> dict[str, Any]:
    """All traits of LogitLens, `traits` in place of the made-up ones."""
    frame = attention(length, layers, 2)
    common = ("_header", "_prompt", "_experiments", "_history", "_pinned", "_request")
    return {
        **{name: frame[name] for name in common},
        "_title": "Logit lens", "_code": "iw.LogitLens(session, 'When John')", "linked": True,
        "_status": {**IDLE, "ms": 231.4},
        "metric": "probability", "cell": [min(24, layers), length - 1], "tracked": [],
        "_grid": reading(length, layers), "_part": None, "_now": None, "_tracks": None, **traits,
    }  # fmt: skip
