"""The places of a sweep: which activations a map has a cell for, and what its axes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..engine.sites import SITES, resolve
from ..session import Session
from ..tokens import Tokens

# Of each stack of a model with an encoder.
RESIDUAL_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
HEAD_SITES = ("z", "q", "k", "v")
SWEPT_SITES = (*RESIDUAL_SITES, *HEAD_SITES, "pattern", "mlp_post")


@dataclass(frozen=True)
class Cell:
    """One activation, or a part of one; None stands for all. For `pattern`, `position` is the query."""

    layer: int
    head: int | None = None
    position: int | None = None
    key: int | None = None
    neuron: int | None = None

    @property
    def entry(self) -> int | None:
        """The entry of the activation's last axis that alone is meant."""
        return self.key if self.neuron is None else self.neuron


@dataclass(frozen=True)
class Grid:
    """The cells of a map in the order of its axes; None where a layer does not have what the cell stands for."""

    site: str
    coords: dict[str, np.ndarray]
    cells: list[Cell | None]

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(self.coords)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(c) for c in self.coords.values())


def grid(
    session: Session,
    site: str,
    tokens: Tokens,
    *,
    layer: int | None = None,
    head: int | None = None,
    by_position: bool = False,
    neurons: Sequence[int] | None = None,
) -> Grid:
    """The map of a site over a prompt; the options are those of `patch_sweep`.

    Raises ValueError for a site that cannot be swept, for options that do not fit it, and for a layer without it.
    """
    info = SITES[site]
    base, is_pattern = info.base, info.base == "pattern"
    if base not in SWEPT_SITES:
        raise ValueError(f"{site!r} cannot be swept; one of {', '.join(SWEPT_SITES)} is needed")
    layers = layers_with(session, site)
    if layer is not None:
        (layer,) = resolve(layer, session.engine.architecture.stack(site).n_layers, "layer")
    if not layers or layer not in (None, *layers):
        at, has = "no layer" if not layers else f"layer {layer}", session.engine.sites(layer or 0, info.stack)
        raise ValueError(f"{at} of this model has {site!r}; it has {', '.join(has)}")
    if head is not None and (not is_pattern or layer is None):
        raise ValueError(f"head={head} shows the edges of one head: site='pattern' and a layer are needed with it")
    if neurons is not None and base != "mlp_post":
        raise ValueError(f"neurons are entries of 'mlp_post'; {site!r} was given")
    is_residual = base in RESIDUAL_SITES
    if (by_position and (is_residual or base == "mlp_post")) or (is_residual and layer is not None):
        option = "by_position" if by_position else f"layer={layer}"
        raise ValueError(f"{option} shows the heads of a layer ({', '.join(HEAD_SITES)}); {site!r} has none")
    if base == "mlp_post":
        return _neurons(session, site, layer, neurons)
    length, n_keys = len(tokens.of(info)), len(tokens.keys_of(info))
    places = np.arange(length)
    if is_residual:
        coords = {"layer": np.array(layers), "position": places}
        return Grid(site, coords, [Cell(i, position=p) for i in layers for p in range(length)])
    counts = head_counts(session, site)
    if layer is None:
        coords = {"layer": np.array(layers), "head": np.arange(max(counts))}
        if by_position:
            coords["query" if is_pattern else "position"] = places
        over = range(length) if by_position else (None,)
        heads = [(i, h) for i in layers for h in range(max(counts))]
        return Grid(site, coords, [Cell(i, h, p) if h < counts[i] else None for i, h in heads for p in over])
    if head is not None:
        (head,) = resolve(head, counts[layer], "head")
        edges = [(q, k) for q in range(length) for k in range(n_keys)]
        looks_back = session.causal and info.stack == "decoder"
        seen = [Cell(layer, head, q, k) if k <= q or not looks_back else None for q, k in edges]
        return Grid(site, {"query": places, "key": np.arange(n_keys)}, seen)
    coords = {"head": np.arange(counts[layer]), "query" if is_pattern else "position": places}
    return Grid(site, coords, [Cell(layer, h, p) for h in range(counts[layer]) for p in range(length)])


def strings_of(where: Grid, tokens: Tokens) -> dict[str, list[str]]:
    """The tokens along each axis of a map that counts positions."""
    info = SITES.get(where.site)
    if info is None:
        return {}
    along = {"position": tokens.of(info), "query": tokens.of(info), "key": tokens.keys_of(info)}
    return {dim: list(along[dim].strings) for dim in where.dims if dim in along}


def _neurons(session: Session, site: str, layer: int | None, neurons: Sequence[int] | None) -> Grid:
    if isinstance(neurons, int | np.integer):
        raise TypeError(
            f"neurons={neurons}: this map takes a list of neurons; patch_sweep(..., neurons={neurons}) chooses those "
            "of the largest attribution, and its result's coordinate 'neuron' names them"
        )
    if layer is None:
        raise ValueError(f"{site!r} is swept by the neurons of one layer: give layer=...")
    width = session.engine.architecture.stack(site).d_mlp[layer]
    chosen = range(width) if neurons is None else [resolve(int(n), width, "neuron")[0] for n in neurons]
    return Grid(site, {"neuron": np.array(chosen)}, [Cell(layer, neuron=n) for n in chosen])


def layers_with(session: Session, site: str) -> list[int]:
    """The layers that have a site; hybrid models have attention in some layers only."""
    layers = range(session.engine.architecture.stack(site).n_layers)
    return [i for i in layers if site in session.engine.sites(i, SITES[site].stack)]


def head_counts(session: Session, site: str) -> list[int]:
    """How many heads each layer has that a site's head axis counts."""
    stack = session.engine.architecture.stack(site)
    return stack.n_kv_heads if SITES[site].heads == "kv" else stack.n_heads
