"""Which of our passes, if any, the current thread is inside. Everything installed in a model asks this first."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from torch import Tensor, nn


class Pass(Protocol):
    """What a model's hooks and its attention function ask of the pass that they are in."""

    def attention_layer(self, module: nn.Module) -> int | None:
        """The layer that this attention module belongs to; None if it is not ours."""

    def wants(self, site: str, layer: int) -> bool:
        """Whether the site's value is captured or edited."""

    def visit(self, site: str, layer: int, x: Tensor) -> Tensor:
        """Read the value, and give back the one that the model goes on with."""


current_pass: ContextVar[Pass | None] = ContextVar("interpwidgets_pass", default=None)
