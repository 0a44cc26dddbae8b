"""Made-up traits that look like a real run: sinks, previous-token heads, induction, diffuse heads."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from tests.browser.harness.mounting import IDLE

_WORDS = [
    "When", "␣John", "␣and", "␣Mary", "␣went", "␣to", "␣the", "␣store", ",",
    "␣Mary", "␣gave", "␣the", "␣bag", "␣to",
]  # fmt: skip
_LONG = ["␣in", "␣an", "␣extraordinarily", "␣quiet", "␣town", "␣antidisestablishmentarianism", ".", "↵", "26"]
_NEXT = [
    ("␣John", 0.84, 0.535), ("␣her", 0.028, 0.035), ("␣the", 0.018, 0.028), ("␣Mary", 0.011, 0.299),
    ("␣Jack", 0.005, 0.0004), ("␣Joe", 0.004, 0.0007), ("␣a", 0.003, 0.003), ("␣his", 0.002, 0.002),
    ("␣him", 0.001, 0.0016), ("␣Sarah", 0.0009, 0.006),
]  # fmt: skip


def wire(array: np.ndarray) -> dict[str, Any]:
    """An array as the harness page expects it, to be turned into a binary view there."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"base64": data, "dtype": str(array.dtype), "shape": list(array.shape)}


def triangle(array: np.ndarray) -> dict[str, Any]:
    """Square matrices of which only what is not above the diagonal travels."""
    return wire(array[..., *np.tril_indices(array.shape[-1])]) | {"shape": list(array.shape), "triangle": True}


def tokens(count: int) -> list[dict[str, Any]]:
    """A BOS token and `count - 1` words."""
    words = [*_WORDS, *(_LONG * (count // len(_LONG) + 1))][: count - 1]
    rest = [{"id": 100 + i, "text": word, "raw": word, "special": False} for i, word in enumerate(words)]
    return [{"id": 1, "text": "<|im_start|>", "raw": "<|im_start|>", "special": True}, *rest]


def patterns(layers: int, heads: int, length: int, seed: int = 0) -> np.ndarray:
    """Attention weights (layer, head, query, key): causal, rows sum to 1."""
    random = np.random.default_rng(seed)
    query, key = np.mgrid[0:length, 0:length]
    kinds = np.empty((24, length, length), np.float32)
    for kind in range(24):
        scores = random.normal(0, 1, (length, length))
        scores += (key == 0) * random.uniform(0, 6)
        scores += (key == query - 1) * 5 * (kind % 4 == 1) + (key == query) * 3 * (kind % 4 == 2)
        scores += (key == query - max(1, length // 2)) * 6 * (kind % 4 == 3)
        scores[key > query] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        kinds[kind] = weights / weights.sum(-1, keepdims=True)
    return kinds[random.integers(24, size=(layers, heads))]


def binned(weights: np.ndarray, edges: list[int]) -> np.ndarray:
    """The largest weight of each bin in 255ths, (layer, head, bin, bin)."""
    rows = np.maximum.reduceat(weights, edges[:-1], axis=2)
    return np.round(255 * np.maximum.reduceat(rows, edges[:-1], axis=3)).astype(np.uint8)


def bin_edges(length: int, most: int = 32) -> list[int]:
    """Position 0 alone, then even bins."""
    if length <= most:
        return list(range(length + 1))
    return [0, *np.unique(np.linspace(1, length, most).round().astype(int)).tolist()]


def detail(
    before: np.ndarray, now: np.ndarray, layer: int, head: int, *, changed: bool, most: int = 256
) -> dict[str, Any]:
    """The selected head, (query, key): exact, or of more than `most` tokens the largest of each bin."""
    place = {"id": 1, "stack": "decoder", "layer": layer, "head": head}
    edges = bin_edges(len(now), most) if len(now) > most else None
    sent = {
        name: weights if edges is None else binned(weights[None, None], edges)[0, 0]
        for name, weights in (("before", before), ("now", now))
    }
    difference, bound = None, 0.0
    if edges is not None and changed:
        rise, fall = (
            np.maximum.reduceat(np.maximum.reduceat(d, edges[:-1], axis=0), edges[:-1], axis=1)
            for d in (now - before, before - now)
        )
        bound = float(max(rise.max(), fall.max()))
        difference = triangle(
            np.rint(127 * np.where(rise >= fall, rise, -fall) / (bound or 1.0) + 127).astype(np.uint8)
        )
    return {
        "_baseline_detail": place | {
            "kv_head": head // 3, "edges": edges, "key_edges": edges, "weights": triangle(sent["before"]),
        },
        "_detail": place | {
            "acts": changed, "now": triangle(sent["now"]) if changed else None,
            "difference": difference, "bound": bound, "version": 1,
        },
    }  # fmt: skip


def experiment(label: str, code: str = "", **changes: Any) -> dict[str, Any]:
    """One experiment as it travels."""
    written = {"label": label, "code": code or f"# {label}"}
    return written | {"on": True, "note": "", "name": "", "group": "", "strength": None} | changes


def attention(
    length: int = 15,
    layers: int = 30,
    heads: int = 9,
    *,
    selected: tuple[int, int] = (23, 3),
    changed: bool = False,
) -> dict[str, Any]:
    """All traits of AttentionPattern; with `changed` a head is ablated and everything after it differs."""
    layer, head = min(selected[0], layers - 1), min(selected[1], heads - 1)
    baseline = patterns(layers, heads, length)
    now = baseline.copy()
    if changed:
        noise = patterns(layers, heads, length, seed=1)
        for later in range(layer + 1, layers):
            share = np.random.default_rng(later).uniform(0, 0.4, (heads, 1, 1)) ** 2
            now[later] = (1 - share) * baseline[later] + share * noise[later]
    edges = bin_edges(length)
    first = layer + 1
    baseline_overview = {
        "id": 1, "stack": "decoder", "stacks": ["decoder"], "causal": True, "rests": length > 1,
        "edges": edges, "key_edges": edges, "present": [True] * layers, "weights": triangle(binned(baseline, edges)),
    }  # fmt: skip
    overview = {
        "id": 1, "stack": "decoder", "acts": changed, "first": first if changed else layers,
        "now": triangle(binned(now, edges)[first:]) if changed and first < layers else None,
        "changed": wire(np.abs(now - baseline).max((2, 3))) if changed else None, "exact": True,
        "ablated": [[layer, head, "zero"]] if changed else [],
        "cut": [[layer, head, length - 1, min(length - 1, 4)]] if changed else [],
    }  # fmt: skip
    code = f"iw.Ablate('z', layer={layer}, head={head})"
    ablation = experiment(f"z L{layer}H{head} → 0", code)
    rows = [
        {"id": 300 + i, "text": text, "baseline": before, "now": after if changed else None}
        for i, (text, before, after) in enumerate(_NEXT)
    ]
    note = "logit(␣John) − logit(␣Mary): 4.35 → 0.58" if changed else ""
    shown = min(layer + (2 if changed else 0), layers - 1)
    return {
        "_title": "Attention pattern",
        "_header": {
            "model": "SmolLM2-135M", "dtype": "float32", "device": "cpu", "attention": "sdpa",
            "layers": layers, "heads": heads, "kv_heads": max(1, heads // 3), "note": "dequantised",
            "check": {"ok": True, "summary": "matches Hugging Face, 3e-7", "details": [
                {"name": "logits", "text": "instrumented against plain: 3e-7", "ok": True},
                {"name": "rows", "text": "attention sums to 1: 1e-7", "ok": True},
            ]},
        },
        "_prompt": {
            "text": "When John and Mary went to the store, Mary gave the bag to",
            "bos": "<|im_start|> added by interpwidgets", "tokens": tokens(length),
        },
        "_experiments": [ablation] if changed else [],
        "_history": {"undo": changed, "redo": False}, "_pinned": {"labels": [], "differs": changed}, "linked": True,
        "_code": "iw.AttentionPattern(session, 'When John')",
        "_request": {}, "_status": {**IDLE, "ms": 171.3, "message": f"{length} tokens"},
        "layer": shown, "head": head, "hide_bos": False, "view": "now", "how": "zero", "renormalize": True,
        "_baseline_overview": baseline_overview, "_overview": overview, "_asked": {}, "_window": {},
        **detail(baseline[shown, head], now[shown, head], shown, head, changed=changed),
        "_predictions": {"id": 1, "note": note, "rows": rows},
    }  # fmt: skip
