"""Turns interventions, which are data, into edits of one prompt's forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from .engine import Engine
from .forward import Edit, Write, require_entry
from .interventions import Ablate, CutEdge, Intervention, Noise, Patch, Prompt, Scale, Steer
from .sites import SITES, resolve

Read = Callable[[Prompt | None, str, int | None], Tensor]
"""(prompt, or None for the prompt being run; site; layer) -> that site's (position, [head,] width) undisturbed."""


def compile_edits(
    engine: Engine,
    interventions: Iterable[Intervention],
    length: int,
    read: Read,
    row: int | None = None,
    *,
    source_length: int = 0,
) -> list[Edit]:
    """Spell interventions out for a prompt of `length` tokens, and `source_length` tokens that an encoder reads.

    Raises ValueError for a layer, head or position that the model or prompt does not have, and for a width that
    does not fit.
    """
    edits = []
    for owner, intervention in enumerate(interventions):
        info = SITES[intervention.site]
        here = source_length if info.of_source else length
        keys = source_length if info.keys_of_source else length
        layers = engine.layers(intervention.site, intervention.layer)
        positions = None if intervention.position is None else resolve(intervention.position, here, "position")
        entries = _entries(intervention, keys)
        for layer in layers:
            heads = _heads(engine, intervention, layer)
            write, limit = _write(intervention, layer, here, keys, positions, read)
            reached = range(limit) if positions is None and limit is not None else positions
            where = None if reached is None else sorted(reached)
            edits.append(Edit(intervention.site, layer, write, heads, where, row, owner, entries=entries))
    return edits


def _heads(engine: Engine, intervention: Intervention, layer: int | None) -> list[int] | None:
    kind = SITES[intervention.site].heads
    if kind is None or intervention.head is None or layer is None:
        return None
    stack = engine.architecture.stack(intervention.site)
    counts = stack.n_kv_heads if kind == "kv" else stack.n_heads
    return resolve(intervention.head, counts[layer], "key/value head" if kind == "kv" else "head")


def _entries(intervention: Intervention, n_keys: int) -> list[int] | None:
    """The entries of the last axis that alone are written; None for all."""
    if isinstance(intervention, CutEdge) and intervention.key is not None:
        return resolve(intervention.key, n_keys, "key")
    if not isinstance(intervention, Ablate | Patch) or intervention.entry is None:
        return None
    if SITES[intervention.site].base in ("scores", "pattern"):
        require_entry(intervention.site, intervention.entry, n_keys)
    return [intervention.entry]


def _part(source: Tensor, site: str, entry: int | None) -> Tensor:
    """The entry of a source's last axis that alone is written, which nothing is copied for; None: all."""
    if entry is None:
        return source
    require_entry(site, entry, source.shape[-1])
    return source[..., entry : entry + 1]


def _write(
    intervention: Intervention, layer: int | None, length: int, n_keys: int, positions: list[int] | None, read: Read
) -> tuple[Write, int | None]:
    """The write function, and how many positions it reaches if that is limited (by a source's length).

    `positions` are in the order in which they were given, which is that of an array's rows.
    """
    match intervention:
        case Ablate(how="zero"):
            return (lambda old, at, head: torch.zeros_like(old)), None
        case Ablate(how="mean"):
            prompts = intervention.references() or (None,)
            sources = [read(p, intervention.site, layer) for p in prompts]
            stacked = torch.cat([_part(source, intervention.site, intervention.entry) for source in sources])
            return _constant(stacked.mean(0, keepdim=True)), None
        case Ablate():
            (prompt,) = intervention.references() or ()
            source = read(prompt, intervention.site, layer)
            _require_same_length(intervention, source, length, n_keys, positions)
            return _aligned(_part(source, intervention.site, intervention.entry)), length
        case Patch():
            return _patch(intervention, layer, length, n_keys, positions, read)
        case Scale():
            return (lambda old, at, head: old * intervention.factor), None
        case Steer():
            return _steer(intervention), None
        case Noise():
            return _noise(intervention, layer), None
        case CutEdge():
            cut = float("-inf") if intervention.renormalize else 0.0
            return (lambda old, at, head: torch.full_like(old, cut)), None
    raise TypeError(f"{intervention!r} is not an intervention")


def _constant(value: Tensor) -> Write:
    """Write one (1, [head,] width) value to every position."""

    def write(old: Tensor, at: Sequence[int], head: int | None) -> Tensor:
        chosen = value if head is None else value[:, head : head + 1]
        return chosen.to(old).expand_as(old)

    return write


def _aligned(source: Tensor) -> Write:
    """Write a source's (position, [head,] width) values to the same positions."""

    def write(old: Tensor, at: Sequence[int], head: int | None) -> Tensor:
        chosen = source[list(at)]
        chosen = chosen if head is None else chosen[:, head : head + 1]
        return chosen.to(old).expand_as(old)

    return write


def _patch(
    patch: Patch, layer: int | None, length: int, n_keys: int, positions: list[int] | None, read: Read
) -> tuple[Write, int | None]:
    if isinstance(patch.source, np.ndarray):
        several = patch.source.ndim >= 2 and patch.source.shape[0] > 1
        return _array(patch, positions, length), length if several else None
    from_layer = layer if patch.source_layer is None else patch.source_layer
    from_site = patch.source_site or patch.site
    source = read(patch.source, from_site, from_layer)
    if patch.source_position is not None:
        (where,) = resolve(patch.source_position, source.shape[0], "source position")
        if SITES[patch.site].base in ("scores", "pattern"):
            raise ValueError(f"a row of {patch.site!r} cannot be moved to another position: its keys would differ")
        return _constant(_part(source[where : where + 1], from_site, patch.entry)), None
    _require_same_length(patch, source, length, n_keys, positions)
    return _aligned(_part(source, from_site, patch.entry)), length


def _require_same_length(
    intervention: Intervention, source: Tensor, length: int, n_keys: int, positions: list[int] | None
) -> None:
    """`source` is (position, [head,] width), or (query, head, key)."""
    keys_too = SITES[intervention.site].base in ("scores", "pattern")
    ours, theirs = (n_keys, source.shape[-1]) if keys_too and source.shape[-1] != n_keys else (length, source.shape[0])
    reached = ours == theirs if positions is None or keys_too else max(positions) < theirs
    if not reached:
        raise ValueError(
            f"the prompt has {ours} tokens and the source prompt {theirs}: the same positions cannot "
            "be read from both; give prompts of the same length, or the positions meant"
        )


def _array(patch: Patch, positions: list[int] | None, length: int) -> Write:
    value = torch.from_numpy(np.array(patch.source))

    def write(old: Tensor, at: Sequence[int], head: int | None) -> Tensor:
        chosen = value
        if value.dim() >= 2 and value.shape[0] > 1:
            addressed = list(range(length)) if positions is None else positions
            if len(addressed) != value.shape[0]:
                raise ValueError(f"the array has {value.shape[0]} positions, {len(addressed)} are addressed")
            chosen = value[[addressed.index(p) for p in at]]
        if head is not None and chosen.dim() < old.dim() - 1:
            chosen = chosen.unsqueeze(-2)
        try:
            return chosen.to(old).expand_as(old)
        except RuntimeError:
            raise ValueError(
                f"an array of shape {tuple(value.shape)} does not fit {patch.site!r}, "
                f"whose addressed part is (position, [head,] width) = {tuple(old.shape[1:])}"
            ) from None

    return write


def _steer(steer: Steer) -> Write:
    direction = torch.from_numpy(np.array(steer.direction)) * steer.strength

    def write(old: Tensor, at: Sequence[int], head: int | None) -> Tensor:
        if direction.shape[0] != old.shape[-1]:
            raise ValueError(
                f"the direction has {direction.shape[0]} entries; {steer.site!r} has width {old.shape[-1]}"
            )
        return old + direction.to(old)

    return write


def _noise(noise: Noise, layer: int | None) -> Write:
    def write(old: Tensor, at: Sequence[int], head: int | None) -> Tensor:
        drawn = []
        for position in at:
            # One stream per place, so that noise is the same whatever else is computed beside it.
            stream = np.random.default_rng([noise.seed, 0 if layer is None else layer + 1, position, head or 0])
            drawn.append(stream.standard_normal(tuple(old.shape[2:]), dtype=np.float32))
        return old + noise.std * torch.from_numpy(np.stack(drawn)).to(old)

    return write
