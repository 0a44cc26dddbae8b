"""Session and load(): a live model you can ask; the only door to the engine."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .engine.architecture import UnsupportedModel
from .engine.bins import Bins
from .engine.cache import Cache
from .engine.check import Check, check
from .engine.edits import Read, compile_edits
from .engine.engine import Engine
from .engine.executor import Executor
from .engine.finite import NotFinite, require_finite, require_finite_anywhere
from .engine.forward import Edit, Enough, ForwardPass
from .engine.gradient import gradients
from .engine.interventions import Intervention
from .engine.jobs import Worker, check_cancelled
from .engine.limits import Context
from .engine.memory import BudgetWarning, Memory, explained, free_memory, storages
from .engine.metrics import StandardMetric
from .engine.plan import Plan
from .engine.prompts import SourceTarget
from .engine.ready import require_fit, require_model, require_still
from .engine.request import SweepRequest
from .engine.resume import Resume, is_watched, shared_blocks
from .engine.sites import Index, Site, resolve
from .engine.sweep import Metric, Partial, Prefix, Progress, Sweep, SweepResult
from .experiments import Experiments, checked
from .run import NOTHING_MASKED, Run, covers, select
from .tokens import Tokens, bare_ids, display, one_token, tokenize, tokenize_pair, written_ids


class NoEffectWarning(UserWarning):
    """An intervention changed nothing at all."""


class NotFiniteWarning(UserWarning):
    """Some rows of a sweep have no finite value."""


class Session:
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
        require_fit(tokenizer, _n_rows(model))
        self.model = model
        self.tokenizer = tokenizer
        self._closed = False
        self._require_ready()
        self.prepend_bos: bool | None = None
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
            """How many positions the model can read."""
            self.checked: Check = check(self)
            # For a session that is deleted without being closed.
            weakref.finalize(self, _let_go, self.worker, self.engine, self._hold).atexit = False
        except BaseException:  # an interrupt must not leave our hooks either
            Engine.release(model, self._hold)
            raise

    def check(self) -> Check:
        """Prove again that what is shown is what the model computes; raises UnsupportedModel if it is not."""
        self._require_ready()
        self.checked = check(self)
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

    @property
    def causal(self) -> bool:
        """Whether positions depend on earlier ones only; a masked language model's depend on all."""
        return self.engine.causal

    def tokenize(self, prompt: Any) -> Tokens:
        """The tokens that a prompt really runs as.

        Raises TypeError or ValueError for what is not a prompt, or has more tokens than the model has positions; warns
        (ContextWarning) if it has more than the model was trained on.
        """
        if isinstance(prompt, Tokens):
            return prompt
        tokens = self._tokens(prompt)
        self.context.require(len(tokens), f"the prompt has {len(tokens)} tokens")
        if tokens.source is not None:
            self.context.require(len(tokens.source), f"the source has {len(tokens.source)} tokens")
        return tokens

    def _tokens(self, prompt: Any) -> Tokens:
        n_vocab = min(self.engine.architecture.n_vocab, _n_rows(self.model))
        if self.engine.has_encoder:
            return tokenize_pair(
                self.tokenizer, prompt, self.prepend_bos, _n_rows(self.model), n_vocab, self.engine.start_token
            )
        if isinstance(prompt, SourceTarget):
            raise TypeError(
                f"{self.name} has no encoder that reads a source: give the prompt as one text, not {prompt!r}"
            )
        return tokenize(self.tokenizer, prompt, self.prepend_bos, n_vocab)

    def text_ids(self, text: str) -> list[int]:
        """The ids of a piece of text, without special tokens; without a tokenizer, of ids written out."""
        return written_ids(text) if self.tokenizer is None else bare_ids(self.tokenizer, text)

    def tokenize_ids(self, ids: Sequence[int], source: Tokens | None = None) -> Tokens:
        """Token ids as a prompt; with their text, if that text would give the same ids again.

        With a `source`, what the decoder reads; raises ValueError if that does not begin with its start token.
        """
        if source is not None:
            start = self.engine.start_token
            if start is not None and ids[0] != start:
                raise ValueError(f"the decoder begins with {self.show_token(start)}: no other token can stand there")
            target = self.tokenize(SourceTarget(source.ids, tuple(ids)))
            if self.tokenizer is not None:
                text = self.tokenizer.decode(ids[1:], skip_special_tokens=True)
                written = self.tokenize(SourceTarget(source.ids, text))
                target = written if written.ids == target.ids else target
            return replace(target, source=source)
        tokens = self.tokenize(tuple(ids))
        if self.tokenizer is None:
            return tokens
        t = self.tokenizer
        bare = ids[1:] if ids[0] in (t.bos_token_id, t.cls_token_id) else ids
        bare = bare[:-1] if len(bare) and bare[-1] in (t.eos_token_id, t.sep_token_id) else bare
        from_text = self.tokenize(self.tokenizer.decode(bare)) if len(bare) else tokens
        return from_text if from_text.ids == tokens.ids else tokens

    def token_text(self, token_id: int) -> str:
        """A token as the tokenizer writes it; without a tokenizer, its id."""
        return str(token_id) if self.tokenizer is None else str(self.tokenizer.convert_ids_to_tokens(token_id))

    def show_token(self, token_id: int) -> str:
        """A token made visible: ␣ for a space, ↵ for a line end."""
        return display(self.tokenizer, [token_id])[0]

    def token_id(self, answer: str | int) -> int:
        """The id of an answer that is one token, given as text or id.

        Raises ValueError if the text is several tokens, showing them, or if the id is out of range.
        """
        if not isinstance(answer, str):
            n_vocab = self.engine.architecture.n_vocab
            if not hasattr(answer, "__index__"):
                raise TypeError(f"a token is text or an id, got {type(answer).__name__}: {answer!r}")
            if not 0 <= answer.__index__() < n_vocab:
                raise ValueError(f"token id {answer} is out of range: the vocabulary has ids 0 to {n_vocab - 1}")
            return answer.__index__()
        if self.tokenizer is None:
            raise TypeError(f"this session has no tokenizer: give the answer as a token id, not {answer!r}")
        return one_token(self.tokenizer, answer)

    def after_space(self, token_id: int) -> int | None:
        """The token of the same text with a space before it; None if there is none or the token begins with one."""
        text = "" if self.tokenizer is None else self.tokenizer.decode([token_id])
        if not text or text[0].isspace() or token_id in self.tokenizer.all_special_ids:
            return None
        ids = bare_ids(self.tokenizer, f" {text}")
        return ids[0] if len(ids) == 1 and ids[0] != token_id else None

    def answer_position(self, tokens: Tokens) -> int | None:
        """Where the answer to a prompt is read: at the last position, or where a masked language model's first mask is.

        None if nothing is masked.
        """
        if self.causal:
            return len(tokens) - 1
        return next((i for i, token in enumerate(tokens.ids) if self._is_mask(token)), None)

    def targets(self, tokens: Tokens) -> list[int | None]:
        """The token that each position is to predict: the next one, or itself in a masked language model.

        None where the prompt does not say: at the last position, or under a mask.
        """
        if self.causal:
            return [*tokens.ids[1:], None]
        return [None if self._is_mask(token) else token for token in tokens.ids]

    def _is_mask(self, token: int) -> bool:
        return self.tokenizer is not None and token == self.tokenizer.mask_token_id

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

    def ask(
        self,
        tokens: Tokens,
        sites: tuple[Site, ...] = (),
        interventions: tuple[Intervention, ...] = (),
        *,
        reduce: tuple[Bins, ...] = (),
        all_logits: bool = False,
        resume: bool = True,
    ) -> Run:
        """`run` for one prompt that is already tokenised, answered from the cache where it can be.

        `reduce`: patterns of which bins are kept, and not the whole. Unless `all_logits` is set, the run may hold the
        logits of the last position only. `resume`: it may go on from a kept run at the block where they differ, or run
        only the blocks of which a kept run lacks what is asked for, and so be off from a pass of its own by rounding.
        """
        return self.ask_all([tokens], sites, interventions, reduce=reduce, all_logits=all_logits, resume=resume)[0]

    def ask_all(
        self,
        prompts: Sequence[Tokens],
        sites: tuple[Site, ...] = (),
        interventions: tuple[Intervention, ...] = (),
        *,
        reduce: tuple[Bins, ...] = (),
        all_logits: bool = False,
        resume: bool = True,
    ) -> list[Run]:
        """`ask` for several prompts of the same length: those that are not in the cache share one pass."""
        all_logits |= not self.causal or any(site.name == "ln_final" for site in sites)
        self._require_ready()
        with self.engine.lock:
            weights = self.engine.version()

            def known(tokens: Tokens) -> Run | None:
                def suits(key: Any, run: Run) -> bool:
                    asked = (tokens.prompt, interventions, weights)
                    if key[:3] != asked or (all_logits and len(run._logits) < len(tokens)) or (key[-1] and not resume):
                        return False
                    return not self._lacking(run, sites, reduce)

                return self._results.find(suits) if weights is not None else None

            found = {tokens.prompt: known(tokens) for tokens in prompts}
            missing = list({tokens.prompt: tokens for tokens in prompts if found[tokens.prompt] is None}.values())
            # What two encoders read may differ in length.
            together = [missing] if not self.engine.has_encoder else [[tokens] for tokens in missing]
            if missing:
                alone = resume and len(missing) == 1
                base = self._base(missing[0], sites, reduce, interventions, all_logits, weights) if alone else None
                asked = sites, reduce, interventions, all_logits
                runs = [run for each in together for run in self._forward(each, *asked, base)]
                # Another thread may have edited the model in the middle of the run.
                keep = weights is not None and weights == self.engine.version()
                # Part of a kept run costs few blocks: a large one must not push whole runs out.
                part = base is not None and base.until < self.engine.architecture.n_layers - 1
                for run in runs:
                    found[run.tokens.prompt] = run
                    if keep and not (part and run.nbytes > self._results.budget // 16):
                        key = run.tokens.prompt, interventions, weights, sites, reduce, all_logits, base is not None
                        self._results.put(key, run, run.nbytes)
        return [self._answer(tokens, found[tokens.prompt], sites, reduce) for tokens in prompts]

    def _base(
        self,
        tokens: Tokens,
        sites: tuple[Site, ...],
        reduce: tuple[Bins, ...],
        interventions: tuple[Intervention, ...],
        all_logits: bool,
        weights: int | None,
    ) -> _Base | None:
        """The kept run from which this one has the fewest blocks to compute."""
        if not self.engine.resumes or weights is None:
            return None
        n_layers = self.engine.architecture.n_layers
        best = _Base(None, 0, n_layers - 1)
        for key, run in self._results.items():
            if (key[0], key[2]) != (tokens.prompt, weights):  # type: ignore[index]
                continue
            lacking = self._lacking(run, sites, reduce)
            layers = [i for i in lacking if i is not None]
            shared = shared_blocks(self.engine, interventions, run.interventions)
            begin, until = min([shared, n_layers - 1, *layers]), n_layers - 1
            answers = run.interventions == interventions and not (all_logits and len(run._logits) < len(tokens))
            if answers and None not in lacking and not is_watched(self.engine, n_layers):
                until = max(layers, default=until)
            if until - begin < best.until - best.begin and (not begin or self._stream(run, begin) is not None):
                best = _Base(run, begin, until)
        if best.run is None or is_watched(self.engine, best.begin):
            return None
        self._results.find(lambda _, run: run is best.run)  # used now: others go first
        return best

    def _stream(self, run: Run, block: int) -> Tensor | None:
        """What the block above gave to this one, (position, d_model), if the run holds it."""
        # What is captured has been through what acts there.
        there = (i for i in run.interventions if i.site == "resid_pre")
        if run.holds("resid_pre", block) and not any(block in self.engine.layers(i.site, i.layer) for i in there):
            return run.tensor("resid_pre", block)
        left = self.engine.passes_on and block and run.holds("resid_post", block - 1)
        return run.tensor("resid_post", block - 1) if left else None

    def _lacking(self, run: Run, sites: tuple[Site, ...], reduce: tuple[Bins, ...]) -> set[int | None]:
        """The layers of which a run does not hold all that is asked for; None is what is not of a layer."""
        absent = (site for site in sites if not any(covers(have, site) for have in run.captured))
        places = [(site.name, site.layer) for site in absent]
        places += [(bins.site, None) for bins in reduce if bins not in run.reduced]
        return {layer for site, index in places for layer in self.engine.layers(site, index)}

    def _answer(self, tokens: Tokens, found: Run | None, sites: tuple[Site, ...], reduce: tuple[Bins, ...]) -> Run:
        """A run as the answer to a prompt: the same ids may come from another text."""
        assert found is not None
        captured = {site: self._part(found, site) for site in sites}
        at = self.answer_position(tokens)
        reduced = {bins: found.reduced[bins] for bins in reduce}
        return Run(tokens, found.interventions, found._logits, captured, found.idle, self._n_heads(), at, reduced)

    def _forward(
        self,
        prompts: Sequence[Tokens],
        sites: tuple[Site, ...],
        reduce: tuple[Bins, ...],
        interventions: tuple[Intervention, ...],
        all_logits: bool,
        base: _Base | None,
    ) -> list[Run]:
        """Run the prompts in one pass; of one prompt, the blocks that a run does not know that is kept."""
        last = self.engine.architecture.n_layers - 1
        before, begin, until = (None, 0, last) if base is None else (base.run, base.begin, base.until)
        known_blocks = begin if until == last else last + 1
        stream = None if before is None or not begin else self._stream(before, begin)
        resume = None if stream is None else Resume(begin, stream)
        ids, source = _tensors(prompts)
        length = ids.shape[1]
        own = [self._edits(tokens, interventions, self.read(tokens)) for tokens in prompts]
        edits = [[replace(e, row=row) for e in each if not _is_above(begin, e.layer)] for row, each in enumerate(own)]
        wanted = {site: self.engine.layers(site.name, site.layer) for site in sites}
        capture = {(site.name, layer) for site, layers in wanted.items() for layer in layers}
        binned = {bins: [i for i in self.engine.layers(bins.site, None) if i is not None] for bins in reduce}
        forward = ForwardPass(
            self.engine, source, edits=[e for row in edits for e in row], watch=True, check=check_cancelled,
            capture={(site, layer) for site, layer in capture if not _is_above(begin, layer)}, resume=resume,
            reduce=[(bins, i) for bins, layers in binned.items() for i in layers if i >= begin], until=until,
        )  # fmt: skip
        keep = {} if all_logits else self.engine.last_logits_only
        kept = ", ".join(f"{site.name} of {len(layers)} layers" for site, layers in wanted.items()) or "no activation"
        what = f"{length} tokens" if len(prompts) == 1 else f"{len(prompts)} prompts of {length} tokens"
        with explained(f"a run of {what} that keeps {kept}", "Keep fewer sites or layers, or run less text."):
            try:
                logits = self.engine.run(ids, forward, use_cache=False, **keep)  # (row, position, token)
            except Enough:
                assert before is not None
                logits = before._logits[None]
        # Copied, so that a run that is kept does not hold on to those beside it; one at a time, for the memory.
        part = (lambda x: x) if len(prompts) == 1 else Tensor.clone
        found = {}
        for place in list(forward.captured):
            whole = forward.captured.pop(place)  # (row, position, [head,] width)
            found[place] = [part(whole[row]) for row in range(len(prompts))]
        runs = []
        for row, tokens in enumerate(prompts):
            at = self.answer_position(tokens)
            answer = logits[row, -1 if at is None else at - length]
            require_finite(answer, self.engine, *_tensors([tokens]), own[row], interventions, capture)
            captured = {}
            for site, layers in wanted.items():
                known = {} if before is None else self._part(before, site, known_blocks)
                fresh = [layer for layer in layers if layer not in known]
                captured[site] = known | {layer: select(site, found[site.name, layer][row]) for layer in fresh}
            acted = {e.owner for e in edits[row] if float(e.changed) > 0}
            if before is not None:
                did = [i for at, i in enumerate(before.interventions) if at not in before.idle]
                acted |= {e.owner for e in own[row] if _is_above(begin, e.layer) and interventions[e.owner] in did}
            idle = tuple(i for i in range(len(interventions)) if i not in acted)
            if before is not None and until < last:
                idle = before.idle
            reduced = {}
            for bins, having in binned.items():
                seen = {} if before is None else before.reduced.get(bins, {})
                here = {i: forward.reduced[bins, i][row] for i in having if (bins, i) in forward.reduced}
                reduced[bins] = {i: here[i] if i in here else seen[i] for i in having}
            runs.append(Run(tokens, interventions, part(logits[row]), captured, idle, self._n_heads(), at, reduced))
        return runs

    def _edits(self, tokens: Tokens, interventions: Iterable[Intervention], read: Read) -> list[Edit]:
        source_length = 0 if tokens.source is None else len(tokens.source)
        return compile_edits(self.engine, interventions, len(tokens), read, source_length=source_length)

    def read(self, own: Tokens, interventions: tuple[Intervention, ...] = (), whole: bool = False) -> Read:
        """A reader of activations: of other prompts, or (None) of the prompt `own`.

        Runs are read under `interventions`. `whole` reads all layers of a site at once, for callers that want them
        all; otherwise the first layer is read alone, and a second one brings the rest.
        """
        runs: dict[Any, Run] = {}
        alone: dict[Any, int | None] = {}

        def read(prompt: Any, site: str, layer: int | None) -> Tensor:
            several = whole or alone.setdefault((prompt, site), layer) != layer
            asked = Site(site, layer=None if several else layer)
            key = (prompt, asked)
            if key not in runs:
                runs[key] = self.ask(self.tokenize(own if prompt is None else prompt), (asked,), interventions)
            return runs[key].tensor(site, layer)

        return read

    def prefix(self, prompt: Any, length: int, interventions: tuple[Intervention, ...] = ()) -> Prefix:
        """Keys and values of the first positions of a prompt's run, for sweeps to share."""
        run = self.ask(self.tokenize(prompt), (Site("k"), Site("v")), interventions)
        layers = range(self.engine.architecture.n_layers)
        keys, values = ([run.tensor(s, i)[:length].transpose(0, 1) for i in layers] for s in ("k", "v"))
        return Prefix(keys, values, length)

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
        ids, source = _tensors([tokens])
        kept = self.prefix(tokens, shared, acting) if shared else None
        return Sweep(self.engine, ids, edits, at, base, kept, self.checked.one_pass, source)

    def _answer_position(self, tokens: Tokens, given: int | None) -> int:
        at = self.answer_position(tokens) if given is None else given
        if at is None:
            raise ValueError(NOTHING_MASKED)
        return resolve(at, len(tokens), "answer_position")[0]

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
        ids, source = _tensors([tokens])
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

    def _require_ready(self) -> None:
        if self._closed:
            raise RuntimeError("this session is closed: make a new Session to go on")
        require_still(self.model)
        changed = self.engine.changed_structure() if hasattr(self, "engine") else ""
        if changed:
            raise RuntimeError(
                f"{changed!r} was put in, replaced or taken out after the session was opened, so that the session no "
                "longer reads this model: make a new Session(model)"
            )

    def _n_heads(self) -> dict[tuple[str, str], int]:
        kinds = {name: (max(s.n_heads), max(s.n_kv_heads)) for name, s in self.engine.architecture.stacks.items()}
        return {(name, kind): n for name, both in kinds.items() for kind, n in zip(("query", "kv"), both, strict=True)}

    def _part(self, run: Run, site: Site, blocks: int | None = None) -> dict[int | None, Tensor]:
        """What a run that covers `site` holds of it; of the first `blocks` only, where it need not cover the others."""
        have = site if site in run.captured else next((h for h in run.captured if covers(h, site)), None)
        values = {} if have is None else run.captured[have]
        layers = self.engine.layers(site.name, site.layer)
        if blocks is not None:
            values = {layer: x for layer, x in values.items() if _is_above(blocks, layer)}
            layers = [layer for layer in layers if layer in values]
        return values if have == site else {layer: select(site, values[layer]) for layer in layers}


@dataclass(frozen=True)
class _Base:
    """A run that another one goes on from: its blocks from `begin` to `until` are computed, the rest is known."""

    run: Run | None
    begin: int
    until: int


def _is_above(block: int, layer: int | None) -> bool:
    return layer is not None and layer < block


def _tensors(prompts: Sequence[Tokens]) -> tuple[Tensor, Tensor | None]:
    """(row, position) ids, and those that an encoder reads."""
    read = [tokens.source.ids for tokens in prompts if tokens.source is not None]
    return torch.tensor([tokens.ids for tokens in prompts]), torch.tensor(read) if read else None


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


def _n_rows(model: nn.Module) -> int:
    """How many ids the model's embedding takes."""
    return model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]


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
