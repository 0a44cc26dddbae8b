"""A probe that is run and watched: which modules were called, with what, and where attention was computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from .attention import Implementation
from .context import Place, current_pass, inside
from .direct import DirectAttention
from .hooks import Hooks
from .probe import Probe

Kind = Literal["registry", "sdpa", "softmax"]
"""How a block computes attention: through transformers' registry, torch's fused kernel, or a softmax of its own."""


@dataclass
class Call:
    """One call of one module inside the probe."""

    module: nn.Module
    path: str
    entered: int
    given: Tensor | None
    returned: Tensor | None = None
    left: int = 0

    @property
    def depth(self) -> int:
        return self.path.count(".")

    @property
    def is_leaf(self) -> bool:
        return not any(True for _ in self.module.children())

    def inside(self, other: Call) -> bool:
        return other.entered < self.entered < other.left


@dataclass
class AttentionCall:
    """One attention: its module, its time, and its numbers of heads. `d_head` is the width of a head's value."""

    module: nn.Module
    time: int
    kind: Kind
    n_heads: int
    n_keys: int = 0
    n_kv_heads: int = 0
    d_head: int = 0
    z: Tensor | None = None  # (row, position, head, d_head); unseen where only the softmax is


class Trace:
    """Records every module call of a probe, and every attention in it. Stands in for a pass."""

    skips = False

    def __init__(self, model: nn.Module, probe: Probe) -> None:
        self.calls: list[Call] = []
        self.attention_calls: list[AttentionCall] = []
        self.rows = 1
        self._in_registry = False
        self._clock = 0
        self._open: list[Call] = []
        self._hooks = Hooks()
        self._model, self._probe = model, probe

    def run(self, implementation: Implementation) -> Tensor | None:
        """Run the probe and give the logits, if any; under our attention function, if `implementation` sets it."""
        try:
            for path, module in self._model.named_modules():
                self._hooks.before(module, self._enter(path), with_kwargs=True)
                self._hooks.after(module, self._leave)
            return inside(self, implementation, self._forward)
        finally:
            try:
                self._hooks.remove()
            except BaseException:  # Ctrl-C in the middle of it
                self._hooks.remove()
                raise

    def _forward(self) -> Tensor | None:
        with DirectAttention():
            return getattr(self._model(**self._probe.inputs(), use_cache=False), "logits", None)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _enter(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any = None) -> None:
            if current_pass.get() is self:
                given = args[0] if args else kwargs.get("hidden_states")
                # Cloned: a block may edit its stream in place, and the sums are checked afterwards.
                given = given.clone() if isinstance(given, Tensor) else None
                self._open.append(Call(module, path, self._tick(), given))

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if current_pass.get() is self:
            call = self._open.pop()
            call.left = self._tick()
            returned = output[0] if isinstance(output, tuple | list) and output else output
            call.returned = returned.clone() if isinstance(returned, Tensor) else None
            self.calls.append(call)

    # What the attention functions ask of a pass.
    @property
    def attending(self) -> Place | None:
        # The registry's own implementation calls torch too: that is the same attention, not another one.
        return None if self._in_registry or not self._open else ("", 0)

    def attention_place(self, module: nn.Module) -> Place:
        self._in_registry = True
        return "", 0

    def attends(self, queries: int, keys: int) -> bool:
        lengths = self._probe.lengths
        return queries in lengths and (keys >= queries or keys in lengths)

    def wants(self, site: str, layer: int | None) -> bool:
        return False

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        module = self._open[-1].module
        if site == "q":
            kind: Kind = "registry" if self._in_registry else "sdpa"
            self.attention_calls.append(AttentionCall(module, self._tick(), kind, x.shape[1]))
        elif site == "k":
            self.attention_calls[-1].n_kv_heads, self.attention_calls[-1].n_keys = x.shape[1:3]
        elif site == "v":
            self.attention_calls[-1].d_head = x.shape[-1]
        elif site == "pattern":
            self.attention_calls.append(AttentionCall(module, self._tick(), "softmax", x.shape[1], x.shape[3]))
        elif site == "z":
            self._in_registry = False
            self.attention_calls[-1].z = x.clone()
        return x
