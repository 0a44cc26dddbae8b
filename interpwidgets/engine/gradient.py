"""The gradient of a metric with respect to one activation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .context import with_gradients
from .engine import Engine
from .forward import Edit, ForwardPass, standard
from .sweep import Metric


class _From(ForwardPass):
    """A pass that records gradients from one site of one layer on."""

    def __init__(self, engine: Engine, edits: Sequence[Edit], site: str, layer: int, source: Tensor | None) -> None:
        super().__init__(engine, source, edits=list(edits))
        self._place = (site, layer)
        self.reached: Tensor | None = None

    def wants(self, site: str, layer: int | None) -> bool:
        return (site, layer) == self._place or super().wants(site, layer)

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        x = super().visit(site, layer, x)
        if (site, layer) == self._place:
            torch.set_grad_enabled(True)  # until the pass ends, which puts it back
            self.reached = x = x.detach().requires_grad_()
        return x


def gradient(
    engine: Engine,
    ids: Tensor,
    site: str,
    layer: int,
    metric: Metric,
    at: int,
    edits: Sequence[Edit] = (),
    source: Tensor | None = None,
) -> Tensor:
    """The metric's gradient, (position, [head,] width), on the prompt `ids` (1, position) answered at `at`.

    `source` are the ids that an encoder reads.
    """
    forward = _From(engine, edits, site, layer, source)

    def call() -> Tensor:
        value = metric(engine.run(ids, forward, use_cache=False)[:, at])[0]
        assert forward.reached is not None
        return torch.autograd.grad(value, forward.reached)[0]

    return standard(site, with_gradients(call), 1)[0].detach()
