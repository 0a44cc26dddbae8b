"""What pictures are made of: each widget on the demo model in the midst of its work, at a short and a long prompt."""

from __future__ import annotations

from collections.abc import Callable

import interpwidgets as iw
from interpwidgets.presets import preset_named
from interpwidgets.widgets.base import LiveWidget
from tests.benchmarks.workloads import DemoPrompts

LONG = {"attention_pattern": 300, "logit_lens": 100, "patching_heatmap": 100}
"""Tokens: more than the picture shows one by one."""
_DIFFERING = 12


def attention_pattern(session: iw.Session, *, long: bool = False) -> LiveWidget:
    """A head is ablated, and one that it acts on is looked at."""
    prompt = long_pair("attention_pattern")[0] if long else preset_named("Indirect object").clean
    widget = iw.AttentionPattern(session, prompt, linked=False, view="difference" if long else "now")
    widget.ablate(20, 0)
    widget.select(24, 4)
    return widget


def logit_lens(session: iw.Session, *, long: bool = False) -> LiveWidget:
    """Two tokens are followed, a cell is selected, and a state is transplanted."""
    prompt = long_pair("logit_lens")[0] if long else preset_named("Fact recall").clean
    widget = iw.LogitLens(
        session, prompt, linked=False, tracked=[session.token_id(" Paris"), session.token_id(" Rome")]
    )
    widget.wait(120)
    last = len(widget.result["position"]) - 1
    widget.transplant((10, last - 6), (12, last - 2))
    widget.selection = iw.Selection(layer=28, position=last)
    return widget


def patching_heatmap(session: iw.Session, *, long: bool = False) -> LiveWidget:
    """Two cells are patched together."""
    preset = preset_named("Indirect object")
    clean, corrupted = long_pair("patching_heatmap") if long else (preset.clean, preset.corrupted)
    widget = iw.PatchingHeatmap(session, clean=clean, corrupted=corrupted, linked=False)
    widget.wait(300)
    last = widget.result.sizes["position"] - 1
    widget.patch([{"site": "resid_pre", "layer": layer, "position": last} for layer in (22, 23)])
    return widget


SCENES: dict[str, Callable[..., LiveWidget]] = {
    "attention_pattern": attention_pattern,
    "logit_lens": logit_lens,
    "patching_heatmap": patching_heatmap,
}
"""By the name of the widget's module."""


def long_pair(name: str) -> tuple[list[int], list[int]]:
    """A clean and a corrupted prompt of as many tokens as the widget's long one."""
    pair = DemoPrompts().long(LONG[name], _DIFFERING)
    return list(pair.clean), list(pair.corrupted)
