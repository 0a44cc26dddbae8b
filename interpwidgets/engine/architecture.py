"""Where any transformers model keeps its blocks, norms, attention, MLP and unembedding.

Nothing is looked up by a family's name. One probe is run and watched: the blocks are the longest list of modules
that pass a residual stream on; inside a block, the parts are the modules whose outputs really add up to the block's
output. What does not add up is absent, and its sites are absent with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from .attention import Implementation
from .context import without_gradients
from .readout import Readout, find_readout
from .tolerance import close, factor
from .trace import AttentionCall, Call, Kind, Trace


class UnsupportedModel(ValueError):
    """The model's structure could not be found, or what was found did not hold when the model was run."""


@dataclass
class Block:
    """The parts of one block; None where the architecture has no such part."""

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
class Architecture:
    """What `discover` found; counts are per layer where layers may differ."""

    embedding: nn.Module
    blocks: list[Block]
    readout: Readout
    d_model: int
    n_vocab: int
    n_heads: list[int]
    n_kv_heads: list[int]
    d_head: list[int]
    d_mlp: list[int]
    names: dict[int, str] = field(default_factory=dict)  # id(module) -> path

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    def path(self, module: nn.Module | None) -> str | None:
        return None if module is None else self.names[id(module)]


def discover(model: nn.Module, implementation: Implementation, probe: Tensor) -> Architecture:
    """Run the probe ((1, position) token ids) and find the model's parts. Raises UnsupportedModel."""
    trace, logits = _watch(model, implementation, probe)
    calls = _block_calls(model, trace, probe)
    by_layer = [[a for a in trace.attention_calls if c.entered < a.time < c.left] for c in calls]
    single = [a[0] if len(a) == 1 else None for a in by_layer]
    blocks = [_inside(call, trace, attention) for call, attention in zip(calls, single, strict=True)]
    last = calls[-1]
    assert last.returned is not None
    readout = find_readout(model, trace, last, logits)
    if readout is None:
        raise UnsupportedModel(
            f"the readout of {type(model).__name__} could not be reproduced: what follows its last block, run again "
            "on that block's output, does not give the model's logits"
        )
    return Architecture(
        embedding=model.get_input_embeddings(),  # type: ignore[operator]
        blocks=blocks,
        readout=readout,
        d_model=last.returned.shape[-1],
        n_vocab=logits.shape[-1],
        n_heads=[a.n_heads if a else 0 for a in single],
        n_kv_heads=[a.n_kv_heads if a else 0 for a in single],
        d_head=[_head_width(trace, a, b) if a else 0 for a, b in zip(single, blocks, strict=True)],
        d_mlp=[_given_width(trace, b.down) for b in blocks],
        names={id(m): name for name, m in model.named_modules()},
    )


def _watch(model: nn.Module, implementation: Implementation, probe: Tensor) -> tuple[Trace, Tensor]:
    """Trace the probe under our attention function; without it, where the model does not go through the registry."""
    plain = without_gradients(lambda: getattr(model(input_ids=probe, use_cache=False), "logits", None))
    if plain is None:
        raise UnsupportedModel(f"{type(model).__name__} gives no logits: load it with AutoModelForCausalLM")
    trace = Trace(model, probe)
    logits = trace.run(implementation)
    if any(a.kind == "registry" for a in trace.attention_calls):
        return trace, logits
    # Some read the implementation's name themselves, and would take another path under ours.
    implementation.leave_alone()
    trace = Trace(model, probe)
    trace.run(implementation)
    return trace, plain


def _given_width(trace: Trace, module: nn.Module | None) -> int:
    return next((_width(c) for c in trace.calls if c.module is module), 0)


def _head_width(trace: Trace, attention: AttentionCall, block: Block) -> int:
    return attention.d_head or _given_width(trace, block.projection) // attention.n_heads


def _block_calls(model: nn.Module, trace: Trace, probe: Tensor) -> list[Call]:
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
        if len(calls) == len(module) and passes_on and len(calls) > len(best):
            best = calls
    if not best:
        raise UnsupportedModel(
            f"no list of blocks that pass on one residual stream, each run once, was found in {type(model).__name__}; "
            "interpwidgets works on transformer language models of that form"
        )
    return best


def _inside(block: Call, trace: Trace, attention: AttentionCall | None) -> Block:
    found = Block(block.module)
    before = block.given
    assert before is not None
    inner = sorted((c for c in trace.calls if c.inside(block)), key=lambda c: c.entered)
    inner = [c for c in inner if c.returned is not None and not isinstance(c.module, nn.Dropout | nn.Identity)]
    since = block.entered
    own: Call | None = None
    if attention is not None:
        since = attention.time
        own = next((c for c in inner if c.module is attention.module), None)
    if attention is not None and own is not None:
        found.attention, found.kind = attention.module, attention.kind
        found.projection = _projection(inner, attention, own)
    # Shallow first: of a module and its last child, which return the same, the module is the better name.
    outputs = sorted((c for c in inner if c.left > since and _fits(c.returned, before)), key=lambda c: c.depth)
    for added in outputs:
        for stream, scale, reader in _streams(added, before, inner):
            region = [c for c in inner if c.entered >= reader.entered]
            written = _carried([c for c in outputs if c in region], stream, block, inner)
            if written is None:
                continue
            if own is not None:
                found.attn_out, found.attn_scale = added.module, scale
            found.after_mid = reader.module
            found.mlp_out, found.mlp_scale = written[0].module, written[1]
            _mlp_inside(found, region, written[0])
            return found
    if own is not None:
        _parallel(found, own, block, inner, outputs)
    return found


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
