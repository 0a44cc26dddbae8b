"""Whether a model is causal: no position's computation depends on later ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from .context import without_gradients
from .probe import model_inputs
from .tolerance import TOLERANCE

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .engine import Engine


def is_causal(engine: Engine, known: Mapping[tuple[str, int | None], Tensor], logits: Tensor) -> bool:
    """Look for attention to later tokens; where a layer shows no pattern, for logits that change with a later token.

    `known` are the patterns of the probe's run, with what else was captured, and `logits` (row, position, token) what
    it gave. A value that is not finite is no evidence against.
    """
    patterns = [x for (site, _), x in known.items() if site == "pattern"]
    if any(bool((p.transpose(1, 2).triu(1) > 0).any()) for p in patterns):  # (row, head, query, key)
        return False
    # Not asked without need: quantisation of whole activations lets every position feel the others a little.
    if len(patterns) == engine.architecture.n_layers:
        return True
    probe = engine.probe
    other = probe.ids.clone()
    other[0, -1] = probe.ids[0, 0]
    inputs = model_inputs(other, probe.source)
    changed = without_gradients(lambda: engine.model(**inputs, use_cache=False).logits)[0].float()
    before = logits[0].float()  # (position, token)
    earlier = float((changed - before)[:-1].abs().max())
    return not earlier > 10 * TOLERANCE.get(engine.dtype, 1e-5) * float(before.abs().max())


def is_masked(model: nn.Module) -> bool:
    """Whether the model is of a class that is trained to predict masked tokens."""
    return type(model).__name__ in set(MODEL_FOR_MASKED_LM_MAPPING_NAMES.values())
