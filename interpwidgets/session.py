"""Session: a live model you can ask; the only door to the engine.

How it reads prompts is in `reading.py`, how it answers in `asking.py`.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .asking import Asker, tensors
from .engine.architecture import UnsupportedModel
from .engine.cache import Cache
from .engine.check import Check, check
from .engine.engine import Engine
from .engine.executor import Executor
from .engine.finite import NotFinite, require_finite, require_finite_anywhere
from .engine.forward import Edit, Enough, ForwardPass
from .engine.gradient import NoGradient, Recorded, gradients, record
from .engine.interventions import Intervention
from .engine.jobs import Worker, check_cancelled
from .engine.limits import Context
from .engine.memory import BudgetWarning, Memory, NotEnoughMemory, explained, free_memory, storages
from .engine.metrics import StandardMetric
from .engine.plan import Plan
from .engine.prompts import SourceTarget
from .engine.ready import require_fit, require_model
from .engine.request import SweepRequest
from .engine.sites import Index, Site, resolve
from .engine.sweep import Metric, Partial, Prefix, Progress, Sweep, SweepResult
from .experiments import Experiments, checked
from .reading import n_rows
from .run import Run
from .tokens import Tokens

_FEW = 24
"""Tokens; reading the weights takes a pass as long as computing so many."""


class NoEffectWarning(UserWarning):
    """An intervention changed nothing at all."""


class NotFiniteWarning(UserWarning):
    """Some rows of a sweep have no finite value."""


class Session(Asker):
    """A live transformer language model that answers questions.

    The model is used as it is: nothing in it is replaced, folded or renamed, and calls of your own are not
    affected. Prompts are text (as the tokenizer makes it; `prepend_bos` True or False adds or drops BOS), token
    ids, or a list of either. Without a tokenizer, prompts and answers are token ids. Of a model with an encoder,
    a prompt is what the encoder reads, or a `SourceTarget`.

    Raises UnsupportedModel if the model's parts cannot be found or what would be shown is not what the model
    computes; NotFinite if its logits are not finite; TypeError or ValueError for what is no model with its weights
    loaded, or not this model's tokenizer.

    Example: `session = iw.Session(model, tokenizer); session.run("Hello", capture=["pattern"])["pattern"]`
    """

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
        # One for all widgets: two threads that each hold one widget and want the other would wait for ever.
        self.publishing = threading.RLock()
        self.executor: Executor | None = None
        """Where sweeps run (see `engine/executor.py`); None: here."""
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
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list | tuple | SourceTarget):
            return [self.run(p, capture, interventions) for p in prompt]
        tokens = self.tokenize(prompt)
        run = self.ask(tokens, _sites(capture), _interventions(interventions), all_logits=True, resume=False)
        for i in run.idle:
            warnings.warn(f"{run.interventions[i]!r} changed nothing on this prompt", NoEffectWarning, stacklevel=2)
        if run.nbytes > self._budget:
            have, budget = run.nbytes / 2**20, self._budget / 2**20
            said = f"this run holds {have:,.1f} MiB, more than the memory_budget of {budget:,.1f} MiB"
            warnings.warn(f"{said}: capture fewer sites, layers or positions", BudgetWarning, stacklevel=2)
        return run

    def prefix(self, prompt: Any, length: int, interventions: tuple[Intervention, ...] = ()) -> Prefix:
        """Keys and values of the first positions of a prompt's run, for sweeps to share."""
        run = self.ask(self.tokenize(prompt), (Site("k"), Site("v")), interventions)
        return _prefix(run, self.engine.architecture.n_layers, length)

    def sweep(
        self,
        prompt: Any,
        rows: Sequence[Sequence[Intervention]],
        metric: Metric,
        *,
        interventions: Sequence[Intervention] = (),
        answer_position: int | None = None,
        prefix: int = 0,
        progress: Progress | None = None,
        partial: Partial | None = None,
        priority: Sequence[float] = (),
    ) -> SweepResult:
        """Run many experiments on one prompt in one forward pass (see `engine/sweep.py`).

        Each row is a list of interventions, tried on its own on top of `interventions`, under which the rows'
        sources are read too. `metric` maps the logits at `answer_position` (by default the session's for this prompt),
        (row, token), to one number a row.
        `progress(done, total)` counts rows; `partial(values)` receives the values so far, NaN where not known yet.
        The first `prefix` positions, where the caller knows them to be the same in all rows, are computed once. Rows of
        one pass take at most what results leave of `memory_budget`; more are split over passes. If a pass runs out of
        memory all the same, the sweep goes on with half the rows a pass; if that does too, it raises NotEnoughMemory.
        Of several passes, those with rows of the highest `priority`, one number a row, come first.
        Where `executor` is set it runs there, and the metric must be data (`iw.LogitDifference`, ...), not a function.
        """
        self._require_ready()
        tokens = self.tokenize(prompt)
        acting, checked_rows = _interventions(interventions), tuple(_interventions(row) for row in rows)
        at = self._answer_position(tokens, answer_position)
        request = SweepRequest(
            tokens, checked_rows, metric, acting, at, prefix, streams=partial is not None, priority=tuple(priority)
        )
        if self.executor is None:
            result = self.execute(request, progress=progress, partial=partial)
        else:
            spelled = request.in_ids(lambda prompt: self.tokenize(prompt).prompt)
            result = self.executor.execute(spelled, progress=progress, partial=partial)
        if not np.isfinite(result.base):
            self.ask(tokens, interventions=acting)  # says where it begins
        bad = np.flatnonzero(~np.isfinite(result.values)).tolist()
        if bad:
            try:
                self.ask(tokens, interventions=(*acting, *checked_rows[bad[0]]))
            except NotFinite as error:
                said = f"{len(bad)} of {len(rows)} rows have no finite value. Of the first, {error}"
                warnings.warn(said, NotFiniteWarning, stacklevel=2)
        return result

    def execute(
        self, request: SweepRequest, *, progress: Progress | None = None, partial: Partial | None = None
    ) -> SweepResult:
        """Run a sweep that is given as data, here; `sweep` makes the request, and a worker is given one.

        Raises ValueError for a metric of tokens that the model does not have, and as `sweep`.
        """
        self._require_ready()
        if isinstance(request.metric, StandardMetric):
            request.metric.require_vocabulary(self.engine.architecture.n_vocab)
        with self.engine.lock:
            whole = self._sweep(
                self.tokenize(request.prompt), request.rows, request.interventions, request.answer_position,
                request.prefix,
            )  # fmt: skip
            budget = self._budget - self._results.held
            return whole.run(
                request.metric, budget=budget, check=check_cancelled, progress=progress, partial=partial,
                priority=request.priority,
            )  # fmt: skip

    def gradient(
        self, prompt: Any, site: str, layer: int, metric: Metric, interventions: Sequence[Intervention] = ()
    ) -> Tensor:
        """The metric's gradient at one site and layer, (position, [head,] width); as `gradients`, for one layer."""
        (found,) = self.gradients(prompt, site, metric, interventions, layer=layer).values()
        return found

    def gradients(
        self,
        prompt: Any,
        site: str,
        metric: Metric,
        interventions: Sequence[Intervention] = (),
        *,
        layer: Index = None,
        answer_position: int | None = None,
        prefix: Prefix | None = None,
    ) -> dict[int, Tensor]:
        """The metric's gradient at a site of all its layers, (position, [head,] width) each, from one backward pass.

        `layer` chooses some. The rest is as in `sweep`; positions of a `prefix` (`Session.prefix` of the same prompt)
        are not computed again, and have 0.
        Raises NoGradient where autograd cannot follow the model (weights in integers, kernels without a backward);
        NotEnoughMemory if what it would keep is more than results leave of `memory_budget`.
        """
        self._require_ready()
        tokens = self.tokenize(prompt)
        acting, at = _interventions(interventions), self._answer_position(tokens, answer_position)
        layers = [i for i in self.engine.layers(site, layer) if i is not None]
        with self.engine.lock:
            whole = replace(self._sweep(tokens, [], acting, at, 0), prefix=prefix)
            budget = self._budget - self._results.held
            places = [(site, i) for i in layers]
            found = gradients(whole, places, metric, budget, check_cancelled)
        return {i: found[site, i] for i in layers}

    def record(self, base: Tokens, source: Tokens, site: str, shared: int) -> Recorded | None:
        """Run two prompts whose first `shared` tokens are the same, and keep the way back to a site of the first one.

        Their runs are kept with the site, keys and values, so that `ask` finds them. None where nothing is to be
        saved, for the base's run is known or would not be kept, and where autograd or the budget does not allow it.
        """
        self._require_ready()
        sites = (Site(site), Site("k"), Site("v"))
        places = [(each, i) for each in sites for i in self.engine.layers(each.name, None) if i is not None]
        named = [(each.name, i) for each, i in places]
        length, at = min(shared, len(base) - 1), len(base) - 1
        with self.engine.lock:
            weights = self.engine.version()
            if weights is None or self._known(base, sites, (), weights) is not None:
                return None
            known = self._known(source, sites, (), weights)
            # In a pass of few tokens the weights are what is waited for, so that one pass of both prompts is best.
            together = known is None and len(base) <= _FEW
            if together:
                sweep = Sweep(self.engine, tensors([source])[0], [self._begins_as(base, length)], at)
            else:
                known = known or self.ask(source, sites)
                prefix = _prefix(known, self.engine.architecture.n_layers, length)
                sweep = Sweep(self.engine, tensors([base])[0], [], at, prefix=prefix)
            row, budget = int(together), self._budget - self._results.held
            try:
                found = record(sweep, [p for p in named if p[0] == site], budget, check_cancelled, named, row)
            except (NoGradient, NotEnoughMemory):
                return None
            logits = found.logits()

            def keep(tokens: Tokens, row: int, shared: Run | None) -> Run:
                require_finite(logits[row], self.engine, *tensors([tokens]), [], ())
                captured: dict[Site, dict[int | None, Tensor]] = {each: {} for each in sites}
                for each, i in places:
                    own = found.value(each.name, i, row)
                    captured[each][i] = (
                        own if shared is None else torch.cat([shared.tensor(each.name, i)[:length], own])
                    )
                run = Run(tokens, (), logits[row], captured, (), self._n_heads(), at, {})
                if weights == self.engine.version():
                    self._results.put((tokens.prompt, (), weights, sites, (), False, True), run, run.nbytes)
                return run

            keep(base, row, known or keep(source, 0, None))
            return found

    def _begins_as(self, tokens: Tokens, first: int) -> list[Edit]:
        """What makes a run that of other tokens from position `first` on: their stream, where it enters block 0."""
        forward = ForwardPass(self.engine, capture={("resid_pre", 0)}, until=0)
        with suppress(Enough):
            self.engine.run(tensors([tokens])[0], forward, use_cache=False, **self.engine.last_logits_only)
        stream = forward.captured["resid_pre", 0][0]
        positions = list(range(first, len(tokens)))
        return [Edit("resid_pre", 0, lambda old, at, head: stream[list(at)].to(old).expand_as(old), None, positions)]

    def plan(
        self,
        prompt: Any,
        rows: Sequence[Sequence[Intervention]],
        *,
        interventions: Sequence[Intervention] = (),
        answer_position: int | None = None,
        prefix: int = 0,
    ) -> Plan:
        """What `sweep` with these arguments will compute: passes, rows, tokens, FLOPs and bytes, each and in all.

        Only what the rows patch in is run, and kept for the sweep. Example: `print(session.plan(prompt, rows))`
        """
        self._require_ready()
        acting, checked_rows = _interventions(interventions), [_interventions(row) for row in rows]
        with self.engine.lock:
            tokens = self.tokenize(prompt)
            whole = self._sweep(tokens, checked_rows, acting, self._answer_position(tokens, answer_position), prefix)
            return whole.plan(self._budget - self._results.held)

    def _sweep(
        self,
        tokens: Tokens,
        rows: Sequence[tuple[Intervention, ...]],
        acting: tuple[Intervention, ...],
        answer_position: int,
        prefix: int,
    ) -> Sweep:
        (at,) = resolve(answer_position, len(tokens), "answer_position")
        if not 0 <= prefix <= len(tokens):
            raise ValueError(f"prefix={prefix}: the prompt has {len(tokens)} tokens")
        shared = min(prefix, at) if self.causal and self.checked.one_pass else 0  # the answer's is computed in each row
        base = self._edits(tokens, acting, self.read(tokens))
        read = self.read(tokens, acting, whole=True)
        edits = [self._edits(tokens, row, read) for row in rows]
        ids, source = tensors([tokens])
        kept = self.prefix(tokens, shared, acting) if shared else None
        return Sweep(self.engine, ids, edits, at, base, kept, self.checked.one_pass, source)

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
        acting = _interventions(interventions)
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


def _prefix(run: Run, n_layers: int, length: int) -> Prefix:
    keys, values = ([run.tensor(s, i)[:length].transpose(0, 1) for i in range(n_layers)] for s in ("k", "v"))
    return Prefix(keys, values, length)


def _sites(capture: Any) -> tuple[Site, ...]:
    several = (capture,) if isinstance(capture, str | Site) else capture
    if not isinstance(several, Iterable):
        raise TypeError(
            f"capture={capture!r}: site names or iw.Site(...) are needed, such as ['resid_post', 'pattern']"
        )
    return tuple(s if isinstance(s, Site) else Site(s) for s in several)


def _interventions(given: Any) -> tuple[Intervention, ...]:
    if isinstance(given, Intervention):
        raise TypeError(f"interventions={given!r}: a list of interventions is needed, [{given!r}]")
    return tuple(checked(i) for i in given)


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
    path = getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
    return path.rstrip("/").rsplit("/", 1)[-1]
