"""Where any transformers model keeps its blocks, norms, attention, MLP and unembedding.

Nothing is looked up by a family's name. One probe is run and watched: the blocks are the longest list of modules
that pass a residual stream on; inside a block, the parts are the modules whose outputs really add up to the block's
output. What does not add up is absent, and its sites are absent with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .attention import Implementation
from .context import current_pass, inside, without_gradients
from .hooks import Hooks

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Relative error that a sum recomputed in this dtype may have."""


class UnsupportedModel(ValueError):
    """The model's structure could not be found, or what was found did not hold when the model was run."""


@dataclass
class Block:
    """The parts of one block; None where the architecture has no such part."""

    module: nn.Module
    attention: nn.Module | None = None  # calls the attention function
    attn_out: nn.Module | None = None  # its output is added to the residual stream
    after_mid: nn.Module | None = None  # its input is the residual stream after attention
    mlp_out: nn.Module | None = None  # its output is added to the residual stream
    activation: nn.Module | None = None  # its input is mlp_pre
    down: nn.Module | None = None  # its input is mlp_post
    projection: nn.Module | None = None  # W_O: its input is z, heads side by side


@dataclass
class Architecture:
    """What `discover` found; counts are per layer where layers may differ."""

    embedding: nn.Module
    blocks: list[Block]
    readout: list[nn.Module]  # modules between the last block and the logits, in order
    finish: Callable[[Tensor], Tensor]  # what the model still does to the logits: soft cap, scale
    finish_name: str
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


@dataclass
class _Call:
    """One call of one module inside the probe."""

    module: nn.Module
    path: str
    entered: int
    given: Tensor | None
    returned: Tensor | None = None
    left: int = 0

    @property
    def depth(self) -> int:
        return self.path.count(".")


@dataclass
class _AttentionCall:
    module: nn.Module
    time: int
    n_heads: int
    n_kv_heads: int
    d_head: int


class Trace:
    """Records every module call of a probe, and the calls of the attention function. Stands in for a pass."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[_Call] = []
        self.attention_calls: list[_AttentionCall] = []
        self._clock = 0
        self._open: list[_Call] = []
        self._hooks = Hooks()
        self._model = model

    def install(self) -> None:
        for path, module in self._model.named_modules():
            self._hooks.before(module, self._enter(path), with_kwargs=True)
            self._hooks.after(module, self._leave)

    def close(self) -> None:
        self._hooks.remove()

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _enter(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any = None) -> None:
            if current_pass.get() is self:
                given = args[0] if args else kwargs.get("hidden_states")
                # Cloned: a block may edit its stream in place, and the sums are checked afterwards.
                given = given.clone() if isinstance(given, Tensor) else None
                self._open.append(_Call(module, path, self._tick(), given))

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if current_pass.get() is self:
            call = self._open.pop()
            call.left = self._tick()
            returned = output[0] if isinstance(output, tuple | list) and output else output
            call.returned = returned.clone() if isinstance(returned, Tensor) else None
            self.calls.append(call)

    # What the attention function asks of a pass.
    def attention_layer(self, module: nn.Module) -> int:
        return 0

    def wants(self, site: str, layer: int) -> bool:
        return False

    def visit(self, site: str, layer: int, x: Tensor) -> Tensor:
        if site == "q":
            self._q = x
        if site == "k":
            module = next(c.module for c in reversed(self._open))
            call = _AttentionCall(module, self._tick(), self._q.shape[1], x.shape[1], self._q.shape[-1])
            self.attention_calls.append(call)
        return x


def close(a: Tensor, b: Tensor) -> bool:
    """Equal within what the dtype's rounding explains."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    scale = b.abs().max().clamp_min(1e-12)
    return bool((a - b).abs().max() <= TOLERANCE.get(a.dtype, 1e-5) * scale)


def discover(model: nn.Module, implementation: Implementation, probe: Tensor) -> Architecture:
    """Run the probe once ((1, position) token ids) and find the model's parts. Raises UnsupportedModel."""
    trace = Trace(model)
    try:
        trace.install()
        output = inside(trace, implementation, lambda: model(input_ids=probe, use_cache=False))
    finally:
        try:
            trace.close()
        except BaseException:  # Ctrl-C in the middle of it
            trace.close()
            raise
    logits = getattr(output, "logits", None)
    if logits is None:
        raise UnsupportedModel(f"{type(model).__name__} gives no logits: load it with AutoModelForCausalLM")
    calls = _block_calls(model, trace, probe)
    by_layer = [[a for a in trace.attention_calls if c.entered < a.time < c.left] for c in calls]
    single = [a[0] if len(a) == 1 else None for a in by_layer]
    blocks = [_inside(call, trace, attention) for call, attention in zip(calls, single, strict=True)]
    last = calls[-1]
    assert last.returned is not None
    readout, finish, finish_name = _readout(model, trace, last, logits)
    return Architecture(
        embedding=model.get_input_embeddings(),  # type: ignore[operator]
        blocks=blocks,
        readout=readout,
        finish=finish,
        finish_name=finish_name,
        d_model=last.returned.shape[-1],
        n_vocab=logits.shape[-1],
        n_heads=[a.n_heads if a else 0 for a in single],
        n_kv_heads=[a.n_kv_heads if a else 0 for a in single],
        d_head=[a.d_head if a else 0 for a in single],
        d_mlp=[_width(trace, b.down) for b in blocks],
        names={id(m): name for name, m in model.named_modules()},
    )


def _width(trace: Trace, down: nn.Module | None) -> int:
    given = next((c.given for c in trace.calls if c.module is down), None)
    return 0 if given is None else given.shape[-1]


def _block_calls(model: nn.Module, trace: Trace, probe: Tensor) -> list[_Call]:
    """The calls of the blocks: the longest ModuleList whose members each ran once, in order, keeping the shape."""
    by_module: dict[int, list[_Call]] = {}
    for call in trace.calls:
        by_module.setdefault(id(call.module), []).append(call)
    best: list[_Call] = []
    for module in model.modules():
        if not isinstance(module, nn.ModuleList):
            continue
        runs = [by_module.get(id(m), []) for m in module]
        calls = [r[0] for r in runs if len(r) == 1]
        passes_on = all(
            c.given is not None and c.returned is not None and c.given.shape == c.returned.shape
            and c.given.shape[:2] == probe.shape
            for c in calls
        )  # fmt: skip
        if len(calls) == len(module) and passes_on and len(calls) > len(best):
            best = calls
    if not best:
        raise UnsupportedModel(
            f"no list of blocks that pass on a residual stream was found in {type(model).__name__}; "
            "interpwidgets works on decoder-only transformer language models"
        )
    return best


def _inside(block: _Call, trace: Trace, attention: _AttentionCall | None) -> Block:
    found = Block(block.module)
    if attention is None or block.given is None or block.returned is None:
        return found
    inner = sorted((c for c in trace.calls if block.entered < c.entered < block.left), key=lambda c: c.entered)
    inner = [c for c in inner if c.returned is not None and not isinstance(c.module, nn.Dropout | nn.Identity)]
    own = next(c for c in inner if c.module is attention.module)
    found.attention = attention.module
    width = attention.n_heads * attention.d_head
    found.projection = next(
        (c.module for c in inner if attention.time < c.entered < own.left and _is_linear(c, width)), None
    )
    before, after = block.given, block.returned
    # Shallow first: of a module and its last child, which return the same, the module is the better name.
    outputs = sorted((c for c in inner if c.left > attention.time and _like(c, before)), key=lambda c: c.depth)
    for added in outputs:
        mid = before + _as(added.returned, before)
        reads = [c for c in inner if c.entered > added.left and c.given is not None and _like_given(c, before)]
        reader = next((c for c in reads if close(_as(c.given, before), mid)), None)
        if reader is None:
            continue
        writes = [c for c in outputs if c.entered >= reader.entered]
        written = next((c for c in writes if close(mid + _as(c.returned, before), after)), None)
        if written is None:
            continue
        found.attn_out, found.after_mid, found.mlp_out = added.module, reader.module, written.module
        region = [c for c in inner if c.entered >= reader.entered]
        _mlp_inside(found, region, written)
        return found
    # Parallel: attention and MLP both read the block's input, so there is no resid_mid.
    beside = [
        c for c in sorted(inner, key=lambda c: c.depth) if _like(c, before) and not own.entered < c.entered < own.left
    ]
    attn_sums = [c for c in outputs if c.entered >= own.entered]
    for added in attn_sums:
        for written in beside:
            total = before + _as(added.returned, before) + _as(written.returned, before)
            if written is not added and close(total, after):
                found.attn_out, found.mlp_out = added.module, written.module
                _mlp_inside(found, list(beside_region(inner, own, written)), written)
                return found
    return found


def beside_region(inner: list[_Call], own: _Call, written: _Call) -> list[_Call]:
    """Calls that belong to a parallel MLP: not inside attention, and not after its output."""
    return [c for c in inner if not own.entered <= c.entered < own.left and c.left <= written.left]


def _mlp_inside(found: Block, region: list[_Call], written: _Call) -> None:
    """Find the down projection and the nonlinearity, if this MLP is a plain or gated one (not a mixture)."""
    leaves = [c for c in region if not any(True for _ in c.module.children())]
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


def _is_linear(call: _Call, width: int | None = None) -> bool:
    weight = getattr(call.module, "weight", None)
    if weight is None or weight.dim() != 2 or call.given is None:
        return False
    return width is None or call.given.shape[-1] == width


def _like(call: _Call, stream: Tensor) -> bool:
    return call.returned is not None and _fits(call.returned, stream)


def _like_given(call: _Call, stream: Tensor) -> bool:
    return call.given is not None and _fits(call.given, stream)


def _fits(x: Tensor, stream: Tensor) -> bool:
    # OPT's MLP sees positions flattened into the batch.
    return x.shape[-1] == stream.shape[-1] and x.numel() == stream.numel()


def _as(x: Tensor | None, stream: Tensor) -> Tensor:
    assert x is not None
    return x.reshape(stream.shape)


def _same(a: Tensor | None, b: Tensor) -> bool:
    return a is not None and a.numel() == b.numel() and close(a.reshape(b.shape), b)


def _readout(
    model: nn.Module, trace: Trace, last: _Call, logits: Tensor
) -> tuple[list[nn.Module], Callable[[Tensor], Tensor], str]:
    """The modules from the last block to the logits, verified by running them. Raises UnsupportedModel."""
    after = sorted((c for c in trace.calls if c.entered > last.left), key=lambda c: c.entered)
    leaves = [c.module for c in after if not any(True for _ in c.module.children())]
    chain = [m for m in leaves if not isinstance(m, nn.Dropout | nn.Identity)]

    def unembed() -> Tensor | None:
        x = last.returned
        for module in chain:
            x = module(x)
        return x

    x = without_gradients(unembed)
    text = model.config.get_text_config()  # type: ignore[union-attr,operator]
    for name, finish in _finishes(text):
        if isinstance(x, Tensor) and x.shape == logits.shape and close(finish(x), logits):
            return chain, finish, name
    raise UnsupportedModel(
        f"the readout of {type(model).__name__} could not be reproduced: running "
        f"{' -> '.join(type(m).__name__ for m in chain) or 'nothing'} on the last block's output does not give them"
    )


def _finishes(config: Any) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """What configs can ask to be done to logits: Gemma's soft cap, Cohere's scale, Granite's divisor."""
    cap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", None)
    divisor = getattr(config, "logits_scaling", None)
    out: list[tuple[str, Callable[[Tensor], Tensor]]] = [("none", lambda x: x)]
    if cap:
        out.append((f"soft cap {cap:g}", lambda x: torch.tanh(x / cap) * cap))
    if scale:
        out.append((f"scale {scale:g}", lambda x: x * scale))
    if divisor:
        out.append((f"divisor {divisor:g}", lambda x: x / divisor))
    return out
