"""Session: a live model you can ask; the only door to the engine.

How it reads prompts is in `reading.py`, how it answers in `asking.py`, sweeps in `sweeping.py`, gradients in
`differentiating.py`.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .asking import tensors
from .differentiating import Differentiator
from .engine.architecture import UnsupportedModel
from .engine.cache import Cache
from .engine.check import Check, check
from .engine.engine import Engine
from .engine.finite import require_finite, require_finite_anywhere
from .engine.forward import ForwardPass
from .engine.interventions import Intervention
from .engine.jobs import Worker, check_cancelled
from .engine.limits import Context
from .engine.memory import BudgetWarning, Memory, explained, free_memory, storages
from .engine.prompts import SourceTarget, is_prompt
from .engine.ready import require_fit, require_model
from .engine.sites import Site
from .experiments import Experiments
from .reading import n_rows
from .run import Run
from .sweeping import interventions_of
from .tokens import Tokens


class NoEffectWarning(UserWarning):
    """An intervention changed nothing at all."""


class Session(Differentiator):
    """A live transformer language model that answers questions.

    The model is used as it is: nothing in it is replaced, folded or renamed, and calls of your own are not
    affected. Prompts are text (as the tokenizer makes it; `prepend_bos` True or False adds or drops BOS), token
    ids, the `tokens` of a run, or a list of these. Without a tokenizer, prompts and answers are token ids. Of a model
    with an encoder, a prompt is what the encoder reads, or a `SourceTarget`.

    Raises UnsupportedModel if the model's parts cannot be found or what would be shown is not what the model
    computes; NotFinite if its logits are not finite; TypeError or ValueError for what is no model with its weights
    loaded, or not this model's tokenizer.

    Example: `session = iw.Session(model, tokenizer); session.run("Hello", capture=["pattern"])["pattern"]`
    """

    # One for all widgets of all sessions: two threads that each hold one and want the other's, as linked widgets do,
    # would wait for ever.
    publishing = threading.RLock()
    _opened: ClassVar[weakref.WeakValueDictionary[int, Session]] = weakref.WeakValueDictionary()
    _numbers: ClassVar[Iterator[int]] = count()

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        require_model(model)
        require_fit(tokenizer, n_rows(model))
        self.model = model
        self.tokenizer = tokenizer
        self._closed = False
        self._require_ready()
        self.prepend_bos: bool | None = None
        self.opened_by: str | None = None
        """The Python that opens a session like this one; None if it was made of a model that was there."""
        self.prepends_bos_when_opened: bool | None = None
        self.name = _name(model)
        self.note = ""
        self._budget = free_memory(next(model.parameters()).device) // 4
        self.worker = Worker()
        self.executor = None
        self.interventions = Experiments()
        """Interventions that act in every linked widget of this session; an observable list."""
        self.widgets: weakref.WeakSet[Any] = weakref.WeakSet()
        self._results: Cache[Run] = Cache(self._budget // 2)
        self._hold = object()
        try:
            try:
                self.engine = Engine.of(model, self._hold)
            except UnsupportedModel:
                require_finite_anywhere(model)  # sums of NaN add up to nothing
                raise
            self.context = Context.of(model)
            self.checked: Check = check(self.engine)
            # For a session that is deleted without being closed.
            weakref.finalize(self, _let_go, self.worker, self.engine, self._hold).atexit = False
        except BaseException:  # an interrupt must not leave our hooks either
            Engine.release(model, self._hold)
            raise
        self._opened[next(self._numbers)] = self

    def check(self) -> Check:
        """Prove again that what is shown is what the model computes; raises UnsupportedModel if it is not."""
        self._require_ready()
        self.checked = check(self.engine)
        return self.checked

    def close(self) -> None:
        """Close the session's widgets, end its worker and take our hooks out of the model. It runs no more."""
        self._closed = True
        for widget in list(self.widgets):
            widget.close()
        self._results.clear()
        _let_go(self.worker, self.engine, self._hold)

    @property
    def memory_budget(self) -> int:
        """Bytes for kept results and sweeps together; at first a quarter of what was free where the model computes.

        Half of it is for results; a sweep splits itself into passes that take what they leave over.
        """
        return self._budget

    @memory_budget.setter
    def memory_budget(self, size: int) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"memory_budget={size!r}: a positive number of bytes is needed, such as 2 * 2**30")
        self._budget = size
        self._results.resize(size // 2)

    def memory(self) -> Memory:
        """What is held now, and for what, in bytes; `print(session.memory())` shows a table."""
        results = storages(t for run in self._results.values() for t in run.tensors())
        shown = storages(t for widget in list(self.widgets) for run in widget.runs() for t in run.tensors())
        return Memory(
            budget=self._budget,
            results=sum(results.values()),
            widgets=sum(size for address, size in shown.items() if address not in results),
            model=sum(storages(t for t in (*self.model.parameters(), *self.model.buffers())).values()),
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        a = self.engine.architecture
        return f"Session({self.name}, {a.n_layers} layers, {max(a.n_heads)} heads, {self.engine.dtype_name})"

    def run(
        self,
        prompt: Any,
        capture: Iterable[str | Site] | str | Site = (),
        interventions: Iterable[Intervention] = (),
    ) -> Any:
        """Run the model once and keep what was asked for.

        `capture`: site names or `Site`s. `interventions`: act in the order in which the pass reaches their sites,
        at the same site in the order given; captures see the value after them. Gives a `Run`; for a list of
        prompts, a list. Warns of an intervention that changed nothing (NoEffectWarning), and of captures that are more
        than `memory_budget` by themselves (BudgetWarning): a run is what was asked for, and is not split.
        """
        if isinstance(prompt, list) and prompt and is_prompt(prompt[0]):
            return [self.run(p, capture, interventions) for p in prompt]
        tokens = self.tokenize(prompt)
        run = self.ask(tokens, _sites(capture), interventions_of(interventions), all_logits=True, resume=False)
        for i in run.idle:
            warnings.warn(f"{run.interventions[i]!r} changed nothing on this prompt", NoEffectWarning, stacklevel=2)
        if run.nbytes > self._budget:
            have, budget = run.nbytes / 2**20, self._budget / 2**20
            said = f"this run holds {have:,.1f} MiB, more than the memory_budget of {budget:,.1f} MiB"
            warnings.warn(f"{said}: capture fewer sites, layers or positions", BudgetWarning, stacklevel=2)
        return run

    def generate(self, prompt: Any, max_new_tokens: int = 20, interventions: Iterable[Intervention] = ()) -> Tokens:
        """Continue a prompt greedily; the interventions act at every step.

        An intervention without positions also acts on the tokens that are generated; one with positions acts on those
        of the prompt. Gives the whole sequence, prompt first. Equals `model.generate(do_sample=False, num_beams=1)`.
        """
        self._require_ready()
        if not self.causal:
            raise ValueError(f"{self.name} fills in masked tokens and cannot continue a prompt")
        if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens!r}: a positive number is needed")
        tokens = self.tokenize(prompt)
        asked = f"{len(tokens)} tokens of prompt and {max_new_tokens} to generate"
        read = len(tokens) + max_new_tokens - 1  # the last token is given out, and not read again
        self.context.require(read, f"{asked} take {read} positions")
        ids, source = tensors([tokens])
        acting = interventions_of(interventions)
        edits = self._edits(tokens, acting, self.read(tokens))
        forward = _Generation(self.engine, source, edits=edits, check=check_cancelled)

        def watch(so_far: Tensor, logits: Tensor) -> Tensor:
            require_finite(logits, self.engine, so_far, source, edits, acting)
            return logits

        inputs = self.engine.inputs(ids, forward)

        def call() -> Tensor:
            return self.model.generate(  # type: ignore[operator]
                **inputs, attention_mask=torch.ones_like(inputs["input_ids"]), do_sample=False, num_beams=1,
                max_new_tokens=max_new_tokens, logits_processor=[watch],
            )  # fmt: skip

        with explained(asked, "Generate fewer, or shorten the prompt."):
            out = self.engine.inside(forward, call)
        written = tuple(out[0].tolist())
        return self._tokens(written if tokens.source is None else SourceTarget(tokens.source.ids, written))


def find_session(name: str, dtype: str | None = None) -> Session | None:
    """The session that is open in this process on a model of this name, of several the newest; None if there is none.

    `name` is what `session.name` says, or the id or folder that the model was loaded from; `dtype`, such as "bfloat16",
    is what it computes in, if that matters. The code of a widget begins with this, so that widgets that are rebuilt one
    after the other share one session.

    Example: `session = iw.find_session("gpt2", "float32") or iw.load("gpt2")`
    """
    open_now = [session for session in list(Session._opened.values()) if not session._closed]
    fitting = [s for s in open_now if name in (s.name, _source(s.model)) and dtype in (None, s.engine.dtype_name)]
    return fitting[-1] if fitting else None


def name_to_find(session: Session) -> str:
    """The name of a session's model for `find_session`: two folders may have one name, and are two models."""
    renamed = session.name != _name(session.model)
    return session.name if renamed else _source(session.model) or session.name


def _sites(capture: Any) -> tuple[Site, ...]:
    several = (capture,) if isinstance(capture, str | Site) else capture
    if not isinstance(several, Iterable):
        raise TypeError(
            f"capture={capture!r}: site names or iw.Site(...) are needed, such as ['resid_post', 'pattern']"
        )
    return tuple(s if isinstance(s, Site) else Site(s) for s in several)


class _Generation(ForwardPass):
    """A pass that lasts over the steps of a generation: it counts the positions that have gone by."""

    _seen = 0

    def wants(self, site: str, layer: int | None) -> bool:
        return site == "embed" or super().wants(site, layer)

    def visit(self, site: str, layer: int | None, x: Tensor) -> Tensor:
        if site == "embed":
            self.start, self.engine.length = self._seen, x.shape[1]
            self._seen += x.shape[1]
        return super().visit(site, layer, x)


def _let_go(worker: Worker, engine: Engine, hold: object) -> None:
    worker.close()
    engine.close(hold)


def _name(model: nn.Module) -> str:
    return (_source(model) or type(model).__name__).rstrip("/").rsplit("/", 1)[-1]


def _source(model: nn.Module) -> str:
    """The id or folder that a model was loaded from; empty if it was not."""
    return getattr(getattr(model, "config", None), "_name_or_path", "") or ""
