"""Run: one finished forward pass, and the named arrays that it gives out."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .engine.bins import Bins
from .engine.interventions import Intervention
from .engine.sites import Index, Site, resolve
from .tokens import Tokens

NOTHING_MASKED = (
    "this model predicts what is masked: put the tokenizer's mask token, such as [MASK], where the answer is to stand"
)


class Run:
    """One finished forward pass.

    `tokens`: what was run. `logits`: DataArray (position, token). `run["z"]`, or `run[site]` for what was asked for
    as a `Site`: DataArray with the site's dimensions. `idle`: which of the `interventions` changed nothing, by
    index. `answer_position`: where `prediction` is read (see `Session.answer_position`). `reduced`: patterns' bins,
    (head, bin, bin) of each layer.
    """

    def __init__(
        self,
        tokens: Tokens,
        interventions: tuple[Intervention, ...],
        logits: Tensor,
        captured: dict[Site, dict[int | None, Tensor]],
        idle: tuple[int, ...],
        n_heads: dict[tuple[str, str], int],
        answer_position: int | None,
        reduced: dict[Bins, dict[int, Tensor]],
    ) -> None:
        self.tokens = tokens
        self.interventions = interventions
        self.idle = idle
        self._logits = logits
        self.captured = captured
        self.reduced = reduced
        self._n_heads = n_heads  # of each stack, and kind that `SiteInfo.heads` names
        self.answer_position = answer_position

    @property
    def logits(self) -> xr.DataArray:
        """(position, token) logits, as the model gives them; a copy, for the run may be answered from again."""
        return xr.DataArray(_numpy(self._logits).copy(), dims=("position", "token"), name="logits")

    @property
    def prediction(self) -> Tensor:
        """(token,) logits at `answer_position`. Raises ValueError if a masked language model's prompt masks nothing."""
        if self.answer_position is None:
            raise ValueError(NOTHING_MASKED)
        return self.logits_at(self.answer_position)

    def logits_at(self, position: int) -> Tensor:
        """(token,) logits at a position, counted from 0. Raises ValueError if the run kept those of the last only."""
        kept_from = len(self.tokens) - len(self._logits)
        if not kept_from <= position < len(self.tokens):
            kept = f"{kept_from} to {len(self.tokens) - 1}"
            raise ValueError(f"this run keeps the logits of positions {kept}, not those of {position}")
        return self._logits[position - kept_from]

    def __getitem__(self, site: str | Site) -> xr.DataArray:
        asked = Site(site) if isinstance(site, str) else site
        for have, values in self.captured.items():
            if have == asked:
                return self._label(asked, values)
        same = [have for have in self.captured if have.name == asked.name]
        if len(same) == 1 and asked == Site(asked.name):
            return self._label(same[0], self.captured[same[0]])
        raise KeyError(f"{site!r} was not captured; this run has {[str(s) for s in self.captured] or 'no captures'}")

    def tensor(self, site: str, layer: int | None) -> Tensor:
        """One layer's value as a tensor, (position, [head,] width); for scores and pattern (query, head, key)."""
        for have, values in self.captured.items():
            if have.name == site and layer in values and have.head is None and have.position is None:
                return values[layer]
        raise KeyError(f"layer {layer} of {site!r} was not captured")

    def holds(self, site: str, layer: int) -> bool:
        """Whether `tensor` has this layer's value."""
        whole = (h for h in self.captured if h.name == site and h.head is None and h.position is None)
        return any(layer in self.captured[have] for have in whole)

    def tensors(self) -> list[Tensor]:
        """Everything that the run holds."""
        captured = [t for values in self.captured.values() for t in values.values()]
        return [self._logits, *captured, *(t for values in self.reduced.values() for t in values.values())]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.tensors())

    def _label(self, site: Site, values: dict[int | None, Tensor]) -> xr.DataArray:
        """Name the dimensions; an axis addressed by a single int is dropped and kept as a coordinate."""
        info = site.info
        arrays = [_numpy(v) for v in values.values()]
        if info.dims[0] == "head":  # (query, head, key) -> (head, query, key)
            arrays = [a.swapaxes(0, 1) for a in arrays]
        if len({a.shape for a in arrays}) > 1:
            shapes = {layer: a.shape for layer, a in zip(values, arrays, strict=True)}
            raise ValueError(f"{site.name!r} differs in shape between layers, so pick one: {shapes}")
        data = xr.DataArray(np.stack(arrays), dims=("layer", *info.dims), name=site.name)
        data = data.assign_coords(layer=[-1 if i is None else i for i in values])
        axes: list[tuple[str, Index, int]] = []
        length = len(self.tokens.of(info))
        axes.append(("position" if "position" in info.dims else "query", site.position, length))
        if info.heads:
            axes.append(("head", site.head, self._n_heads[info.stack, info.heads]))
        for dim, index, size in axes:
            # Layers may differ in heads: all of this one are those it has.
            data = data.assign_coords({dim: resolve(index, data.sizes[dim] if index is None else size, dim)})
            if isinstance(index, int):
                data = data.isel({dim: 0})
        if not info.per_layer:
            return data.isel(layer=0, drop=True)
        return data.isel(layer=0) if isinstance(site.layer, int) else data

    def __repr__(self) -> str:
        return f"Run({len(self.tokens)} tokens, captured {[s.name for s in self.captured]})"


def select(site: Site, value: Tensor) -> Tensor:
    """The heads and positions of one layer's value, (position, [head,] width), that `site` addresses."""
    at_positions = resolve(site.position, value.shape[0], "position")
    value = value if site.position is None else value[at_positions]
    if site.head is None:
        return value
    return value[:, resolve(site.head, value.shape[1], "head")]


def covers(have: Site, asked: Site) -> bool:
    """Whether a capture of `have` holds all of `asked`; only whole heads and positions are cut down again."""
    if have == asked:
        return True
    whole = have.head is None and have.position is None
    return have.name == asked.name and whole and (have.layer is None or have.layer == asked.layer)


def _numpy(x: Tensor) -> np.ndarray:
    x = x.detach()
    return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).cpu().numpy()
