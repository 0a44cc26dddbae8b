"""The names of activations, their shapes, and every spelling people use for them."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal

StackName = Literal["decoder", "encoder", "cross"]
"""Where a site is: in the blocks that give the logits, in the encoder before them, or in the decoder's cross attention,
which reads the encoder's output."""

Index = int | slice | tuple[int, ...] | None
"""Which entries of an axis: one, a slice, several, or all (None)."""


@dataclass(frozen=True)
class SiteInfo:
    """What one site holds. `dims` are the dimensions of one layer's value, without batch."""

    name: str
    dims: tuple[str, ...]
    what: str
    per_layer: bool = True
    heads: str | None = None  # "query" or "kv": which kind of head the head axis counts
    stack: StackName = "decoder"

    @property
    def base(self) -> str:
        """The name without its stack."""
        return self.name.rpartition(".")[2]

    @property
    def of_source(self) -> bool:
        """Whether its positions are those of the text that the encoder reads."""
        return self.stack == "encoder" or (self.stack == "cross" and self.base in ("k", "v"))

    @property
    def keys_of_source(self) -> bool:
        """Whether its keys, if it has any, are positions of the text that the encoder reads."""
        return self.stack != "decoder"


_DECODER = (
    SiteInfo("embed", ("position", "d_model"), "output of the token embedding", per_layer=False),
    SiteInfo("resid_pre", ("position", "d_model"), "residual stream entering the block"),
    SiteInfo("q", ("position", "head", "d_head"), "queries as they enter q·k: after QK-norm and rotary", heads="query"),
    SiteInfo("k", ("position", "head", "d_head"), "keys as they enter q·k: after QK-norm and rotary", heads="kv"),
    SiteInfo("v", ("position", "head", "d_head"), "values", heads="kv"),
    SiteInfo("scores", ("head", "query", "key"), "attention scores, scaled, capped and masked (-inf)", heads="query"),
    SiteInfo("pattern", ("head", "query", "key"), "attention weights, after softmax", heads="query"),
    SiteInfo("z", ("position", "head", "d_head"), "attention-weighted values, before W_O", heads="query"),
    SiteInfo("result", ("position", "head", "d_model"), "what each head adds: z times its slice of W_O", heads="query"),
    SiteInfo("attn_out", ("position", "d_model"), "what attention adds to the residual stream"),
    SiteInfo("resid_mid", ("position", "d_model"), "residual stream between attention and MLP"),
    SiteInfo("mlp_pre", ("position", "d_mlp"), "MLP before its nonlinearity (the gate, in a gated MLP)"),
    SiteInfo("mlp_post", ("position", "d_mlp"), "input of the MLP's down projection"),
    SiteInfo("mlp_out", ("position", "d_model"), "what the MLP adds to the residual stream"),
    SiteInfo("resid_post", ("position", "d_model"), "residual stream leaving the block"),
    SiteInfo("ln_final", ("position", "d_model"), "what enters the unembedding", per_layer=False),
)  # fmt: skip

# As in TransformerLens' encoder-decoder, resid_mid follows the decoder's attention to itself; this follows both.
_MID = SiteInfo("resid_mid", ("position", "d_model"), "residual stream between cross attention and MLP")
_CROSS = (*(i for i in _DECODER if i.heads or i.name == "attn_out"), _MID)


def _named(infos: Iterable[SiteInfo], stack: StackName) -> list[SiteInfo]:
    return [replace(info, name=f"{stack}.{info.name}", stack=stack) for info in infos]


_ENCODER = [i for i in _DECODER if i.name != "ln_final"]
SITES: dict[str, SiteInfo] = {i.name: i for i in (*_DECODER, *_named(_ENCODER, "encoder"), *_named(_CROSS, "cross"))}
"""Every canonical site: the decoder's in the order in which a forward pass reaches them; then, of a model that has an
encoder, `encoder.<site>` and `cross.<site>`, in the same order."""

HEAD_SITES = ("q", "k", "v", "scores", "pattern", "z")
"""What attention itself computes, in each stack."""


def on_stack(stack: str, base: str) -> str:
    """The site of this stack; with "", what its sites' names begin with."""
    return base if stack == "decoder" else f"{stack}.{base}"


# Other spellings: TransformerLens hook names and short names, nnterp accessors, pyvene components. Not pyvene's
# mlp_activation: in a gated MLP that is one factor of mlp_post.
_ALIASES = {
    "hook_embed": "embed", "attn_scores": "scores", "pre": "mlp_pre", "post": "mlp_post",
    "layers_input": "resid_pre", "layers_output": "resid_post", "attentions_output": "attn_out",
    "mlps_output": "mlp_out", "attention_probabilities": "pattern", "token_embeddings": "embed",
    "block_input": "resid_pre", "block_output": "resid_post", "attention_output": "attn_out",
    "mlp_output": "mlp_out", "head_attention_value_output": "z",
    "head_query_output": "q", "head_key_output": "k", "head_value_output": "v",
    "ln_final.hook_out": "ln_final", "rot_q": "q", "rot_k": "k",
}  # fmt: skip
# What TransformerLens calls the sites of block N, after "blocks.N.". Its other hooks (mlp.hook_out, before a
# post-norm; ln1.hook_normalized) are other tensors and no sites.
_HOOKS = {
    **{f"hook_{name}": name for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")},
    **{f"attn.hook_{name}": name for name in ("q", "k", "v", "pattern", "z", "result")},
    "attn.hook_rot_q": "q", "attn.hook_rot_k": "k", "attn.hook_attn_scores": "scores",
    "mlp.hook_pre": "mlp_pre", "mlp.hook_post": "mlp_post",
}  # fmt: skip
_HOOK = re.compile(r"^blocks\.(\d+)\.(.+)$")
_INDEXED = re.compile(r"^(\w+)\[(\d+)\]$")
_STACKED = re.compile(r"^(encoder|cross)\.(.+)$")


def _freeze(value: Any, axis: str) -> Index:
    if value is None:
        return value
    if isinstance(value, slice):
        ends = (value.start, value.stop, value.step)
        return slice(*(None if end is None else operator.index(end) for end in ends))
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(int(v) for v in value)
    try:
        return value.__index__()
    except AttributeError:
        raise TypeError(f"{axis}={value!r}: an int, a slice, a sequence of ints or None (all) is needed") from None


@dataclass(frozen=True, eq=False)
class Site:
    """An addressed activation: a site's name and which layers, heads and positions of it.

    `name` takes the canonical names (`SITES`) and the spellings of TransformerLens, nnterp and pyvene
    ("blocks.3.attn.hook_z", "layers_output[3]"). `layer`, `head` and `position` are an int, a slice, a
    sequence of ints or None for all; negative ints count from the end. For `k` and `v`, heads are key/value
    heads; for `scores` and `pattern`, `position` is the query. In a model with an encoder, these are the decoder's
    sites; the encoder's are `encoder.<site>`, those of the attention from the decoder to it `cross.<site>`. Positions
    of `encoder.…`, `cross.k` and `cross.v` are the source's.

    All spellings of a site are the same tensor here, as it is in those tools but for two things. `q` and `k` are
    what enters q·k: TransformerLens' hook_rot_q and hook_rot_k, while its hook_q and hook_k (and pyvene's
    head_query_output) are read before QK-norm and rotary embedding. `attn_out` and `mlp_out` are what is added to
    the stream, as in TransformerLens; nnterp and pyvene read the modules' own outputs, before the norm that
    Gemma 2 puts in between. Masked `scores` are -inf; in TransformerLens some families have the lowest float.

    Example: `session.run(prompt, capture=[iw.Site("z", layer=3, head=0, position=slice(2, 5))])`
    """

    name: str
    layer: Index = None
    head: Index = None
    position: Index = None

    def __post_init__(self) -> None:
        name, layer = parse_name(self.name)
        if layer is not None and self.layer is not None and self.layer != layer:
            raise ValueError(f"{self.name!r} already names layer {layer}, but layer={self.layer!r} was given too")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "layer", _freeze(self.layer if layer is None else layer, "layer"))
        object.__setattr__(self, "head", _freeze(self.head, "head"))
        object.__setattr__(self, "position", _freeze(self.position, "position"))
        check_axes(name, self.layer, self.head)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and _key(other) == _key(self)

    def __hash__(self) -> int:
        return hash(_key(self))

    @property
    def info(self) -> SiteInfo:
        return SITES[self.name]


def _key(site: object) -> tuple[Any, ...]:
    # Slices cannot be hashed before Python 3.12.
    values = [getattr(site, name) for name in _fields(type(site))]  # type: ignore[arg-type]
    return tuple(("slice", v.start, v.stop, v.step) if isinstance(v, slice) else v for v in values)


@cache
def _fields(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


def parse_name(spelling: str) -> tuple[str, int | None]:
    """Give the canonical site name and the layer, if the spelling names one.

    Raises ValueError with the nearest known spelling for an unknown one, TypeError for what is no text.
    """
    if not isinstance(spelling, str):
        raise TypeError(f"a site is named by text, such as 'z'; got {spelling!r}")
    if spelling in SITES:
        return spelling, None
    if spelling in _ALIASES:
        return _ALIASES[spelling], None
    if match := _STACKED.match(spelling):
        base, layer = parse_name(match[2])
        if f"{match[1]}.{base}" in SITES:
            return f"{match[1]}.{base}", layer
    known = {name: name for name in (*SITES, *_ALIASES)}
    if match := _HOOK.match(spelling):
        at, hook = match.groups()
        if hook in _HOOKS:
            return _HOOKS[hook], int(at)
        known = {f"blocks.{at}.{hook.replace('hook_', '')}": f"blocks.{at}.{hook}" for hook in _HOOKS}
    if match := _INDEXED.match(spelling):
        name = _ALIASES.get(match[1], match[1])
        if name in SITES:
            return name, int(match[2])
    near = difflib.get_close_matches(spelling.replace("hook_", ""), known, n=1)
    hint = f"; did you mean {known[near[0]]!r}? Known" if near else "; known"
    raise ValueError(
        f"unknown site {spelling!r}{hint} sites: {', '.join(i.name for i in _DECODER)}; of a model with an encoder, "
        "also encoder.… and cross.…, such as encoder.resid_post and cross.pattern"
    )


def check_axes(name: str, layer: Index, head: Index) -> None:
    """Raise ValueError when a layer or head is given to a site that has none."""
    info = SITES[name]
    if layer is not None and not info.per_layer:
        raise ValueError(f"{name!r} exists once in the model, not per layer: leave layer out (got {layer!r})")
    if head is not None and info.heads is None:
        with_heads = ", ".join(s.name for s in _DECODER if s.heads)
        raise ValueError(f"{name!r} has no heads (got head={head!r}); sites with heads: {with_heads}")


def resolve(index: Index, size: int, axis: str) -> list[int]:
    """Spell an index out as non-negative ints below `size`.

    Raises ValueError, naming the axis and its size, for an entry that is out of range.
    """
    if index is None:
        return list(range(size))
    if isinstance(index, slice):
        chosen = list(range(size))[index]
        if not chosen:
            raise ValueError(f"{axis} {index} addresses nothing: there are {size} ({axis}s 0 to {size - 1})")
        return chosen
    entries = [index] if isinstance(index, int) else list(index)
    if not entries:
        raise ValueError(f"{axis} () addresses nothing: leave it out, or None, for all {size}")
    for entry in entries:
        if not -size <= entry < size:
            raise ValueError(f"{axis} {entry} is out of range: there are {size} ({axis}s 0 to {size - 1})")
    return [entry % size for entry in entries]
