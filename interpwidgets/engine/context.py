"""Which of our passes, if any, the current thread is inside. Everything installed in a model asks this first."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from torch import Tensor, nn


class Pass(Protocol):
    """What a model's hooks and its attention function ask of the pass that they are in."""

    rows: int

    @property
    def length(self) -> int:
        """Positions that the pass computes."""

    @property
    def attending(self) -> int | None:
        """The layer whose attention is being computed by calls of torch; None outside of such an attention."""

    def attention_layer(self, module: nn.Module) -> int | None:
        """The layer that this attention module belongs to; None if it is not ours."""

    def wants(self, site: str, layer: int | None) -> bool:
        """Whether the site's value is captured or edited."""

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        """Read the value, and give back the one that the model goes on with."""


current_pass: ContextVar[Pass | None] = ContextVar("interpwidgets_pass", default=None)
