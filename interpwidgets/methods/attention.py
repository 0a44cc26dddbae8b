"""Attention patterns: which positions each head reads from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import xarray as xr

from ..engine.interventions import Intervention
from ..engine.sites import SITES, StackName, on_stack
from ..session import Session


def attention_patterns(
    session: Session, prompt: Any, interventions: Iterable[Intervention] = (), *, stack: StackName = "decoder"
) -> xr.DataArray:
    """Attention weights of every layer and head, (layer, head, query, key), each row a distribution over keys.

    Heads are query heads, also where they share keys and values. Layers without attention are left out of `layer`.
    Weights are those of the run itself, after softmax, and agree with eager `output_attentions` of transformers.

    `stack` is "decoder" (all there is in a model without an encoder), "encoder", or "cross": from queries of the
    decoder to keys of the source. Raises ValueError for one that the model does not have.

    Example: `iw.attention_patterns(session, "The cat sat").sel(layer=3, head=0)`
    """
    site = on_stack(stack, "pattern")
    run = session.run(prompt, capture=site, interventions=interventions)
    queries, keys = run.tokens.of(SITES[site]), run.tokens.keys_of(SITES[site])
    pattern = run[site]
    pattern.attrs = {
        "long_name": "attention weight",
        "tokens": list(queries.strings),
        "key_tokens": list(keys.strings),
    }
    return pattern
