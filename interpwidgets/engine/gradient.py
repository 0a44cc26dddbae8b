"""The gradient of a metric with respect to activations: of any number of places from one forward and one backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .context import with_gradients
from .engine import Engine
from .forward import ForwardPass, standard
from .memory import NotEnoughMemory, explained, is_out_of_memory
from .packed import PackedPass, Span
from .sites import SITES
from .sweep import Metric, Sweep

T = TypeVar("T")
Place = tuple[str, int]
"""A site and its layer."""

_BRANCHES = ("attn_out", "mlp_out")


class NoGradient(RuntimeError):
    """The metric has no gradient, or not all of it: what the model computes with cannot be differentiated."""


class _Recording(ForwardPass):
    """A pass that records gradients, from the first of its places on."""

    places: frozenset[Place] = frozenset()

    def record(self, places: Sequence[Place]) -> None:
        self.places = frozenset(places)
        self.reached: dict[Place, tuple[GradientEdge, Tensor]] = {}  # the absolute positions of each
        self.cut: list[Place] = []  # what no gradient goes through
        self._first = min(layer for _, layer in places)

    def wants(self, site: str, layer: int | None) -> bool:
        return (site, layer) in self.places or site in _BRANCHES or super().wants(site, layer)

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        x = super().visit(site, layer, x)
        # What runs beside the first place need not depend on it.
        if torch.is_grad_enabled() and layer is not None and layer > self._first and not x.requires_grad:
            self.cut.append((site, layer))
        if layer is not None and (site, layer) in self.places:
            torch.set_grad_enabled(True)  # until the pass ends, which puts it back
            # A tensor of its own, whatever else reads x or writes into it.
            x = (x if x.requires_grad else x.detach().requires_grad_()).clone()
            self.reached[site, layer] = get_gradient_edge(x), self.positions(standard(site, x, self.rows).shape[1])
        return x

    def positions(self, count: int) -> Tensor:
        return torch.arange(count)


class _RecordingPacked(_Recording, PackedPass):
    def positions(self, count: int) -> Tensor:
        return torch.from_numpy(self._layout.positions)  # `count` may be filled up


def gradients(
    sweep: Sweep, places: Sequence[Place], metric: Metric, budget: int, check: Callable[[], None] | None = None
) -> dict[Place, Tensor]:
    """The metric's gradient at each place, (position, [head,] width), on the undisturbed run of a sweep.

    Positions that the sweep does not compute, as they cannot matter or are its prefix, have 0. `budget` is the bytes
    that activations kept for the way back may take, by estimate. Raises NotEnoughMemory beyond it; NoGradient where
    autograd cannot follow the model, or finds what is not finite.
    """
    ids, engine = sweep.ids, sweep.engine
    # These are computed for groups of rows, and have no token of their own.
    whole = not sweep.is_packed or any(SITES[site].base in ("scores", "pattern") for site, _ in places)
    base = list(sweep.base)
    forward: _Recording
    if whole:
        forward, arguments, batch = _Recording(engine, sweep.source, edits=base, check=check), {"use_cache": False}, ids
    else:
        forward, arguments = sweep.packed_pass(_RecordingPacked, base, [Span(0, sweep.start)], check=check)
        batch = ids[:, sweep.start : sweep.end]
    forward.record(places)
    _require_room(engine, batch.shape[1], budget)

    def answer(x: Tensor) -> Tensor:
        return forward.by_row(x) if isinstance(forward, PackedPass) else x[:, sweep.at]

    def call() -> list[Tensor | None]:
        value = sweep.measure(metric, batch, forward, arguments, answer)[0]
        if forward.cut:
            site, layer = forward.cut[0]
            raise NoGradient(f"autograd cannot follow this model through {site} of layer {layer}")
        edges = [forward.reached[place][0] for place in places]
        return list(torch.autograd.grad(value, edges, allow_unused=True))

    with explained(f"a gradient on {batch.shape[1]} tokens", "Shorten the prompt."):
        found = with_gradients(lambda: _outside_inference(lambda: _followed(call)))
    return {place: _whole(forward, place, g, ids) for place, g in zip(places, found, strict=True)}


def _whole(forward: _Recording, place: Place, found: Tensor | None, ids: Tensor) -> Tensor:
    """A gradient at all positions of the prompt, or of the source."""
    site, layer = place
    if found is None:
        raise NoGradient(f"the metric does not depend on {site} of layer {layer}, as far as autograd can follow it")
    here = standard(site, found.detach(), 1)[0]  # (position, [head,] width)
    if not bool(here.isfinite().all()):
        raise NoGradient(f"the gradient at {site} of layer {layer} is not finite in {here.dtype}")
    where = forward.reached[place][1]
    here = here[: len(where)]
    length = ids.shape[1] if not SITES[site].of_source else forward.source_length
    if len(here) == length:
        return here
    gradient = here.new_zeros(length, *here.shape[1:])
    gradient[where.to(here.device)] = here
    return gradient


def _require_room(engine: Engine, length: int, budget: int) -> None:
    need = gradient_bytes(engine, length)
    if need > budget:
        raise NotEnoughMemory(
            f"the way back through {length} tokens needs about {need / 2**20:,.0f} MiB of activations, and "
            f"session.memory_budget leaves {max(budget, 0) / 2**20:,.0f} MiB: raise it, or shorten the prompts"
        )


def gradient_bytes(engine: Engine, length: int) -> int:
    """Bytes that autograd keeps of a pass over `length` tokens, estimated; of a mixture, of one expert a token."""
    a = engine.architecture
    size = engine.model.get_input_embeddings().weight.element_size()  # type: ignore[operator]
    heads = max(h * d for h, d in zip(a.n_heads, a.d_head, strict=True))
    per_token = 8 * a.d_model + 4 * max(a.d_mlp or [0]) + 4 * heads
    if "eager" in engine.implementation.names():  # which keeps scores and weights
        per_token += 3 * max(a.n_heads) * length
    return a.n_layers * length * size * per_token


def _followed(call: Callable[[], T]) -> T:
    """What autograd gives; NoGradient for whatever it refuses in a model that runs without it."""
    try:
        return call()
    except RuntimeError as error:
        if isinstance(error, NoGradient) or is_out_of_memory(error):
            raise
        said = str(error).partition("\n")[0]
        raise NoGradient(f"autograd cannot follow this model: {said}") from None


def _outside_inference(call: Callable[[], T]) -> T:
    """Call where autograd works, although the caller has it off for good."""
    if not torch.is_inference_mode_enabled():
        return call()
    with torch.inference_mode(False):
        return call()
