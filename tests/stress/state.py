"""Everything about a model that a session must leave as it was, compared bit for bit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from interpwidgets.engine.context import current_pass

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)
CORRUPTED = (5, 17, 3, 21, 17, 60, 9, 91)
LONG = 60
"""Seconds after which a wait counts as a hang."""


@dataclass(frozen=True)
class State:
    """What `state_of` found."""

    logits: bytes
    weights: str
    hooks: dict[str, Any]
    implementation: str
    training: tuple[bool, ...]
    requires_grad: tuple[bool, ...]
    gradients_on: bool
    inside_a_pass: bool


def state_of(model) -> State:
    """What the model computes now, and all that is set in it and in this thread."""
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT])).logits
    weights = hashlib.sha256()
    for tensor in (*model.parameters(), *model.buffers()):
        weights.update(tensor.detach().contiguous().view(torch.uint8).numpy())
    return State(
        logits=logits.numpy().tobytes(),
        weights=weights.hexdigest(),
        hooks=hooks_of(model),
        implementation=model.config._attn_implementation,
        training=tuple(m.training for m in model.modules()),
        requires_grad=tuple(p.requires_grad for p in model.parameters()),
        gradients_on=torch.is_grad_enabled(),
        inside_a_pass=current_pass.get() is not None,
    )


def hooks_of(model) -> dict[str, tuple[int, ...]]:
    """The ids of all hooks, by the module and the kind."""
    kinds = (
        "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
        "_forward_hooks_always_called", "_backward_hooks", "_backward_pre_hooks",
    )  # fmt: skip
    found = {f"{name}.{kind}": tuple(getattr(m, kind)) for name, m in model.named_modules() for kind in kinds}
    return {place: ids for place, ids in found.items() if ids}


def count_hooks(model) -> int:
    """How many forward hooks there are."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
