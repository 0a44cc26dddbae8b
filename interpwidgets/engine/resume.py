"""A pass that begins at the block where it first differs from a run that is known; what lies above is not computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode

from .context import current_pass
from .interventions import Intervention
from .sites import SITES

if TYPE_CHECKING:
    from .engine import Engine


@dataclass(frozen=True)
class Resume:
    """Begin at `block`, with `stream` (position, d_model) entering it."""

    block: int
    stream: Tensor


class Skipping(TorchFunctionMode):
    """Gives zeros for matrix products and attention while a pass skips blocks: of what they give, only shapes matter.

    Blocks cannot be left out of a model that is the user's own; but nothing that they compute is used.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        running = current_pass.get()
        product = _PRODUCTS.get(func) if running is not None and running.skips else None
        return (product or func)(*args, **(kwargs or {}))


# Positional, as transformers calls them.
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_zeros((*x.shape[:-1], weight.shape[0]))


def _addmm(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return x.new_zeros((x.shape[0], weight.shape[1]))


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return query.new_zeros((*query.shape[:-1], value.shape[-1]))


_PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    functional.linear: _linear,
    torch.addmm: _addmm,
    functional.scaled_dot_product_attention: _attention,
}


def shared_blocks(engine: Engine, ours: Sequence[Intervention], theirs: Sequence[Intervention]) -> int:
    """How many blocks from the first on compute the same under both; no intervention acts on both sides of that."""
    spans = {i: _span(engine, i) for i in (*ours, *theirs)}
    blocks = engine.architecture.n_layers
    while blocks > 0:
        above = [[i for i in each if spans[i][0] < blocks] for each in (ours, theirs)]
        if above[0] == above[1] and all(spans[i][1] < blocks for i in above[0]):
            break
        blocks = max(spans[i][0] for each in above for i in each)
    return max(blocks, 0)


def _span(engine: Engine, intervention: Intervention) -> tuple[int, int]:
    """The first and the last block that it acts in; -1 is the embedding."""
    if not SITES[intervention.site].per_layer:
        at = -1 if intervention.site == "embed" else engine.architecture.n_layers
        return at, at
    layers = [layer for layer in engine.layers(intervention.site, intervention.layer) if layer is not None]
    return min(layers), max(layers)


def is_watched(engine: Engine, blocks: int) -> bool:
    """Whether anything of the user's would see what the first blocks compute: a hook, or a wrapped forward."""
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return True
    above = (m for block in engine.architecture.blocks[:blocks] for m in block.module.modules())
    return any("forward" in vars(m) or engine.is_hooked(m) for m in above)
