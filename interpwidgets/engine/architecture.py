"""Where any transformers model keeps its blocks, norms, attention, MLP and unembedding.

Nothing is looked up by a family's name. One probe is run and watched: the blocks are the longest list of modules
that pass a residual stream on; inside a block, the parts are the modules whose outputs really add up to the block's
output. What does not add up is absent, and its sites are absent with it.

An encoder and a decoder are told apart by the lengths of what they read, and so is the attention between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from .attention import Implementation
from .probe import Probe
from .readout import Readout, find_readout
from .sites import SITES, StackName
from .tolerance import close, factor
from .trace import AttentionCall, Call, Kind, Trace


class UnsupportedModel(ValueError):
    """The model's structure could not be found, or what was found did not hold when the model was run."""


@dataclass
class Block:
    """The parts of one block; None where the architecture has no such part.

    The cross attention of a decoder's block is a `Block` of its own, whose `after_mid` reads the stream after it.
    """

    module: nn.Module
    kind: Kind | None = None  # how attention is computed
    attention: nn.Module | None = None  # computes it
    attn_out: nn.Module | None = None  # its output, times attn_scale, is added to the residual stream
    attn_scale: float = 1.0
    after_mid: nn.Module | None = None  # its input is the residual stream after attention
    mlp_out: nn.Module | None = None  # its output, times mlp_scale, is added to the residual stream
    mlp_scale: float = 1.0
    activation: nn.Module | None = None  # its input is mlp_pre
    down: nn.Module | None = None  # its input is mlp_post
    projection: nn.Module | None = None  # W_O: its input is z, heads side by side


@dataclass
class Stack:
    """Blocks that pass on one residual stream; counts are per layer where layers may differ."""

    blocks: list[Block]
    d_model: int
    n_heads: list[int]
    n_kv_heads: list[int]
    d_head: list[int]
    d_mlp: list[int]

    @property
    def n_layers(self) -> int:
        return len(self.blocks)


@dataclass
class Architecture(Stack):
    """What `discover` found: the blocks that give the logits, and what stands around them."""

    embedding: nn.Module
    readout: Readout
    n_vocab: int
    names: dict[int, str] = field(default_factory=dict)  # id(module) -> path
    others: dict[StackName, Stack] = field(
        default_factory=dict
    )  # "encoder" and "cross", of a model that has an encoder
    source_embedding: nn.Module | None = None

    @property
    def stacks(self) -> dict[StackName, Stack]:
        """Every stack, by the name that its sites have."""
        return {"decoder": self, **self.others}

    def stack(self, site: str) -> Stack:
        """The stack that a site is in. Raises ValueError for an encoder's site in a model without one."""
        name = SITES[site].stack
        if name not in self.stacks:
            raise ValueError(f"this model has no encoder, and so no {site!r}; it has {SITES[site].base!r}")
        return self.stacks[name]

    def path(self, module: nn.Module | None) -> str | None:
        return None if module is None else self.names[id(module)]


def discover(model: nn.Module, implementation: Implementation, probe: Probe) -> Architecture:
    """Run the probe and find the model's parts. Raises UnsupportedModel."""
    trace, logits = _watch(model, implementation, probe)
    calls = _block_calls(model, trace, probe.ids)
    attention = [_attention(call, trace, probe) for call in calls]
    found = [_inside(call, trace, *both) for call, both in zip(calls, attention, strict=True)]
    others: dict[StackName, Stack] = {}
    if probe.source is not None:
        read = _block_calls(model, trace, probe.source, "the encoder of ")
        theirs = [_attention(call, trace, probe)[0] for call in read]
        inner = [_inside(call, trace, own, None)[0] for call, own in zip(read, theirs, strict=True)]
        others = {
            "encoder": _stack(trace, read, inner, theirs),
            "cross": _stack(trace, calls, [cross for _, cross in found], [cross for _, cross in attention]),
        }
    readout = find_readout(model, trace, calls[-1], logits)
    if readout is None:
        raise UnsupportedModel(
            f"the readout of {type(model).__name__} could not be reproduced: what follows its last block, run again "
            "on that block's output, does not give the model's logits"
        )
    return Architecture(
        **vars(_stack(trace, calls, [block for block, _ in found], [own for own, _ in attention])),
        embedding=model.get_input_embeddings() if probe.source is None else _embedding(model, trace, probe.ids),  # type: ignore[operator]
        source_embedding=None if probe.source is None else _embedding(model, trace, probe.source),
        readout=readout,
        n_vocab=logits.shape[-1],
        names={id(m): name for name, m in model.named_modules()},
        others=others,
    )


def _watch(model: nn.Module, implementation: Implementation, probe: Probe) -> tuple[Trace, Tensor]:
    """Trace the probe under our attention function; without it, where the model does not go through the registry."""
    trace = Trace(model, probe)
    logits = trace.run(implementation)
    if logits is None:
        auto = "AutoModelForCausalLM" if probe.source is None else "AutoModelForSeq2SeqLM"
        raise UnsupportedModel(f"{type(model).__name__} gives no logits: load it with {auto}")
    if any(a.kind == "registry" for a in trace.attention_calls):
        return trace, logits
    # Some read the implementation's name themselves, and would take another path under ours.
    implementation.leave_alone()
    trace = Trace(model, probe)
    logits = trace.run(implementation)
    assert logits is not None
    return trace, logits


def _embedding(model: nn.Module, trace: Trace, ids: Tensor) -> nn.Module:
    """The module that looks these ids up; an encoder and a decoder may share one, or have one each."""
    calls = sorted(trace.calls, key=lambda c: c.entered)
    looked_up = (c.module for c in calls if c.is_leaf and _same(c.given, ids))
    return next(looked_up, model.get_input_embeddings())  # type: ignore[operator]


def _attention(block: Call, trace: Trace, probe: Probe) -> tuple[AttentionCall | None, AttentionCall | None]:
    """The attention of a block to what it reads, and that of a decoder to the encoder; None for what is not single.

    Raises UnsupportedModel for one whose keys are of both.
    """
    inside = [a for a in trace.attention_calls if block.entered < a.time < block.left]
    # A router's softmax can have the shape of attention.
    inside = [a for a in inside if a.kind == "registry"] or inside
    if probe.source is None:
        return inside[0] if len(inside) == 1 else None, None
    assert block.given is not None
    length, source = block.given.shape[1], probe.source.shape[1]
    mixed = next((a for a in inside if a.n_keys not in (length, source)), None)
    if mixed is not None:
        raise UnsupportedModel(
            f"attention of {block.path} has {mixed.n_keys} keys for {length} positions and {source} of the encoder: "
            "interpwidgets reads attention to either, not to both at once"
        )
    own = [a for a in inside if a.n_keys == length]
    cross = [a for a in inside if a.n_keys != length]
    return own[0] if len(own) == 1 else None, cross[0] if len(cross) == 1 else None


def _stack(trace: Trace, calls: list[Call], blocks: list[Block], attention: list[AttentionCall | None]) -> Stack:
    last = calls[-1]
    assert last.returned is not None
    return Stack(
        blocks=blocks,
        d_model=last.returned.shape[-1],
        n_heads=[a.n_heads if a else 0 for a in attention],
        n_kv_heads=[a.n_kv_heads if a else 0 for a in attention],
        d_head=[_head_width(trace, a, b) if a else 0 for a, b in zip(attention, blocks, strict=True)],
        d_mlp=[_given_width(trace, b.down) for b in blocks],
    )


def _given_width(trace: Trace, module: nn.Module | None) -> int:
    return next((_width(c) for c in trace.calls if c.module is module), 0)


def _head_width(trace: Trace, attention: AttentionCall, block: Block) -> int:
    return attention.d_head or _given_width(trace, block.projection) // attention.n_heads


def _block_calls(model: nn.Module, trace: Trace, probe: Tensor, where: str = "") -> list[Call]:
    """The calls of the blocks: the longest ModuleList whose members each ran once, in order, keeping the shape."""
    by_module: dict[int, list[Call]] = {}
    for call in trace.calls:
        by_module.setdefault(id(call.module), []).append(call)
    best: list[Call] = []
    for module in model.modules():
        if not isinstance(module, nn.ModuleList):
            continue
        runs = [by_module.get(id(m), []) for m in module]
        calls = [r[0] for r in runs if len(r) == 1]
        passes_on = all(
            c.given is not None and c.returned is not None and c.given.shape == c.returned.shape
            and c.given.shape[:-1] == probe.shape
            for c in calls
        )  # fmt: skip
        # T5 lists the attention and MLP of each block.
        inner = bool(calls) and any(calls[0].inside(block) for block in best)
        sublayers = inner and len({type(m) for m in module}) == len(module)
        if len(calls) == len(module) and passes_on and len(calls) > len(best) and not sublayers:
            best = calls
    if not best:
        raise UnsupportedModel(
            "no list of blocks that pass on one residual stream, each run once, was found in "
            f"{where}{type(model).__name__}; interpwidgets works on transformer language models of that form"
        )
    return best


def _inside(
    block: Call, trace: Trace, attention: AttentionCall | None, cross: AttentionCall | None
) -> tuple[Block, Block]:
    """The parts of a block, and of its cross attention."""
    found, across = Block(block.module), Block(block.module)
    before = block.given
    assert before is not None
    inner = sorted((c for c in trace.calls if c.inside(block)), key=lambda c: c.entered)
    inner = [c for c in inner if c.returned is not None and not isinstance(c.module, nn.Dropout | nn.Identity)]
    own = _attend(found, attention, inner)
    _attend(across, cross, inner)
    since = block.entered if attention is None else attention.time
    # Shallow first: of a module and its last child, which return the same, the module is the better name.
    outputs = sorted((c for c in inner if c.left > since and _fits(c.returned, before)), key=lambda c: c.depth)
    for sums in _sums(before, [since, *([] if cross is None else [cross.time])], outputs, inner):
        stream, _, reader, _ = sums[-1]
        region = [c for c in inner if c.entered >= reader.entered]
        written = _carried([c for c in outputs if c in region], stream, block, inner)
        if written is None:
            continue
        for at, (_, scale, reader, added) in zip((found, across), sums, strict=False):
            if at.attention is not None:
                at.attn_out, at.attn_scale = added.module, scale
            at.after_mid = reader.module
        found.mlp_out, found.mlp_scale = written[0].module, written[1]
        _mlp_inside(found, region, written[0])
        return found, across
    if own is not None and cross is None:
        _parallel(found, own, block, inner, outputs)
    return found, across


def _attend(found: Block, attention: AttentionCall | None, inner: list[Call]) -> Call | None:
    """Note the attention's module, if it is one of the block's own; gives its call."""
    own = None if attention is None else next((c for c in inner if c.module is attention.module), None)
    if attention is not None and own is not None:
        found.attention, found.kind = attention.module, attention.kind
        found.projection = _projection(inner, attention, own)
    return own


def _sums(
    before: Tensor, times: list[int], outputs: list[Call], inner: list[Call]
) -> Iterator[list[tuple[Tensor, float, Call, Call]]]:
    """Ways in which the stream goes on when, one after the other, something is added to it after each of `times`.

    Each is a list of (stream, scale of what was added, the stream's reader, what was added).
    """
    for added in (c for c in outputs if c.left > times[0]):
        for stream, scale, reader in _streams(added, before, inner):
            first = (stream, scale, reader, added)
            if len(times) == 1:
                yield [first]
                continue
            later = [c for c in outputs if c.entered >= reader.entered]
            for rest in _sums(stream, times[1:], later, inner):
                yield [first, *rest]


def _projection(inner: list[Call], attention: AttentionCall, own: Call) -> nn.Module | None:
    """W_O: the linear map that reads the heads side by side; gates that read the block's input have the same width."""
    width = attention.n_heads * (attention.d_head or 1)
    linear = [c for c in inner if c.entered > attention.time and _is_linear(c, width)]
    if not attention.d_head:
        linear = [c for c in inner if c.entered > attention.time and _is_linear(c) and _width(c) % width == 0]
    inside = [c for c in linear if c.entered < own.left]
    reads_heads = [c for c in inside if attention.z is not None and _same(c.given, attention.z)]
    gives_output = [c for c in inside if own.returned is not None and _same(c.returned, own.returned)]
    # BERT's stands behind the attention module.
    behind = [c for c in linear if c.entered > own.left and own.returned is not None and _same(c.given, own.returned)]
    only = inside if len(inside) == 1 else []
    return next((c.module for c in (*reads_heads, *gives_output, *only, *behind)), None)


def _width(call: Call) -> int:
    return 0 if call.given is None else call.given.shape[-1]


def _streams(added: Call, before: Tensor, inner: list[Call]) -> Iterator[tuple[Tensor, float, Call]]:
    """Where the residual stream goes on after `added` was added to it: (stream, scale of what is added, its reader).

    The stream is the sum itself, or the sum after a norm, in blocks that norm after adding.
    """
    for call in inner:
        if call.entered <= added.left or not _fits(call.given, before):
            continue
        scale = factor(_as(call.given, before), _as(added.returned, before), before)
        if scale is None:
            continue
        yield _as(call.given, before), scale, call
        if not _fits(call.returned, before):
            continue
        normed = _as(call.returned, before)
        reader = next((c for c in inner if c.entered > call.left and _same(c.given, normed)), None)
        if reader is not None:
            yield normed, scale, reader


def _carried(writes: list[Call], stream: Tensor, block: Call, inner: list[Call]) -> tuple[Call, float] | None:
    """The module whose output, times a scale, is added to the stream: what leaves the block, or what is read next."""
    assert block.returned is not None
    for written in writes:
        output = _as(written.returned, stream)
        targets = [block.returned, *(c.given for c in inner if c.entered > written.left and _fits(c.given, stream))]
        for target in targets:
            scale = factor(_as(target, stream), output, stream)
            if scale is not None:
                return written, scale
    return None


def _parallel(found: Block, own: Call, block: Call, inner: list[Call], outputs: list[Call]) -> None:
    """Attention and MLP both read the block's input, so that there is no resid_mid."""
    before, after = block.given, block.returned
    assert before is not None
    assert after is not None
    beside = sorted((c for c in inner if _fits(c.returned, before) and not c.inside(own)), key=lambda c: c.depth)
    for added in (c for c in outputs if c.entered >= own.entered):
        for written in beside:
            total = before + _as(added.returned, before) + _as(written.returned, before)
            if written is not added and close(total, after):
                found.attn_out, found.mlp_out = added.module, written.module
                region = [c for c in inner if not (c is own or c.inside(own)) and c.left <= written.left]
                _mlp_inside(found, region, written)
                return


def _mlp_inside(found: Block, region: list[Call], written: Call) -> None:
    """Find the down projection and the nonlinearity, if this MLP is a plain or gated one (not a mixture)."""
    leaves = [c for c in region if c.is_leaf]
    once = [c for c in leaves if sum(c.module is d.module for d in leaves) == 1]
    returned = written.returned
    assert returned is not None
    downs = [c for c in once if c.left <= written.left and _is_linear(c) and c.returned.shape[-1] == returned.shape[-1]]  # type: ignore[union-attr]
    if not downs:
        return
    down = downs[-1]
    fed = written.given is not None and _same(down.returned, written.given)
    if not (_same(down.returned, returned) or fed):
        return
    found.down = down.module
    acts = [c for c in once if c.left < down.entered and not any(True for _ in c.module.parameters())]
    acts = [c for c in acts if c.given is not None and c.given.shape[-1] == down.given.shape[-1]]  # type: ignore[union-attr]
    if len(acts) == 1:
        found.activation = acts[0].module


def _is_linear(call: Call, width: int = 0) -> bool:
    """Whether a call is of a linear map, of vectors of this width if one is given."""
    weight = getattr(call.module, "weight", None)
    # A quantised map keeps its weight packed, or behind a method, but says how wide it is.
    linear = hasattr(call.module, "in_features") or (isinstance(weight, Tensor) and weight.dim() == 2)
    if not linear or call.given is None:
        return False
    return not width or call.given.shape[-1] == width


def _fits(x: Tensor | None, stream: Tensor) -> bool:
    # OPT's MLP sees positions flattened into the batch.
    return x is not None and x.shape[-1] == stream.shape[-1] and x.numel() == stream.numel() and x.dtype == stream.dtype


def _as(x: Tensor | None, stream: Tensor) -> Tensor:
    assert x is not None
    return x.reshape(stream.shape)


def _same(a: Tensor | None, b: Tensor) -> bool:
    return a is not None and a.numel() == b.numel() and close(a.reshape(b.shape), b)
