"""The gradient of a metric with respect to activations: of any number of places from one forward and one backward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .context import with_gradients, without_gradients
from .engine import Engine
from .forward import ForwardPass, standard
from .memory import NotEnoughMemory, explained, is_out_of_memory
from .packed import PackedPass
from .sites import SITES
from .sweep import Metric, Sweep, measured

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
        self.reached: dict[Place, tuple[GradientEdge, slice, Tensor]] = {}  # our tokens, and their absolute positions
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
            self.reached[site, layer] = (get_gradient_edge(x), *self.tokens(standard(site, x, self.rows).shape[1]))
        return x

    def tokens(self, count: int) -> tuple[slice, Tensor]:
        """Which of what is computed is the run whose gradient is wanted, and the positions of that."""
        return slice(None), torch.arange(count)


class _RecordingPacked(_Recording, PackedPass):
    row = 0
    """Whose gradient is wanted."""
    keep: frozenset[Place] = frozenset()
    """Of what the values are kept, of all rows."""
    values: dict[tuple[str, int, int], Tensor]
    """(position, [head,] width) by site, layer and row."""

    def wants(self, site: str, layer: int | None) -> bool:
        return (site, layer) in self.keep or super().wants(site, layer)

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        # Behind the last block the pass goes on with the answers only.
        leaves = (site, layer) == ("resid_post", self._last)
        if leaves:
            self._keep(site, layer, x)
        x = super().visit(site, layer, x)
        if not leaves:
            self._keep(site, layer, x)
        return x

    def _keep(self, site: str, layer: int | None, x: Tensor) -> None:
        if layer is not None and (site, layer) in self.keep:
            view = standard(site, x, 1)[0].detach()
            self.values |= {(site, layer, row): view[self._of(row)[0]].clone() for row in self.order.tolist()}

    def narrow(self, x: Tensor) -> Tensor:
        return x if self.keep else super().narrow(x)

    def tokens(self, count: int) -> tuple[slice, Tensor]:
        return self._of(self.row)

    def _of(self, row: int) -> tuple[slice, Tensor]:
        first, start, end = (
            int(self._layout.first[row]),
            int(self._layout.start[row]),
            int(self._layout.positions[-1]) + 1,
        )
        return slice(first, first + end - start), torch.arange(start, end)


@dataclass(frozen=True)
class Recorded:
    """A row of a sweep, and the way back through it, which can be gone once."""

    _sweep: Sweep
    _forward: _Recording
    _read: Callable[[list[int] | None], Tensor]
    _places: tuple[Place, ...]
    _order: list[int]

    def logits(self) -> dict[int, Tensor]:
        """(1, token) of each row, at the answer's position."""
        logits = without_gradients(lambda: self._read(None)).detach()
        return {row: logits[place][None] for place, row in enumerate(self._order)}

    def value(self, site: str, layer: int, row: int) -> Tensor:
        """(position, [head,] width) of what `record` was to keep, from the row's first position on."""
        assert isinstance(self._forward, _RecordingPacked)
        return self._forward.values[site, layer, row]

    def gradients(self, metric: Metric) -> dict[Place, Tensor]:
        """The metric's gradient at each place, (position, [head,] width); as `gradients`."""
        forward, ids = self._forward, self._sweep.ids
        place = self._order.index(forward.row) if isinstance(forward, _RecordingPacked) else 0

        def call() -> list[Tensor | None]:
            value = measured(metric, self._read)[place]
            if forward.cut:
                site, layer = forward.cut[0]
                raise NoGradient(f"autograd cannot follow this model through {site} of layer {layer}")
            edges = [forward.reached[place][0] for place in self._places]
            return list(torch.autograd.grad(value, edges, allow_unused=True))

        found = _recorded(call, ids)
        return {place: _whole(forward, place, g, ids) for place, g in zip(self._places, found, strict=True)}


def gradients(
    sweep: Sweep, places: Sequence[Place], metric: Metric, budget: int, check: Callable[[], None] | None = None
) -> dict[Place, Tensor]:
    """The metric's gradient at each place, (position, [head,] width), on the undisturbed run of a sweep.

    Positions that the sweep does not compute, as they cannot matter or are its prefix, have 0. `budget` is the bytes
    that activations kept for the way back may take, by estimate. Raises NotEnoughMemory beyond it; NoGradient where
    autograd cannot follow the model, or finds what is not finite.
    """
    return record(sweep, places, budget, check).gradients(metric)


def record(
    sweep: Sweep,
    places: Sequence[Place],
    budget: int,
    check: Callable[[], None] | None = None,
    keep: Collection[Place] = (),
    row: int = 0,
) -> Recorded:
    """Run a sweep with what the way back from a row's answer to the places needs; see `gradients`.

    Row 0 is the undisturbed run. Where the sweep is packed, its rows are run, and the values of `keep` are kept.
    """
    ids, engine = sweep.ids, sweep.engine
    # These are computed for groups of rows, and have no token of their own.
    whole = not sweep.is_packed or any(SITES[site].base in ("scores", "pattern") for site, _ in places)
    base = list(sweep.base)
    forward: _Recording
    if whole:
        forward, arguments, batch = _Recording(engine, sweep.source, edits=base, check=check), {"use_cache": False}, ids
    else:
        edits, spans = sweep.laid_out(range(len(sweep.rows)))
        forward, arguments = sweep.packed_pass(_RecordingPacked, edits, spans, check=check)
        forward.row, forward.keep, forward.values = row, frozenset(keep), {}
        batch = ids[:, sweep.start : sweep.end]
    forward.record(places)
    _require_room(engine, batch.shape[1] + sum(sweep.end - s.position for s in sweep.spans if s is not None), budget)

    def answer(x: Tensor) -> Tensor:
        return forward.by_row(x) if isinstance(forward, PackedPass) else x[:, sweep.at]

    read = _recorded(lambda: engine.reading(batch, forward, answer, **arguments), batch)
    order = forward.order.tolist() if isinstance(forward, PackedPass) else [0]
    return Recorded(sweep, forward, read, tuple(places), order)


def _recorded(call: Callable[[], T], ids: Tensor) -> T:
    with explained(f"a gradient on {ids.shape[1]} tokens", "Shorten the prompt."):
        return with_gradients(lambda: _outside_inference(lambda: _followed(call)))


def _whole(forward: _Recording, place: Place, found: Tensor | None, ids: Tensor) -> Tensor:
    """A gradient at all positions of the prompt, or of the source."""
    site, layer = place
    if found is None:
        raise NoGradient(f"the metric does not depend on {site} of layer {layer}, as far as autograd can follow it")
    here = standard(site, found.detach(), 1)[0]  # (position, [head,] width)
    if not bool(here.isfinite().all()):
        raise NoGradient(f"the gradient at {site} of layer {layer} is not finite in {here.dtype}")
    _, tokens, where = forward.reached[place]
    here = here[tokens]
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
