"""From the last block to the logits: norm, unembedding, soft cap and scale, found by following the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .context import without_gradients
from .tolerance import close, factor
from .trace import Call, Trace


@dataclass
class Readout:
    """The modules between the last block and the logits, in order; then `scale`, a bias, a soft cap if there are."""

    modules: list[nn.Module]
    scale: float
    cap: float | None
    unembedding: nn.Module | None  # the linear map that gives the logits; None if it cannot be told apart
    bias: tuple[nn.Module, str] | None = None  # the buffer that the model adds itself, as BART does

    def __call__(self, residual: Tensor) -> Tensor:
        """The logits (..., token) of residual vectors (..., d_model), each normed by its own statistics."""
        x = residual
        for module in self.modules:
            x = module(x)
        return self.finish(x)

    def finish(self, x: Tensor, tokens: list[int] | None = None) -> Tensor:
        """What the model still does to what its unembedding gives, of these tokens only if some are given."""
        x = x if self.scale == 1.0 else x * self.scale
        if self.bias is not None:
            bias = getattr(*self.bias).flatten()
            x = x + (bias if tokens is None else bias[tokens])
        return x if self.cap is None else torch.tanh(x / self.cap) * self.cap


def find_readout(model: nn.Module, trace: Trace, last: Call, logits: Tensor) -> Readout | None:
    """Find the readout and verify it by running it on the last block's output; None if that does not give `logits`."""
    x = start = last.returned
    assert x is not None
    assert start is not None
    after = sorted((c for c in trace.calls if c.entered > last.left), key=lambda c: c.entered)
    chain: list[Call] = []
    for call in after:
        # The outermost module of those that begin here; side branches, such as a pooler, lead nowhere.
        if chain and call.inside(chain[-1]):
            continue
        if call.given is None or call.returned is None or call.given.shape != x.shape or call.given.dtype != x.dtype:
            continue
        if call.returned.shape[:-1] == x.shape[:-1] and factor(call.given, x) is not None:
            chain.append(call)
            x = call.returned
    modules = [c.module for c in chain if not isinstance(c.module, nn.Dropout | nn.Identity)]
    x = without_gradients(lambda: Readout(modules, 1.0, None, None)(start))
    if x.shape == logits.shape:
        for bias, scale, cap in _finishes(model, x, logits):
            readout = Readout(modules, scale, cap, None, bias)
            if close(readout.finish(x), logits):
                leaves = [c for c in after if c.is_leaf and c.returned is not None]
                last_leaf = next((c for c in reversed(leaves) if c.returned.shape == logits.shape), None)  # type: ignore[union-attr]
                if last_leaf is not None and close(readout.finish(last_leaf.returned), logits):  # type: ignore[arg-type]
                    readout.unembedding = last_leaf.module
                return readout
    return None


def _finishes(
    model: nn.Module, x: Tensor, logits: Tensor
) -> Iterator[tuple[tuple[nn.Module, str] | None, float, float | None]]:
    """Biases, scales and soft caps that would make the logits of x; caps are those that the config names."""
    # First, so that one that is still zero is found too.
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point() and buffer.numel() == x.shape[-1]:
                yield (module, name), 1.0, None
    text = model.config.get_text_config()  # type: ignore[operator, union-attr]
    named = [v for name, v in text.to_dict().items() if "cap" in name and isinstance(v, int | float) and v]
    for cap in (None, *dict.fromkeys(named)):
        uncapped = logits if cap is None else torch.atanh((logits / cap).clamp(-0.999999, 0.999999)) * cap
        wide = x.double().flatten()
        scale = float(uncapped.double().flatten() @ wide / (wide @ wide).clamp_min(1e-300))
        yield None, (1.0 if abs(scale - 1) < 1e-4 else scale), cap
