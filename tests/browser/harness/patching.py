"""Made-up traits of PatchingHeatmap: a name carries the answer, in later layers the last position does."""

from __future__ import annotations

from typing import Any

import numpy as np

from interpwidgets.widgets.bands import layer_edges
from tests.browser.harness.mounting import IDLE
from tests.browser.harness.states import attention, tokens, wire

CLEAN, CORRUPTED = 4.352, -4.773
DOUBT = "Norms are not linear: estimates in L0 to L24 add up to 0.29 to 0.6 of the gap instead of 1."
SITES = ["resid_pre", "resid_mid", "attn_out", "mlp_out", "z", "q", "k", "v"]


def effects(site: str, layers: int, columns: int, differing: int) -> np.ndarray:
    """Shares of the gap, (layer, position) or (layer, head)."""
    random = np.random.default_rng(len(site) + columns)
    if site.startswith("resid"):
        share = np.zeros((layers, columns), np.float32)
        move = int(layers * 0.75)
        share[:, differing] = np.where(np.arange(layers) < move, 1, 0.5) + random.normal(0, 0.02, layers)
        share[move + 2 :, differing] = 0.02
        share[move:, -1] = np.linspace(0.33, 0.96, layers - move)
        share[move - 4 : move, -2] = 0.06
        return share
    share = random.normal(0, 0.012, (layers, columns)).astype(np.float32)
    for layer, column, value in [(23, 3, 0.41), (25, 7, 0.27), (26, 1, -0.22), (9, 5, 0.08), (27, 2, 0.15)]:
        share[layer % layers, column % columns if site in "zqkv" else columns - 1] += value
    return share


def sweep(
    site: str = "resid_pre",
    length: int = 15,
    layers: int = 30,
    heads: int = 9,
    *,
    known: float = 1.0,
    estimated: bool = False,
    layer: int | None = None,
    number: int = 1,
    metric: str = "logit_diff",
    units: str = "logits",
    **changes: Any,
) -> dict[str, Any]:
    """`_sweep` (or `_drill`, with `layer`), of which a share `known` has run, later layers first.

    The rest has an estimate if it is `estimated`.
    """
    words = [token["text"] for token in tokens(length)]
    differing = min(10, length - 1)
    other = [*words[:differing], "␣Sam" if length < 11 else "␣John", *words[differing + 1 :]]
    by_head = site in ("z", "q", "k", "v")
    dims = ["head", "position"] if layer is not None else ["layer", "head"] if by_head else ["layer", "position"]
    rows, columns = (heads, length) if layer is not None else (layers, heads if by_head else length)
    values = CORRUPTED + (CLEAN - CORRUPTED) * effects(site, rows, columns, differing)
    estimate = wire((values * 0.8 + 0.2 * CORRUPTED).astype(np.float32)) if estimated else None
    values.reshape(-1)[: round((1 - known) * values.size)] = np.nan
    return {
        "id": number,
        "site": site,
        "layer": layer,
        "dims": dims,
        "values": wire(values.astype(np.float32)),
        "estimate": estimate,
        "doubt": DOUBT if estimated and site.startswith("resid") else "",
        "stopped": False,
        "clean": CLEAN,
        "corrupted": CORRUPTED,
        "baseline": CORRUPTED,
        "direction": "denoise",
        "metric": metric,
        "units": units,
        "gap_is_zero": False,
        "labels": {"position": words, "corrupted": other},
        **changes,
    }


def patched(cells: list[dict[str, Any]], number: int = 1) -> dict[str, Any]:
    """`_patched`: what the run with these cells patched predicts."""
    rows = [
        ("␣John", 0.84, 0.007, 0.677),
        ("␣her", 0.028, 0.002, 0.0006),
        ("␣the", 0.018, 0.018, 0.034),
        ("␣Mary", 0.011, 0.919, 0.076),
        ("␣Jack", 0.005, 0.0004, 0.006),
        ("␣Joe", 0.004, 0.0007, 0.007),
        ("␣his", 0.002, 0.009, 0.002),
        ("␣Sarah", 0.0009, 0.005, 0.0009),
        ("␣Mrs", 0.0009, 0.004, 0.0009),
        ("␣antidisestablishmentarian", 0.0001, 0.0001, 0.002),
    ]
    keys = ("text", "clean", "corrupted", "patched")
    table = [{"id": 300 + i, **dict(zip(keys, row, strict=True))} for i, row in enumerate(rows)]
    return {
        "id": number,
        "cells": cells,
        "rows": table,
        "value": CORRUPTED + 0.512 * (CLEAN - CORRUPTED),
        "baseline": CORRUPTED,
    }


def patching(
    length: int = 15, layers: int = 30, heads: int = 9, site: str = "resid_pre", **changes: Any
) -> dict[str, Any]:
    """All traits of PatchingHeatmap; `changes` replace some of them."""
    common = attention(3, 1, 1)
    clean = tokens(length)
    differing = min(10, length - 1)
    corrupted = [
        *clean[:differing],
        {**clean[differing], "id": 900, "text": "␣Sam" if length < 11 else "␣John", "raw": " John"},
        *clean[differing + 1 :],
    ]
    bos = "<|im_start|> added by interpwidgets"
    return {
        **{name: common[name] for name in ("_experiments", "_history", "_pinned", "linked")},
        "_title": "Patching heatmap",
        "_header": {**common["_header"], "layers": layers, "heads": heads, "kv_heads": max(1, heads // 3)},
        "_prompts": {
            "clean": {
                "text": "When John and Mary went to the store, Mary gave the bag to",
                "bos": bos,
                "tokens": clean,
            },
            "corrupted": {
                "text": "When John and Mary went to the store, John gave the bag to",
                "bos": bos,
                "tokens": corrupted,
            },
            "differing": [differing],
        },
        "_code": "iw.patch_sweep(session, clean, corrupted, site='resid_pre')",
        "_request": {},
        "_status": {**IDLE, "id": 1, "ms": 1312.4, "message": f"{layers * length} cells in one pass"},
        "site": site,
        "_sites": SITES,
        "_layer_edges": layer_edges(layers),
        "metric": "logit_diff",
        "direction": "denoise",
        "normalize": True,
        "_task": {
            "answer": {"id": 2173, "text": "␣John"},
            "foil": {"id": 6393, "text": "␣Mary"},
            "clean": CLEAN,
            "corrupted": CORRUPTED,
            "units": "logits",
            "gap_is_zero": False,
            "rows": [{k: v for k, v in row.items() if k != "patched"} for row in patched([])["rows"]],
        },
        "_sweep": sweep(site, length, layers, heads),
        "_baseline_sweep": None,
        "view": "now",
        "_drill": None,
        "_patched": None,
        **changes,
    }


def cell(layer: int, position: int | None = None, head: int | None = None, site: str = "resid_pre") -> dict[str, Any]:
    """A patched cell as it goes over the wire."""
    return {"site": site, "layer": layer, "head": head, "position": position}
