"""The hooks, lock and structure of one model; the hooks are installed once and inert outside of a pass."""

from __future__ import annotations

import inspect
import operator
import threading
import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .architecture import Architecture, Block, Stack, discover
from .attention import Implementation
from .context import Place, current_pass, inside, without_gradients
from .direct import DirectAttention
from .forward import BeforeUnembedding, ForwardPass
from .hooks import Hooks
from .packed import PackedPass, position_axes
from .probe import Probe, input_device, model_inputs
from .resume import Skipping
from .sites import HEAD_SITES, SITES, Index, StackName, on_stack, resolve
from .version import Versions, modules

T = TypeVar("T")


class Engine:
    """Hooks, lock and structure of one model; shared by all sessions on that model."""

    _engines: ClassVar[weakref.WeakValueDictionary[int, Engine]] = weakref.WeakValueDictionary()
    _registry: ClassVar[threading.RLock] = threading.RLock()

    @classmethod
    def of(cls, model: nn.Module, holder: object) -> Engine:
        """The engine of this model, held by `holder` until that is closed. Raises UnsupportedModel.

        If this is interrupted or raises, `release` must be called.
        """
        while True:
            with cls._registry:
                engine = cls._engines.get(id(model))
                if engine is None or engine.model is not model or engine.closed or engine.changed_structure():
                    engine = cls._engines[id(model)] = cls(model)
            with engine.lock:
                if not engine.closed:
                    engine._holders.add(holder)
                    engine._open()
                    return engine

    @classmethod
    def release(cls, model: nn.Module, holder: object) -> None:
        """Close for `holder`, if the model has an engine that it holds."""
        engine = cls._engines.get(id(model))
        if engine is not None and holder in engine._holders:
            engine.close(holder)

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.lock = threading.RLock()
        self.implementation = Implementation(model)
        self.length = 0  # positions computed by the running pass
        self.closed = False
        self.causal = True
        """Whether positions depend on earlier ones only; `check` finds that out."""
        self.resumes = False
        """Whether a pass may begin at any block; `check` finds that out."""
        self.passes_on = False
        """Whether what leaves a block is what enters the next; `check` finds that out."""
        self.narrows = True
        """Whether a packed pass may leave positions out behind the last attention; the session's check finds out."""
        self._holders: set[object] = set()
        self._hooks = Hooks()
        self._versions = Versions(model)
        self._modules: list[nn.Module] = []
        self._sites: dict[tuple[int, str], list[str]] = {}

    def _open(self) -> None:
        if self._modules:
            return
        found = discover(self.model, self.implementation, self.probe)
        self.architecture: Architecture = found
        places = [(name, layer, b) for name, stack in found.stacks.items() for layer, b in enumerate(stack.blocks)]
        self.attention_places: dict[int, Place] = {
            id(b.attention): (on_stack(name, ""), layer) for name, layer, b in places if b.kind == "registry"
        }
        self.direct = {(name, layer) for name, layer, b in places if b.kind in ("sdpa", "softmax")}
        self._install()
        self._modules = list(modules(self.model))

    @property
    def probe(self) -> Probe:
        """What the model is tried with."""
        return Probe.of(self.model)

    @property
    def has_encoder(self) -> bool:
        return "encoder" in self.architecture.stacks

    @property
    def start_token(self) -> int | None:
        """What the decoder of a model with an encoder begins with, as `generate` finds it."""
        settings = [getattr(self.model, "generation_config", None), self.model.config]
        names = ("decoder_start_token_id", "bos_token_id")
        found = (getattr(s, name, None) for name in names for s in settings)
        return next((token for token in found if isinstance(token, int)), None)

    @property
    def device(self) -> torch.device:
        return input_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return self.model.get_input_embeddings().weight.dtype  # type: ignore[operator]

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def version(self) -> int | None:
        """Changes with whatever the model computes with (see `Versions`); None if that cannot be told."""
        return self._versions.now(self.implementation.names())

    def changed_structure(self) -> str:
        """Which module was put in, replaced or taken out since the session was opened; empty if none was."""
        now = list(modules(self.model))
        if not self._modules or (len(now) == len(self._modules) and all(map(operator.is_, now, self._modules))):
            return ""
        known, names = set(map(id, self._modules)), self.architecture.names
        added = [name for name, module in self.model.named_modules() if id(module) not in known]
        here = set(map(id, now))
        gone = [names[id(module)] for module in self._modules if id(module) not in here]
        return min(added or gone or ["the order of the modules"], key=len)

    @cached_property
    def position_axes(self) -> dict[tuple[Any, ...], int]:
        """Which axis follows the prompt's length, of what each block is given beside the stream."""
        return position_axes(self)

    @property
    def last_logits_only(self) -> dict[str, int]:
        """The argument that spares unembedding all positions but the last, where the model knows it."""
        known = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        return {"logits_to_keep": 1} if known else {}

    def close(self, holder: object) -> None:
        """Give up one session's hold, when no pass is running; the last one takes our hooks out."""
        with self.lock:
            self._holders.discard(holder)
            if not self._holders:
                self.closed = True
                self._hooks.remove()
                self.implementation.close()

    def sites(self, layer: int, stack: StackName = "decoder") -> list[str]:
        """The canonical sites that this layer of a stack has."""
        if (layer, stack) not in self._sites:
            self._sites[layer, stack] = self._found_sites(layer, stack)
        return self._sites[layer, stack]

    def _found_sites(self, layer: int, stack: StackName) -> list[str]:
        block = self.architecture.stacks[stack].blocks[layer]
        has = {
            "attn_out": block.attn_out, "resid_mid": block.after_mid, "mlp_out": block.mlp_out,
            "mlp_pre": block.activation, "mlp_post": block.down,
            "result": block.projection,
        }  # fmt: skip
        heads = dict.fromkeys(HEAD_SITES, block.attention)
        if block.kind == "softmax":  # torch's softmax shows the weights; q, k and v went by unseen
            heads |= {"q": None, "k": None, "v": None, "z": block.projection}
        here = (i for i in SITES.values() if i.per_layer and i.stack == stack)
        return [i.name for i in here if (has | heads).get(i.base, block.module) is not None]

    def layers(self, site: str, index: Index) -> list[int | None]:
        """The layers that have a site, of those addressed. Raises ValueError if one that is named has not, or none."""
        stack = self.architecture.stack(site)
        if not SITES[site].per_layer:
            return [None]
        layers = resolve(index, stack.n_layers, "layer")
        having = [layer for layer in layers if site in self.sites(layer, SITES[site].stack)]
        if (index is not None and having != layers) or not having:
            absent = next(layer for layer in layers if layer not in having)
            has = ", ".join(self.sites(absent, SITES[site].stack)) or "nothing that can be read"
            raise ValueError(f"layer {absent} of this model has no {site!r}; it has {has}")
        return list(having)

    def inside(self, forward: ForwardPass, call: Callable[[], T]) -> T:
        """Call the model with `forward` as the pass that this thread is inside of. Raises RuntimeError once closed."""
        with self.lock:
            self._require_open()
            length = self.length
            try:
                call = self._under(DirectAttention, call) if forward.listens else call
                call = self._under(Skipping, call) if forward.resume is not None else call
                result = inside(forward, self.implementation, call)
            finally:
                self.length = length  # of the pass around this one: a hook of the user's may run the session
            self._require_open()
            return result

    @staticmethod
    def _under(mode: type[TorchFunctionMode], call: Callable[[], T]) -> Callable[[], T]:
        def enter() -> T:
            with mode():
                return call()

        return enter

    def is_hooked(self, module: nn.Module) -> bool:
        """Whether the module has a hook of the user's."""
        return self._hooks.others(module)

    def _require_open(self) -> None:
        if self.closed:
            raise RuntimeError("this session is closed: make a new Session to go on")

    def run(self, ids: Tensor, forward: ForwardPass, **arguments: Any) -> Tensor:
        """Run the model on (row, position) ids inside `forward`; gives the logits."""

        def call() -> Tensor:
            forward.rows = ids.shape[0]
            self.length = ids.shape[1]
            return self.model(**self.inputs(ids, forward), **arguments).logits

        return self.inside(forward, call)

    def inputs(self, ids: Tensor, forward: ForwardPass) -> dict[str, Tensor]:
        """What the model is called with to run (row, position) ids inside `forward`."""
        source = forward.source
        return model_inputs(ids.to(self.device), None if source is None else source.to(self.device))

    def run_for(
        self, ids: Tensor, forward: ForwardPass, pick: Callable[[Tensor], Tensor], tokens: list[int] | None, **more: Any
    ) -> Tensor:
        """`run`, but only the logits that `pick` takes are computed, if the unembedding allows it.

        `pick` is given (row, position, d_model or token) and gives (row, same). `tokens` says whose logits; None: all.
        """
        return self.reading(ids, forward, pick, **more)(tokens)

    def reading(
        self, ids: Tensor, forward: ForwardPass, pick: Callable[[Tensor], Tensor], **more: Any
    ) -> Callable[[list[int] | None], Tensor]:
        """`run_for`, as a function of the tokens: what it reads has been computed."""
        head = self.architecture.readout.unembedding
        # A wrapped forward or a hook of the user's does what the weight alone does not say.
        if type(head) is not nn.Linear or "forward" in vars(head) or not self._hooks.are_all_on(head):
            logits = pick(self.run(ids, forward, **more))
            return lambda tokens: logits if tokens is None else logits[:, tokens]
        forward.unembed = False
        try:
            self.run(ids, forward, **more)
        except BeforeUnembedding as reached:
            x = pick(reached.x)
        else:
            raise RuntimeError("the model did not reach its unembedding")

        def read(tokens: list[int] | None) -> Tensor:
            weight, bias = (
                w if w is None or tokens is None else w[tokens]
                for w in (head.weight.detach(), None if head.bias is None else head.bias.detach())
            )
            return self.architecture.readout.finish(nn.functional.linear(x, weight, bias), tokens)

        return read

    def readout(self, residual: Tensor, check: Callable[[], None] | None = None) -> Tensor:
        """Final norm (each vector by its own statistics), unembedding, soft cap and scale of (..., d_model)."""
        if check is not None:
            check()

        return without_gradients(lambda: self.architecture.readout(residual))

    def _install(self) -> None:
        architecture = self.architecture
        for embedding in dict.fromkeys([architecture.embedding, architecture.source_embedding]):
            if embedding is not None:
                self._embed(embedding)
        for name, stack in architecture.stacks.items():
            for layer, block in enumerate(stack.blocks):
                if name != "cross":
                    self._enter(block.module, name, layer)
                self._install_block(stack, on_stack(name, ""), layer, block)
        if self.has_encoder:
            self._leave_encoder(architecture.stacks["encoder"].blocks[-1].module)
        if architecture.readout.unembedding is not None:
            self._before(architecture.readout.unembedding, "ln_final", None)
            self._leave_early(architecture.readout.unembedding)

    def _embed(self, module: nn.Module) -> None:
        """An encoder and a decoder may share the module; the encoder comes first."""

        def hook(module: nn.Module, args: Any, output: Tensor) -> Any:
            running = self._mine()
            site = "embed" if running is None or running.encoded else "encoder.embed"
            return None if running is None or not running.wants(site, None) else running.visit(site, None, output)

        self._hooks.after(module, hook)

    def _leave_encoder(self, module: nn.Module) -> None:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if (running := self._mine()) is not None:
                running.encoded = True

        self._hooks.after(module, hook)

    def _enter(self, module: nn.Module, stack: str, layer: int) -> None:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
            running = self._mine()
            if running is None or kwargs is None:
                return None
            enter_block = running.enter_encoder_block if stack == "encoder" else running.enter_block
            stream = enter_block(layer, args[0] if args else kwargs["hidden_states"])
            if args:
                beside, kwargs = running.arguments(layer, args[1:], kwargs)
                return (stream, *beside), kwargs
            others = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            args, kwargs = running.arguments(layer, args, others)
            return args, {**kwargs, "hidden_states": stream}

        self._hooks.before(module, enter, with_kwargs=True)
        self._after(module, f"{on_stack(stack, '')}resid_post", layer)

    def _install_block(self, stack: Stack, prefix: str, layer: int, block: Block) -> None:
        if block.projection is not None:
            self._hooks.after(block.projection, self._result(f"{prefix}result", layer, stack.n_heads[layer]))
        if block.attention is not None and block.kind != "registry":
            self._attend((prefix, layer), block.attention)
        if block.projection is not None and block.kind == "softmax":
            heads = stack.n_heads[layer], stack.d_head[layer]
            self._hooks.before(block.projection, self._heads_side_by_side(f"{prefix}z", layer, heads))
        if block.attn_out is not None:
            self._after(block.attn_out, f"{prefix}attn_out", layer, block.attn_scale)
        if block.mlp_out is not None:
            self._after(block.mlp_out, f"{prefix}mlp_out", layer, block.mlp_scale)
        for module, site in ((block.activation, "mlp_pre"), (block.down, "mlp_post")):
            if module is not None:
                self._before(module, f"{prefix}{site}", layer)
        if block.after_mid is not None:
            self._hooks.before(block.after_mid, self._middle(f"{prefix}resid_mid", layer), with_kwargs=True)
        is_last = not prefix and layer == self.architecture.n_layers - 1
        if is_last and block.after_mid is not None and block.mlp_out is not None:
            self._narrow(block.after_mid, block.mlp_out)

    def _narrow(self, first: nn.Module, last: nn.Module) -> None:
        """From the one module to the other, a packed pass goes on with less."""

        def enter(module: nn.Module, args: tuple[Any, ...]) -> Any:
            running = self._mine()
            return (running.narrow(args[0]), *args[1:]) if isinstance(running, PackedPass) and args else None

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            running = self._mine()
            if not isinstance(running, PackedPass):
                return None
            if isinstance(output, tuple | list):
                return type(output)([running.widen(output[0]), *output[1:]])
            return running.widen(output)

        self._hooks.before(first, enter)
        self._hooks.after(last, leave)

    def _leave_early(self, module: nn.Module) -> None:
        # Hooks are plain functions: a user's deepcopy of the model copies bound methods, and with them all of this.
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            running = self._mine()
            if running is not None and not running.unembed:
                raise BeforeUnembedding(args[0])

        self._hooks.before(module, hook)

    def _mine(self) -> ForwardPass | None:
        running = current_pass.get()
        return running if isinstance(running, ForwardPass) and running.engine is self else None

    def _attend(self, place: Place, module: nn.Module) -> None:
        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            if (running := self._mine()) is not None:
                running.attending = place

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if (running := self._mine()) is not None:
                running.attending = None

        self._hooks.before(module, enter)
        self._hooks.after(module, leave)

    def _heads_side_by_side(self, site: str, layer: int, heads: tuple[int, int]) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
            running = self._mine()
            if running is None or not running.wants(site, layer):
                return None
            z = args[0].view(running.rows, -1, *heads)
            return (running.visit(site, layer, z).view(args[0].shape), *args[1:])

        return hook

    def _after(self, module: nn.Module, site: str, layer: int | None, scale: float = 1.0) -> None:
        """Visit a module's output; where the block adds it times `scale`, what is added is what is seen."""

        def visit(running: ForwardPass, x: Tensor) -> Tensor:
            if scale == 1.0:
                return running.visit(site, layer, x)
            seen = x * scale
            new = running.visit(site, layer, seen)
            return x if new is seen else new / scale

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            running = self._mine()
            if running is None or not running.wants(site, layer):
                return None
            if isinstance(output, tuple | list):
                return type(output)([visit(running, output[0]), *output[1:]])
            return visit(running, output)

        self._hooks.after(module, hook)

    def _before(self, module: nn.Module, site: str, layer: int | None) -> None:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
            running = self._mine()
            if running is None or not running.wants(site, layer):
                return None
            return (running.visit(site, layer, args[0]), *args[1:])

        self._hooks.before(module, hook)

    def _middle(self, site: str, layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
            running = self._mine()
            if running is None or kwargs is None or not running.wants(site, layer):
                return
            stream = args[0] if args else kwargs["hidden_states"]
            # In place: the block adds the MLP's output to this very tensor, which only it holds.
            stream.copy_(running.visit(site, layer, stream))

        return hook

    def _result(self, site: str, layer: int, heads: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            running = self._mine()
            if running is None or not running.wants(site, layer):
                return None
            z = args[0].view(running.rows, -1, heads, args[0].shape[-1] // heads)  # (row, position, head, d_head)
            token = current_pass.set(None)
            try:
                old = per_head(module, z)
            finally:
                current_pass.reset(token)
            new = running.visit(site, layer, old)
            return None if new is old else output + (new - old).sum(2).view(output.shape)

        return hook


def per_head(projection: nn.Module, z: Tensor) -> Tensor:
    """What each head adds: z (row, position, head, d_head) -> (row, position, head, d_model), without the bias.

    The projection itself is run on one head at a time, so a quantised or adapted one is right too.
    """
    rows, positions, heads, width = z.shape
    alone = z.new_zeros(rows * positions, heads, heads, width)
    index = torch.arange(heads, device=z.device)
    alone[:, index, index] = z.reshape(rows * positions, heads, width)
    alone = alone.view(rows * positions, heads, heads * width)
    bias = projection(torch.zeros_like(alone[:1, :1]))
    return (projection(alone) - bias).view(rows, positions, heads, -1)
