"""Our attention function: reads and edits q, k, v, scores, pattern and z of any model that asks the registry for one.

transformers routes attention through `AttentionInterface`, by the name in the model's config. During a pass of ours
that name is NAME; the functions here hand on to the model's own implementation wherever nothing is asked of them,
also for a call that the user makes from another thread meanwhile.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .context import Pass, Place, current_pass
from .packed import PackedPass

NAME = "interpwidgets"


@dataclass(eq=False)
class _Chosen:
    """The implementation that the user chose in a config, while passes run under our name."""

    config: Any
    own: str | None
    passes: set[int] = field(default_factory=set)  # ids of the passes inside


# By id(config). Entries stay until the session closes, so that a call of the user's which began under NAME can end
# after the name was put back.
_chosen: dict[int, _Chosen] = {}
_switching = threading.RLock()


class Implementation:
    """Sets the attention implementation of a model's configs to ours for the time of a pass."""

    def __init__(self, model: nn.Module) -> None:
        configs: dict[int, Any] = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
        self._configs = [c for c in configs.values() if hasattr(c, "_attn_implementation_internal")]
        self._ours = self._configs

    def leave_alone(self) -> None:
        """Set nothing from now on: the model does not ask the registry for its attention."""
        self._ours = []

    def enter(self, running: Any) -> None:
        """Set our name."""
        with _switching:
            for config in self._ours:
                own = config._attn_implementation_internal
                chosen = _chosen.setdefault(id(config), _Chosen(config, own))
                chosen.passes.add(id(running))
                if own != NAME:
                    chosen.own = own
                    config._attn_implementation_internal = NAME

    def leave(self, running: Any) -> None:
        """Put the user's name back when no pass is left; nothing happens if this one has left before."""
        with _switching:
            for config in self._ours:
                chosen = _chosen.get(id(config))
                if chosen is None:
                    continue
                chosen.passes.discard(id(running))
                if not chosen.passes and config._attn_implementation_internal == NAME:
                    config._attn_implementation_internal = chosen.own

    def names(self) -> tuple[str, ...]:
        """The implementations that the user chose."""
        return tuple(_own_name(c) for c in self._configs)

    def close(self) -> None:
        """Forget the configs, unless a pass of another model's that shares one is inside."""
        with _switching:
            for config in self._configs:
                chosen = _chosen.get(id(config))
                if chosen is not None and not chosen.passes:
                    del _chosen[id(config)]


def _own_name(config: Any) -> str:
    name = getattr(config, "_attn_implementation_internal", None)
    chosen = _chosen.get(id(config))
    if name == NAME and chosen is not None:
        name = chosen.own
    elif name == NAME:  # the session was closed between the two lines above, and the name put back before that
        name = config._attn_implementation_internal
    return name if name is not None and name != NAME else "eager"


def _own_attention(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The attention function that the model would call without us."""
    name = _own_name(getattr(module, "config", None))
    if name in ALL_ATTENTION_FUNCTIONS:
        return ALL_ATTENTION_FUNCTIONS[name]
    for cls in type(module).__mro__:
        eager = getattr(sys.modules[cls.__module__], "eager_attention_forward", None)
        if eager is not None:
            return eager
    raise NotImplementedError(f"{type(module).__name__} has no {name!r} attention function that could be found")


def mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """The mask of the model's own implementation."""
    return ALL_MASK_ATTENTION_FUNCTIONS[_own_name(kwargs.get("config"))](*args, **kwargs)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention of one layer; query is (row, head, query, d_head), key and value are (row, kv head, key, d_head)."""
    own = _own_attention(module)
    running = current_pass.get()
    place = running.attention_place(module) if running is not None else None
    if running is None or place is None:
        return own(module, query, key, value, attention_mask, **kwargs)
    stack, layer = place
    query = running.visit(f"{stack}q", layer, query)
    key = running.visit(f"{stack}k", layer, key)
    value = running.visit(f"{stack}v", layer, value)
    visible = running.wants(f"{stack}scores", layer) or running.wants(f"{stack}pattern", layer)

    def attend(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        if visible:
            return _explicit(running, place, module, query, key, value, mask, kwargs)
        if isinstance(running, PackedPass) and _reads_shared_heads(own, query, mask, kwargs):
            z = nn.functional.scaled_dot_product_attention(
                query, key, value, mask, scale=kwargs.get("scaling"), enable_gqa=True
            )
            return z.transpose(1, 2), None
        return own(module, query, key, value, mask, **kwargs)

    if isinstance(running, PackedPass):
        z, weights = running.by_group(layer, query, key, value, attention_mask, kwargs, attend), None
    else:
        z, weights = attend(query, key, value, attention_mask, kwargs)
    return running.visit(f"{stack}z", layer, z), weights


def _reads_shared_heads(own: Callable[..., Any], query: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
    """Whether torch's kernel may be called directly, which saves copying shared keys and values for every head.

    transformers copies them where there is a mask, which pays on a GPU. In a packed pass every row has its own.
    """
    plain = kwargs.get("position_bias") is None and not kwargs.get("dropout")
    return own is sdpa_attention_forward and query.device.type == "cpu" and mask is not None and plain


def _explicit(
    running: Pass,
    place: Place,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Attention written out, so that scores and weights can be read and edited."""
    stack, layer = place
    shape = query.shape
    # The heads that share keys and values, one below the other: one product for them all, and nothing is copied.
    query = query.reshape(shape[0], key.shape[1], -1, shape[-1])  # (row, kv head, head and query, d_head)
    scaling = kwargs.get("scaling")
    eager = _own_name(module.config) == "eager"
    # Fused kernels keep scores and weights in float32 or wider; eager attention takes the softmax in float32, and
    # rounds the rest to the model's dtype.
    wide = torch.float32 if eager else torch.promote_types(query.dtype, torch.float32)
    dtype = query.dtype if eager else wide
    # In place where autograd allows it: at a thousand tokens a copy of the scores is larger than a block's weights.
    scores = (query.to(dtype) @ key.to(dtype).transpose(2, 3)).view(*shape[:3], -1)
    scores *= shape[-1] ** -0.5 if scaling is None else scaling
    # sdpa has no soft cap: a model that runs it computes without one, and so do we.
    softcap = kwargs.get("softcap") if eager else None
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if kwargs.get("position_bias") is not None:
        scores = scores + kwargs["position_bias"]
    bias = _mask_bias(scores, attention_mask, module, kwargs)
    if bias is not None:
        scores += bias
    scores = running.visit(f"{stack}scores", layer, scores)  # (row, head, query, key)
    sinks = kwargs.get("s_aux")
    if sinks is not None:
        extra = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1).to(scores.dtype)
        weights = torch.cat([scores, extra], -1).softmax(-1, dtype=wide)[..., :-1]
    else:
        weights = scores.softmax(-1, dtype=wide)
    # A query that lost all of its keys attends to nothing; softmax over nothing is NaN. Other NaNs are the model's own.
    lost = scores.amax(-1, keepdim=True) == float("-inf")
    del scores
    # On a GPU looking would wait for it; on a CPU filling takes as long as the softmax.
    if lost.device.type != "cpu" or lost.any():
        weights = (weights.masked_fill if weights.requires_grad else weights.masked_fill_)(lost, 0.0)
    weights = weights.to(dtype)
    weights = running.visit(f"{stack}pattern", layer, weights)
    z = weights.reshape(*query.shape[:3], -1) @ value.to(dtype)  # (row, kv head, head and query, d_head)
    return z.view(*shape[:3], -1).to(query.dtype).transpose(1, 2).contiguous(), weights


def _mask_bias(
    scores: Tensor, attention_mask: Tensor | None, module: nn.Module, kwargs: dict[str, Any]
) -> Tensor | None:
    """What is added to the scores, -inf where a query may not look; ten times as fast as filling them in."""
    queries, keys = scores.shape[-2:]
    if attention_mask is None:
        causal = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        if not causal or queries == 1:
            return None
        return torch.full((queries, keys), -torch.inf, dtype=scores.dtype, device=scores.device).triu_(
            keys - queries + 1
        )
    attention_mask = attention_mask[..., :keys]
    if attention_mask.dtype == torch.bool:
        return torch.where(attention_mask, 0.0, -torch.inf).to(scores.dtype)
    # A float mask may carry a bias (ALiBi) beside its lowest value, which stands for "masked".
    lowest = torch.finfo(attention_mask.dtype).min
    return attention_mask.masked_fill(attention_mask <= lowest, -torch.inf)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)
