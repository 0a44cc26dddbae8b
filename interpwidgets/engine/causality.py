"""Whether a model is causal: no position's computation depends on later ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from .context import without_gradients
from .forward import ForwardPass
from .probe import model_inputs
from .tolerance import TOLERANCE

if TYPE_CHECKING:
    from torch import nn

    from .engine import Engine


def is_causal(engine: Engine) -> bool:
    """Look for attention to later tokens; where a layer shows no pattern, for logits that change with a later token.

    A value that is not finite is no evidence against.
    """
    probe = engine.probe
    layers = range(engine.architecture.n_layers)
    forward = ForwardPass(
        engine, probe.source, capture={("pattern", i) for i in layers if "pattern" in engine.sites(i)}
    )
    logits = engine.run(probe.ids, forward, use_cache=False)[0].float()  # (position, token)
    if any(bool((p.transpose(1, 2).triu(1) > 0).any()) for p in forward.captured.values()):  # (row, head, query, key)
        return False
    # Not asked without need: quantisation of whole activations lets every position feel the others a little.
    if len(forward.captured) == len(layers):
        return True
    other = probe.ids.clone()
    other[0, -1] = probe.ids[0, 0]
    inputs = model_inputs(other, probe.source)
    changed = without_gradients(lambda: engine.model(**inputs, use_cache=False).logits)[0].float()
    earlier = float((changed - logits)[:-1].abs().max())
    return not earlier > 10 * TOLERANCE.get(engine.dtype, 1e-5) * float(logits.abs().max())


def is_masked(model: nn.Module) -> bool:
    """Whether the model is of a class that is trained to predict masked tokens."""
    return type(model).__name__ in set(MODEL_FOR_MASKED_LM_MAPPING_NAMES.values())
