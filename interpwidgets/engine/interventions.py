"""What can be done to an activation, as plain frozen data.

Interventions act in the order in which a forward pass reaches their sites (`sites.SITES`, block by block); at the
same site of the same layer, in the order of the list. Captures see the value after the interventions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from .names import unknown
from .plain import Plain, freeze_array
from .prompts import Prompt, SourceTarget, freeze_prompt, is_prompt
from .sites import SITES, Index, StackName, _freeze, check_axes, on_stack, parse_name


class Intervention(Plain):
    """Base of all interventions: compared and hashed by content, printed as the Python that makes them."""

    site: str
    layer: Index
    head: Index
    position: Index

    def _settle(self) -> None:
        name, layer = parse_name(self.site)
        if layer is not None and self.layer is not None and self.layer != layer:
            raise ValueError(f"{self.site!r} already names layer {layer}, but layer={self.layer!r} was given too")
        object.__setattr__(self, "site", name)
        for axis in ("layer", "head", "position"):
            object.__setattr__(self, axis, _freeze(getattr(self, axis), axis))
        if layer is not None:
            object.__setattr__(self, "layer", layer)
        check_axes(name, self.layer, self.head)
        self._settle_scalars()


@dataclass(frozen=True, eq=False, repr=False)
class Ablate(Intervention):
    """Replace an activation by something that carries no information about its input.

    `how="zero"` writes 0. `how="mean"` writes the mean over all positions of this prompt's undisturbed run, or of all
    positions of the `reference` prompts if given. `how="resample"` writes the activation of one other prompt
    (`reference`) at the same positions; it must have as many tokens. With `entry`, one entry of the activation's last
    axis alone: of `mlp_post` a neuron, of `pattern` a key.
    Terms: zero, mean and resample ablation as in Chan et al. 2022, "Causal scrubbing", and Zhang & Nanda 2309.16042.

    Example: `iw.Ablate("z", layer=9, head=6, how="mean")`
    """

    site: str
    layer: Index = None
    head: Index = None
    position: Index = None
    how: Literal["zero", "mean", "resample"] = "zero"
    reference: Any = None
    entry: int | None = None

    def __post_init__(self) -> None:
        self._settle()
        _require_counted("entry", self.entry)
        if self.how not in ("zero", "mean", "resample"):
            raise ValueError(f"how={self.how!r}: one of 'zero', 'mean', 'resample' is needed")
        if self.how == "resample" and self.reference is None:
            raise ValueError("how='resample' needs reference=, the other prompt to take the activation from")
        if self.how == "zero" and self.reference is not None:
            raise ValueError("how='zero' takes no reference; did you mean how='mean'?")
        if self.how != "zero" and SITES[self.site].base in ("scores", "pattern"):
            raise ValueError(f"{self.site!r} can be ablated to zero only: its rows depend on the prompt's length")
        if self.reference is not None:
            if not isinstance(self.reference, SourceTarget) and len(self.reference) == 0:
                raise ValueError("reference= is empty: one prompt or several are needed")
            prompts = [self.reference] if is_prompt(self.reference) else list(self.reference)
            if self.how == "resample" and len(prompts) != 1:
                raise ValueError(f"how='resample' takes one reference prompt, {len(prompts)} were given")
            frozen = tuple(freeze_prompt(p) for p in prompts)
            object.__setattr__(self, "reference", frozen[0] if len(frozen) == 1 else frozen)

    def references(self) -> tuple[Prompt, ...] | None:
        """The reference prompts as a tuple, or None for this prompt itself."""
        if self.reference is None:
            return None
        many = isinstance(self.reference, tuple) and isinstance(self.reference[0], str | tuple | SourceTarget)
        return self.reference if many else (self.reference,)


@dataclass(frozen=True, eq=False, repr=False)
class Patch(Intervention):
    """Replace an activation by one from another run: activation patching, or a transplant.

    `source` is a prompt (its undisturbed run is read) or an array. Whole numbers along one axis, or (1, position), are
    token ids. Without `source_*`, the activation is read at the
    same site, layer, head and positions, and the prompts must have as many tokens. With `source_layer`,
    `source_position` (ints) and `source_site`, it is read there instead and written to the addressed places: a
    transplant (Ghandeharioun et al. 2024, "Patchscopes"). An array must broadcast to (position, [head,] width), with
    the positions in the order of `position`. With `entry`, one entry of the last axis alone is written: of `mlp_post` a
    neuron, of `pattern` a key; an array's width is then 1.

    Example: `iw.Patch("resid_pre", layer=3, position=5, source="The capital of France is")`
    """

    site: str
    layer: Index = None
    head: Index = None
    position: Index = None
    source: Any = None
    source_layer: int | None = None
    source_position: int | None = None
    source_site: str | None = None
    entry: int | None = None

    def __post_init__(self) -> None:
        self._settle()
        _require_counted("entry", self.entry)
        if self.source is None:
            raise ValueError("Patch needs source=: a prompt (text, token ids or a SourceTarget) or an array")
        if self.source_site is not None:
            object.__setattr__(self, "source_site", parse_name(self.source_site)[0])
        if is_prompt(self.source):
            object.__setattr__(self, "source", freeze_prompt(self.source))
            return
        object.__setattr__(self, "source", freeze_array(self.source))
        if any(v is not None for v in (self.source_layer, self.source_position, self.source_site)):
            raise ValueError("source_layer, source_position and source_site are read from a prompt's run, not an array")


@dataclass(frozen=True, eq=False, repr=False)
class Steer(Intervention):
    """Add `strength * direction` to an activation. `direction` has the site's width (d_model, d_head or d_mlp).

    Activation addition: Turner et al. 2308.10248. The direction is used as given, not normalised.
    """

    site: str
    direction: Any = None
    layer: Index = None
    head: Index = None
    position: Index = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        self._settle()
        if SITES[self.site].base in ("scores", "pattern"):
            raise ValueError(f"{self.site!r} has no fixed width to add a direction to")
        direction = freeze_array(self.direction)
        if direction.ndim != 1:
            raise ValueError(f"direction must be one vector, got shape {direction.shape}")
        object.__setattr__(self, "direction", direction)


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Intervention):
    """Multiply an activation by `factor` (1 changes nothing, 0 is zero ablation, -1 flips it)."""

    site: str
    factor: float = 1.0
    layer: Index = None
    head: Index = None
    position: Index = None

    def __post_init__(self) -> None:
        self._settle()


@dataclass(frozen=True, eq=False, repr=False)
class Noise(Intervention):
    """Add Gaussian noise of standard deviation `std` (the activation's own units), the same for the same seed.

    Each (seed, layer, position) has its own stream, so noise does not depend on what else is computed with it.
    Causal tracing (Meng et al. 2202.05262) uses 3 times the standard deviation of the subjects' embeddings.
    """

    site: str
    std: float = 1.0
    layer: Index = None
    head: Index = None
    position: Index = None
    seed: int = 0

    def __post_init__(self) -> None:
        self._settle()
        if SITES[self.site].base in ("scores", "pattern"):
            raise ValueError(f"noise cannot be added to {self.site!r}; add it to 'q' or 'k' instead")
        _require_counted("seed", self.seed)


@dataclass(frozen=True, eq=False, repr=False)
class CutEdge(Intervention):
    """Cut attention edges: the query positions no longer read the key positions in these heads.

    `renormalize=True` masks the score, so that the rest of the row still sums to 1 (attention knockout, Geva et al.
    2304.14767); `renormalize=False` zeroes the weight and leaves the rest as it was. A query that has lost every key
    reads nothing (a row of zeros).

    `stack` says which attention of a model with an encoder: the "decoder"'s to itself, as in a model without one; the
    "encoder"'s; or "cross", where keys are positions of the source and queries those of the decoder.

    Example: `iw.CutEdge(layer=23, head=3, query=14, key=10)`
    """

    layer: Index = None
    head: Index = None
    query: Index = None
    key: Index = None
    renormalize: bool = True
    stack: StackName = "decoder"

    def __post_init__(self) -> None:
        if self.stack not in get_args(StackName):
            raise unknown("stack", self.stack, get_args(StackName))
        for axis in ("layer", "head", "query", "key"):
            object.__setattr__(self, axis, _freeze(getattr(self, axis), axis))
        self._settle_scalars()

    @property
    def site(self) -> str:  # type: ignore[override]
        return on_stack(self.stack, "scores" if self.renormalize else "pattern")

    @property
    def position(self) -> Index:  # type: ignore[override]
        return self.query


def _require_counted(name: str, number: int | None) -> None:
    """Raise ValueError for a number below 0."""
    if number is not None and number < 0:
        raise ValueError(f"{name}={number}: a whole number from 0 on is needed")


def in_ids(intervention: Intervention, ids: Callable[[Prompt], Prompt]) -> Intervention:
    """The same with every prompt that it names as `ids` gives it: what a text runs as, only a tokenizer knows."""
    if isinstance(intervention, Patch) and not isinstance(intervention.source, np.ndarray):
        source = ids(intervention.source)
        return intervention if source is intervention.source else replace(intervention, source=source)
    if isinstance(intervention, Ablate) and intervention.reference is not None:
        given = intervention.references() or ()
        spelled = [ids(prompt) for prompt in given]
        same = all(a is b for a, b in zip(given, spelled, strict=True))
        return intervention if same else replace(intervention, reference=spelled)
    return intervention
