"""One forward pass with captures and interventions; the hooks are installed once and inert outside of it."""

from __future__ import annotations

import inspect
import operator
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .architecture import Architecture, Block, discover
from .attention import Implementation
from .context import current_pass, inside, without_gradients
from .direct import DirectAttention
from .hooks import Hooks
from .sites import HEAD_SITES, SITES
from .version import Versions, modules

T = TypeVar("T")

Write = Callable[[Tensor, list[int], int | None], Tensor]
"""(addressed part (row, position, [head,] width), its absolute positions, its head) -> what to write there."""


class _BeforeUnembedding(Exception):
    """Leaves a pass whose caller wants some tokens' logits only; carries what would have been unembedded."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Cancelled(Exception):
    """The pass was stopped between two blocks because a newer request came or the user pressed Stop."""


@dataclass(eq=False)
class Edit:
    """One intervention at one site of one layer, ready to run."""

    site: str
    layer: int | None
    write: Write
    heads: list[int] | None = None
    positions: list[int] | None = None  # absolute; None for all, also those that are generated later
    row: int | None = None  # None for every row of the batch
    owner: int = 0  # index of the intervention that it came from
    changed: Tensor | float = 0.0  # largest |difference| that it made


class ForwardPass:
    """What one forward pass captures and edits. Values are viewed as (row, position, [head,] width) everywhere.

    `start` is the absolute position of the first position that is computed (those before it come from a cache).
    `grow` says how many rows, copies of row 0, join the batch at each block.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        edits: list[Edit] | None = None,
        capture: set[tuple[str, int | None]] | None = None,
        start: int = 0,
        grow: dict[int, int] | None = None,
        check: Callable[[], None] | None = None,
        on_block: Callable[[int], None] | None = None,
        watch: bool = False,
        unembed: bool = True,
    ) -> None:
        self.engine = engine
        self.start = start
        self.rows = 1
        self.attending: int | None = None
        self.captured: dict[tuple[str, int | None], Tensor] = {}
        self._capture = capture or set()
        self._edits: dict[tuple[str, int | None], list[Edit]] = {}
        for edit in edits or []:
            self._edits.setdefault((edit.site, edit.layer), []).append(edit)
        self._grow = grow or {}
        self._check = check
        self._on_block = on_block
        self._watch = watch
        self.unembed = unembed

    @property
    def length(self) -> int:
        return self.engine.length

    @property
    def listens(self) -> bool:
        """Whether anything is asked of attention that only torch's own calls show."""
        direct = self.engine.direct_layers
        return any(layer in direct for site, layer in (*self._capture, *self._edits) if site in HEAD_SITES)

    def attention_layer(self, module: nn.Module) -> int | None:
        return self.engine.attention_layers.get(id(module))

    def wants(self, site: str, layer: int | None) -> bool:
        return (site, layer) in self._capture or (site, layer) in self._edits

    def enter_block(self, layer: int, x: Tensor) -> Tensor:
        if self._check is not None:
            self._check()
        if self._on_block is not None:
            self._on_block(layer)
        self.rows = x.shape[0]
        new = self._grow.get(layer, 0)
        if new:
            x = torch.cat([x, x[:1].expand(new, *x.shape[1:])])
            self.rows = x.shape[0]
        return self.visit("resid_pre", layer, x)

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        """Edit and capture the value of a site; gives back the value that the model goes on with."""
        edits = self._edits.get((site, layer))
        if edits:
            x = x.clone()
            view = _standard(site, x, self.rows)
            # Keys and values hold the cached positions too, the readout perhaps the last position only.
            offset = self.start + self.engine.length - view.shape[1]
            for edit in edits:
                self._apply(edit, view, offset)
        if (site, layer) in self._capture:
            self.captured[site, layer] = _standard(site, x, self.rows)[0].detach().clone()
        return x

    def _apply(self, edit: Edit, view: Tensor, offset: int) -> None:
        if edit.row is not None:
            view = view[edit.row : edit.row + 1]
        positions = range(offset, offset + view.shape[1])
        local: slice | list[int] = slice(None)
        absolute = list(positions)
        if edit.positions is not None:
            absolute = [p for p in edit.positions if p in positions]
            if not absolute:
                return
            first, last = absolute[0] - offset, absolute[-1] - offset
            consecutive = absolute == list(range(absolute[0], absolute[-1] + 1))
            local = slice(first, last + 1) if consecutive else [p - offset for p in absolute]
        for head in edit.heads if edit.heads is not None else [None]:
            at = (slice(None), local) if head is None else (slice(None), local, slice(head, head + 1))
            old = view[at]
            new = edit.write(old, absolute, head).to(view.dtype)
            if self._watch:
                change = (new - old).abs().nan_to_num(0.0, posinf=torch.inf).max()
                edit.changed = torch.maximum(torch.as_tensor(edit.changed, device=change.device), change)
            view[at] = new


def _standard(site: str, x: Tensor, rows: int) -> Tensor:
    """View a site's raw tensor as (row, position, [head,] width); for scores and pattern, (row, query, head, key)."""
    if site in ("q", "k", "v", "scores", "pattern"):
        return x.transpose(1, 2)
    if x.dim() == 2:  # positions flattened into the batch, as in OPT's MLP
        return x.view(rows, -1, x.shape[-1])
    return x


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
        self._holders: set[object] = set()
        self._hooks = Hooks()
        self._versions = Versions(model)
        self._modules: list[nn.Module] = []
        self.probe = probe(model)

    def _open(self) -> None:
        if self._modules:
            return
        found = discover(self.model, self.implementation, self.probe)
        self.architecture: Architecture = found
        self.attention_layers = {id(b.attention): layer for layer, b in enumerate(found.blocks) if b.kind == "registry"}
        kinds = enumerate(b.kind for b in self.architecture.blocks)
        self.direct_layers = {layer for layer, kind in kinds if kind in ("sdpa", "softmax")}
        self._install()
        self._modules = list(modules(self.model))

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

    def sites(self, layer: int) -> list[str]:
        """The canonical sites that this layer has."""
        block = self.architecture.blocks[layer]
        has = {
            "attn_out": block.attn_out, "resid_mid": block.after_mid, "mlp_out": block.mlp_out,
            "mlp_pre": block.activation, "mlp_post": block.down,
            "result": block.projection,
        }  # fmt: skip
        heads = dict.fromkeys(HEAD_SITES, block.attention)
        if block.kind == "softmax":  # torch's softmax shows the weights; q, k and v went by unseen
            heads |= {"q": None, "k": None, "v": None, "z": block.projection}
        return [s for s in SITES if SITES[s].per_layer and (has | heads).get(s, block.module) is not None]

    def inside(self, forward: ForwardPass, call: Callable[[], T]) -> T:
        """Call the model with `forward` as the pass that this thread is inside of. Raises RuntimeError once closed."""
        with self.lock:
            self._require_open()
            length = self.length
            try:
                result = inside(forward, self.implementation, self._listening(call) if forward.listens else call)
            finally:
                self.length = length  # of the pass around this one: a hook of the user's may run the session
            self._require_open()
            return result

    @staticmethod
    def _listening(call: Callable[[], T]) -> Callable[[], T]:
        def listen() -> T:
            with DirectAttention():
                return call()

        return listen

    def _require_open(self) -> None:
        if self.closed:
            raise RuntimeError("this session is closed: make a new Session to go on")

    def run(self, ids: Tensor, forward: ForwardPass, **arguments: Any) -> Tensor:
        """Run the model on (row, position) ids inside `forward`; gives the logits."""

        def call() -> Tensor:
            forward.rows = ids.shape[0]
            self.length = ids.shape[1]
            return self.model(input_ids=ids.to(self.device), **arguments).logits

        return self.inside(forward, call)

    def run_for_tokens(self, ids: Tensor, forward: ForwardPass, tokens: list[int], **arguments: Any) -> Tensor:
        """`run`, but only these tokens' logits (row, position, token) are computed, if the unembedding allows it."""
        head = self.architecture.readout.unembedding
        # A wrapped forward or a hook of the user's does what the weight alone does not say.
        if type(head) is not nn.Linear or "forward" in vars(head) or not self._hooks.are_all_on(head):
            return self.run(ids, forward, **arguments)[..., tokens]
        forward.unembed = False
        try:
            self.run(ids, forward, **arguments)
        except _BeforeUnembedding as reached:
            x, bias = reached.x, None if head.bias is None else head.bias.detach()[tokens]
            return self.architecture.readout.finish(nn.functional.linear(x, head.weight.detach()[tokens], bias))
        raise RuntimeError("the model did not reach its unembedding")

    def readout(self, residual: Tensor, check: Callable[[], None] | None = None) -> Tensor:
        """Final norm (each vector by its own statistics), unembedding, soft cap and scale of (..., d_model)."""
        if check is not None:
            check()

        return without_gradients(lambda: self.architecture.readout(residual))

    def _install(self) -> None:
        architecture = self.architecture
        self._after(architecture.embedding, "embed", None)
        for layer, block in enumerate(architecture.blocks):
            self._install_block(layer, block)
        if architecture.readout.unembedding is not None:
            self._before(architecture.readout.unembedding, "ln_final", None)
            self._leave_early(architecture.readout.unembedding)

    def _install_block(self, layer: int, block: Block) -> None:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
            running = self._mine()
            if running is None or kwargs is None:
                return None
            if args:
                return (running.enter_block(layer, args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": running.enter_block(layer, kwargs["hidden_states"])}

        self._hooks.before(block.module, enter, with_kwargs=True)
        self._after(block.module, "resid_post", layer)
        if block.projection is not None:
            self._hooks.after(block.projection, self._result(layer))
        if block.attention is not None and block.kind != "registry":
            self._attend(layer, block.attention)
        if block.projection is not None and block.kind == "softmax":
            self._hooks.before(block.projection, self._heads_side_by_side(layer))
        if block.attn_out is not None:
            self._after(block.attn_out, "attn_out", layer, block.attn_scale)
        if block.mlp_out is not None:
            self._after(block.mlp_out, "mlp_out", layer, block.mlp_scale)
        for module, site in ((block.activation, "mlp_pre"), (block.down, "mlp_post")):
            if module is not None:
                self._before(module, site, layer)
        if block.after_mid is not None:
            self._hooks.before(block.after_mid, self._middle(layer), with_kwargs=True)

    def _leave_early(self, module: nn.Module) -> None:
        # Hooks are plain functions: a user's deepcopy of the model copies bound methods, and with them all of this.
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            running = self._mine()
            if running is not None and not running.unembed:
                raise _BeforeUnembedding(args[0])

        self._hooks.before(module, hook)

    def _mine(self) -> ForwardPass | None:
        running = current_pass.get()
        return running if isinstance(running, ForwardPass) and running.engine is self else None

    def _attend(self, layer: int, module: nn.Module) -> None:
        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            if (running := self._mine()) is not None:
                running.attending = layer

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if (running := self._mine()) is not None:
                running.attending = None

        self._hooks.before(module, enter)
        self._hooks.after(module, leave)

    def _heads_side_by_side(self, layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
            running = self._mine()
            if running is None or not running.wants("z", layer):
                return None
            z = args[0].view(running.rows, -1, self.architecture.n_heads[layer], self.architecture.d_head[layer])
            return (running.visit("z", layer, z).view(args[0].shape), *args[1:])

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

    def _middle(self, layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
            running = self._mine()
            if running is None or kwargs is None or not running.wants("resid_mid", layer):
                return
            stream = args[0] if args else kwargs["hidden_states"]
            # In place: the block adds the MLP's output to this very tensor, which only it holds.
            stream.copy_(running.visit("resid_mid", layer, stream))

        return hook

    def _result(self, layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            running = self._mine()
            if running is None or not running.wants("result", layer):
                return None
            heads = self.architecture.n_heads[layer]
            z = args[0].view(running.rows, -1, heads, args[0].shape[-1] // heads)  # (row, position, head, d_head)
            token = current_pass.set(None)
            try:
                old = per_head(module, z)
            finally:
                current_pass.reset(token)
            new = running.visit("result", layer, old)
            return None if new is old else output + (new - old).sum(2).view(output.shape)

        return hook


def input_device(model: nn.Module) -> torch.device:
    """Where token ids go: where the embedding is, or where accelerate brings it from when it runs."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    device = embedding.weight.device
    brought = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    return torch.device(brought) if device.type == "meta" and brought is not None else device


def probe(model: nn.Module) -> Tensor:
    """Six tokens spread over the vocabulary, (1, position), on the model's device."""
    size = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    return (torch.arange(1, 7, device=input_device(model)) * (size // 7))[None]


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
