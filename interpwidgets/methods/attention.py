"""Attention patterns: which positions each head reads from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import xarray as xr

from ..engine.interventions import Intervention
from ..session import Session


def attention_patterns(session: Session, prompt: Any, interventions: Iterable[Intervention] = ()) -> xr.DataArray:
    """Attention weights of every layer and head, (layer, head, query, key), each row a distribution over keys.

    Heads are query heads, also where they share keys and values. Layers without attention are left out of `layer`.
    Weights are those of the run itself, after softmax, and agree with eager `output_attentions` of transformers.

    Example: `iw.attention_patterns(session, "The cat sat").sel(layer=3, head=0)`
    """
    run = session.run(prompt, capture="pattern", interventions=interventions)
    pattern = run["pattern"]
    pattern.attrs = {"long_name": "attention weight", "tokens": list(run.tokens.strings)}
    return pattern
