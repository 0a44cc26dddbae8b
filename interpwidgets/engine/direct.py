"""Attention of models that do not ask transformers' registry: they call torch, and torch can be listened to.

While a pass is inside an attention module, torch's softmax and its fused attention kernel hand their values to the
pass. Only this thread is listened to, and only while `DirectAttention` is entered.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .context import Pass, Place, current_pass

_SOFTMAX = frozenset({torch.softmax, torch.Tensor.softmax, nn.functional.softmax})


class DirectAttention(TorchFunctionMode):
    """Shows a pass the scores and weights (and q, k, v, z, where the kernel is fused) of attention modules."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        running = current_pass.get()
        place = None if running is None else running.attending
        if running is not None and place is not None:
            if func is nn.functional.scaled_dot_product_attention:
                return _fused(running, place, *args, **kwargs)
            if func in _SOFTMAX and _is_attention(args[0] if args else kwargs["input"], running):
                return _softmax(running, place, func, args, kwargs)
        return func(*args, **kwargs)


def _is_attention(x: Tensor, running: Pass) -> bool:
    """Whether a softmax's input is (row, head, query, key), or has rows and heads side by side."""
    queries, keys = x.shape[-2:] if x.dim() in (3, 4) else (0, 0)
    return running.attends(queries, keys) and x.shape[0] % running.rows == 0


def _softmax(running: Pass, place: Place, func: Any, args: Any, kwargs: Any) -> Tensor:
    stack, layer = place
    given = args[0] if args else kwargs.pop("input")
    shape = given.shape
    scores = given.view(running.rows, -1, *shape[-2:])  # (row, head, query, key)
    if running.wants(f"{stack}scores", layer):
        # Models mask with the lowest number that the dtype has; the site says -inf.
        lowest = torch.finfo(scores.dtype).min / 2
        scores = running.visit(f"{stack}scores", layer, scores.masked_fill(scores <= lowest, float("-inf")))
    weights = func(scores.view(shape), *args[1:], **kwargs)
    if running.wants(f"{stack}scores", layer):
        lost = scores.amax(-1, keepdim=True) == float("-inf")  # softmax over nothing is NaN; other NaNs are the model's
        weights = weights.masked_fill(lost.view(*shape[:-1], 1), 0.0)
    return running.visit(f"{stack}pattern", layer, weights.view(scores.shape)).view(shape)


def _fused(
    running: Pass, place: Place, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """The kernel's contract, with every part visible; all (row, head, position, d_head)."""
    stack, layer = place
    query, key, value = (running.visit(f"{stack}{s}", layer, x) for s, x in (("q", query), ("k", key), ("v", value)))
    if running.wants(f"{stack}scores", layer) or running.wants(f"{stack}pattern", layer):
        wide = torch.promote_types(query.dtype, torch.float32)  # as in the kernel
        keys, values = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1).to(wide) for x in (key, value))
        scores = query.to(wide) @ keys.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(scores.new_ones(scores.shape[-2:]).tril() == 0, float("-inf"))
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            masked = attn_mask <= torch.finfo(attn_mask.dtype).min / 2
            scores = (scores + attn_mask).masked_fill(masked, float("-inf"))
        scores = running.visit(f"{stack}scores", layer, scores)  # (row, head, query, key)
        lost = scores.amax(-1, keepdim=True) == float("-inf")  # softmax over nothing is NaN; other NaNs are the model's
        weights = scores.softmax(-1).masked_fill(lost, 0.0)
        z = (running.visit(f"{stack}pattern", layer, weights) @ values).to(query.dtype)
    else:
        z = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    return running.visit(f"{stack}z", layer, z.transpose(1, 2)).transpose(1, 2)
