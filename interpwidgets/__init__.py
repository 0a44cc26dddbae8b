"""Jupyter widgets for looking inside a live transformer language model.

Names are loaded when they are first used: importing the package pulls in no torch.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.architecture import UnsupportedModel
    from .engine.interventions import Ablate, CutEdge, Noise, Patch, Scale, Steer
    from .engine.metrics import KL, LogitDifference, LogProbability, Probability
    from .engine.plain import array
    from .engine.prompts import SourceTarget
    from .engine.sites import Site
    from .experiments import Experiment
    from .loading import load
    from .methods.ablation import ablation_sweep
    from .methods.attention import attention_patterns
    from .methods.attribution import attribution_sweep
    from .methods.lens import logit_lens
    from .methods.pairs import Pair, patch_pairs
    from .methods.patching import patch_sets, patch_sweep
    from .presets import PRESETS, Preset
    from .run import Run
    from .session import Session, find_session
    from .widgets.attention_pattern import AttentionPattern
    from .widgets.linking import link
    from .widgets.logit_lens import LogitLens
    from .widgets.patching_heatmap import PatchingHeatmap
    from .widgets.restore import restore
    from .widgets.selection import Selection
    from .widgets.workbench import Workbench

__version__ = "0.1.0"

__all__ = [
    "KL",
    "PRESETS",
    "Ablate",
    "AttentionPattern",
    "CutEdge",
    "Experiment",
    "LogProbability",
    "LogitDifference",
    "LogitLens",
    "Noise",
    "Pair",
    "Patch",
    "PatchingHeatmap",
    "Preset",
    "Probability",
    "Run",
    "Scale",
    "Selection",
    "Session",
    "Site",
    "SourceTarget",
    "Steer",
    "UnsupportedModel",
    "Workbench",
    "ablation_sweep",
    "array",
    "attention_patterns",
    "attribution_sweep",
    "find_session",
    "link",
    "load",
    "logit_lens",
    "patch_pairs",
    "patch_sets",
    "patch_sweep",
    "restore",
]

_HOME = {
    "Ablate": "engine.interventions",
    "AttentionPattern": "widgets.attention_pattern",
    "CutEdge": "engine.interventions",
    "Experiment": "experiments",
    "KL": "engine.metrics",
    "LogProbability": "engine.metrics",
    "LogitDifference": "engine.metrics",
    "LogitLens": "widgets.logit_lens",
    "Noise": "engine.interventions",
    "Pair": "methods.pairs",
    "Patch": "engine.interventions",
    "PRESETS": "presets",
    "PatchingHeatmap": "widgets.patching_heatmap",
    "Preset": "presets",
    "Probability": "engine.metrics",
    "Run": "run",
    "Scale": "engine.interventions",
    "Selection": "widgets.selection",
    "Session": "session",
    "Site": "engine.sites",
    "SourceTarget": "engine.prompts",
    "Steer": "engine.interventions",
    "UnsupportedModel": "engine.architecture",
    "Workbench": "widgets.workbench",
    "ablation_sweep": "methods.ablation",
    "array": "engine.plain",
    "attention_patterns": "methods.attention",
    "attribution_sweep": "methods.attribution",
    "find_session": "session",
    "link": "widgets.linking",
    "load": "loading",
    "logit_lens": "methods.lens",
    "patch_pairs": "methods.pairs",
    "patch_sets": "methods.patching",
    "patch_sweep": "methods.patching",
    "restore": "widgets.restore",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        near = get_close_matches(name, __all__, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
