"""Which of our passes, if any, the current thread is inside. Everything installed in a model asks this first."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

Place = tuple[str, int]
"""An attention: what its sites' names begin with ("", "encoder." or "cross."), and its layer."""


class Pass(Protocol):
    """What a model's hooks and its attention function ask of the pass that they are in."""

    rows: int
    skips: bool
    """Whether it is above the block that it begins at."""

    @property
    def attending(self) -> Place | None:
        """The attention that is being computed by calls of torch; None outside of such an attention."""

    def attention_place(self, module: nn.Module) -> Place | None:
        """Which attention this module computes; None if it is not ours."""

    def attends(self, queries: int, keys: int) -> bool:
        """Whether the attention that is being computed may have so many queries and keys."""

    def wants(self, site: str, layer: int | None) -> bool:
        """Whether the site's value is captured or edited."""

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        """Read the value, and give back the one that the model goes on with."""


class Names(Protocol):
    """The attention implementation's names in a model's configs: ours while any pass is inside."""

    def enter(self, running: Any) -> None:
        """Set our name."""

    def leave(self, running: Any) -> None:
        """Put the user's name back when no pass is left; nothing happens if this one has left before."""


current_pass: ContextVar[Pass | None] = ContextVar("interpwidgets_pass", default=None)


def without_gradients(call: Callable[[], T]) -> T:
    """Call without recording gradients. An interrupt inside `torch.no_grad` itself would leave them off for good."""
    return _recording(False, call)


def with_gradients(call: Callable[[], T]) -> T:
    """Call with gradients recorded, whether or not the user has them on."""
    return _recording(True, call)


def _recording(on: bool, call: Callable[[], T]) -> T:
    before = torch.is_grad_enabled()
    try:
        torch.set_grad_enabled(on)
        return call()
    finally:
        try:
            torch.set_grad_enabled(before)
        except BaseException:
            torch.set_grad_enabled(before)
            raise


def inside(running: Pass, names: Names, call: Callable[[], T]) -> T:
    """Call with `running` as this thread's pass and without gradients; whatever happens, all is put back.

    Ctrl-C can strike after any call into C. So nothing is changed before the `try`, and no context manager, which
    could be struck in its own code, stands between a change and its undoing; and what is struck is undone once more.
    """
    before = current_pass.get()

    def put_back() -> None:
        current_pass.set(before)
        names.leave(running)

    def enter() -> T:
        try:
            names.enter(running)
            current_pass.set(running)
            return call()
        finally:
            try:
                put_back()
            except BaseException:
                put_back()
                raise

    return without_gradients(enter)
