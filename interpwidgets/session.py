"""Session and load(): a live model you can ask; the only door to the engine."""

from __future__ import annotations

import itertools
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr
from torch import Tensor, nn

from .engine.cache import Cache
from .engine.check import Check, check
from .engine.edits import Read, compile_edits
from .engine.forward import Engine, ForwardPass
from .engine.interventions import Intervention
from .engine.jobs import Worker, check_cancelled
from .engine.sites import SITES, Index, Site, resolve
from .engine.sweep import Metric, Partial, Prefix, Progress, SweepResult, sweep
from .engine.version import modules
from .experiments import Experiments
from .tokens import Tokens, display, tokenize


class NoEffectWarning(UserWarning):
    """An intervention changed nothing at all."""


class Run:
    """One finished forward pass.

    `tokens`: what was run. `logits`: DataArray (position, token). `run["z"]`, or `run[site]` for what was asked for
    as a `Site`: DataArray with the site's dimensions. `idle`: which of the `interventions` changed nothing, by
    index.
    """

    def __init__(
        self,
        tokens: Tokens,
        interventions: tuple[Intervention, ...],
        logits: Tensor,
        captured: dict[Site, dict[int | None, Tensor]],
        idle: tuple[int, ...],
        label: Callable[[Site, dict[int | None, Tensor]], xr.DataArray],
    ) -> None:
        self.tokens = tokens
        self.interventions = interventions
        self.idle = idle
        self._logits = logits
        self.captured = captured
        self._label = label

    @property
    def logits(self) -> xr.DataArray:
        """(position, token) logits, as the model gives them; a copy, for the run may be answered from again."""
        return xr.DataArray(_numpy(self._logits).copy(), dims=("position", "token"), name="logits")

    @property
    def last_logits(self) -> Tensor:
        """(token,) logits at the last position."""
        return self._logits[-1]

    def __getitem__(self, site: str | Site) -> xr.DataArray:
        asked = Site(site) if isinstance(site, str) else site
        for have, values in self.captured.items():
            if have == asked:
                return self._label(asked, values)
        same = [have for have in self.captured if have.name == asked.name]
        if len(same) == 1 and asked == Site(asked.name):
            return self._label(same[0], self.captured[same[0]])
        raise KeyError(f"{site!r} was not captured; this run has {[str(s) for s in self.captured] or 'no captures'}")

    def tensor(self, site: str, layer: int | None) -> Tensor:
        """One layer's value as a tensor, (position, [head,] width); for scores and pattern (query, head, key)."""
        for have, values in self.captured.items():
            if have.name == site and layer in values and have.head is None and have.position is None:
                return values[layer]
        raise KeyError(f"layer {layer} of {site!r} was not captured")

    @property
    def nbytes(self) -> int:
        tensors = [self._logits, *(t for values in self.captured.values() for t in values.values())]
        return sum(t.nbytes for t in tensors)

    def __repr__(self) -> str:
        return f"Run({len(self.tokens)} tokens, captured {[s.name for s in self.captured]})"


def _numpy(x: Tensor) -> np.ndarray:
    x = x.detach()
    return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).cpu().numpy()


class Session:
    """A live transformer language model that answers questions.

    The model is used as it is: nothing in it is replaced, folded or renamed, and calls of your own are not
    affected. Prompts are text (as the tokenizer makes it; `prepend_bos` True or False adds or drops BOS), token
    ids, or a list of either. Without a tokenizer, prompts and answers are token ids.

    Raises UnsupportedModel if the model's parts cannot be found or what would be shown is not what the model
    computes.

    Example: `session = iw.Session(model, tokenizer); session.run("Hello", capture=["pattern"])["pattern"]`
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._closed = False
        self._require_ready()
        self.prepend_bos: bool | None = None
        self.name = _name(model)
        self.note = ""
        self.memory_budget: int = psutil.virtual_memory().available // 4
        self.worker = Worker()
        # One for all widgets: two threads that each hold one widget and want the other would wait for ever.
        self.publishing = threading.RLock()
        self.interventions = Experiments()
        """Interventions that act in every linked widget of this session; an observable list."""
        self.widgets: weakref.WeakSet[Any] = weakref.WeakSet()
        self._results: Cache[Run] = Cache(self.memory_budget // 2)
        self._hold = object()
        try:
            self.engine = Engine.of(model, self._hold)
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

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        a = self.engine.architecture
        return f"Session({self.name}, {a.n_layers} layers, {max(a.n_heads)} heads, {self.engine.dtype_name})"

    def tokenize(self, prompt: Any) -> Tokens:
        """The tokens that a prompt really runs as. Raises TypeError or ValueError for what is not a prompt."""
        if isinstance(prompt, Tokens):
            return prompt
        return tokenize(self.tokenizer, prompt, self.prepend_bos, self.engine.architecture.n_vocab)

    def text_ids(self, text: str) -> list[int]:
        """The ids of a piece of text, without special tokens; without a tokenizer, of ids written out."""
        if self.tokenizer is None:
            return [int(part) for part in text.replace(",", " ").split()]
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def tokenize_ids(self, ids: Sequence[int]) -> Tokens:
        """Token ids as a prompt; with their text, if that text would give the same ids again."""
        tokens = self.tokenize(tuple(ids))
        if self.tokenizer is None:
            return tokens
        bare = ids[1:] if ids[0] == self.tokenizer.bos_token_id else ids
        from_text = self.tokenize(self.tokenizer.decode(bare)) if len(bare) else tokens
        return from_text if from_text.ids == tokens.ids else tokens

    def token_text(self, token_id: int) -> str:
        """A token as the tokenizer writes it; without a tokenizer, its id."""
        return str(token_id) if self.tokenizer is None else str(self.tokenizer.convert_ids_to_tokens(token_id))

    def show_token(self, token_id: int) -> str:
        """A token made visible: ␣ for a space, ↵ for a line end."""
        return display(self.tokenizer, [token_id])[0]

    def token_id(self, answer: str | int) -> int:
        """The id of an answer that is one token. Raises ValueError, showing its tokens, if it is several."""
        if not isinstance(answer, str):
            return self.tokenize((answer,)).ids[0]
        if self.tokenizer is None:
            raise TypeError(f"this session has no tokenizer: give the answer as a token id, not {answer!r}")
        ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            return ids[0]
        spaced = self.tokenizer(" " + answer, add_special_tokens=False)["input_ids"]
        hint = f"; {' ' + answer!r}, with a space, is one" if len(spaced) == 1 else ""
        raise ValueError(
            f"the answer {answer!r} is {len(ids)} tokens, {display(self.tokenizer, ids)}: one is needed{hint}"
        )

    def run(
        self,
        prompt: Any,
        capture: Iterable[str | Site] | str | Site = (),
        interventions: Iterable[Intervention] = (),
    ) -> Any:
        """Run the model once and keep what was asked for.

        `capture`: site names or `Site`s. `interventions`: act in the order in which the pass reaches their sites,
        at the same site in the order given; captures see the value after them. Gives a `Run`; for a list of
        prompts, a list. Warns (NoEffectWarning) about an intervention that changed nothing.
        """
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list | tuple):
            return [self.run(p, capture, interventions) for p in prompt]
        tokens = self.tokenize(prompt)
        sites = tuple(Site(s) if isinstance(s, str) else s for s in _several(capture))
        run = self.ask(tokens, sites, tuple(interventions), all_logits=True)
        for i in run.idle:
            warnings.warn(f"{run.interventions[i]!r} changed nothing on this prompt", NoEffectWarning, stacklevel=2)
        return run

    def ask(
        self,
        tokens: Tokens,
        sites: tuple[Site, ...] = (),
        interventions: tuple[Intervention, ...] = (),
        *,
        all_logits: bool = False,
    ) -> Run:
        """`run` for one prompt that is already tokenised, answered from the cache where it can be.

        Unless `all_logits` is set, the run may hold the logits of the last position only.
        """
        all_logits |= any(site.name == "ln_final" for site in sites)
        self._require_ready()
        with self.engine.lock:
            weights = self.engine.version()

            def suits(key: Any, run: Run) -> bool:
                if key[:3] != (tokens.ids, interventions, weights) or (all_logits and len(run._logits) < len(tokens)):
                    return False
                return all(any(_covers(have, site) for have in run.captured) for site in sites)

            found = self._results.find(suits) if weights is not None else None
            if found is None:
                found = self._forward(tokens, sites, interventions, all_logits)
                # Another thread may have edited the model in the middle of the run.
                if weights is not None and weights == self.engine.version():
                    self._results.put((tokens.ids, interventions, weights, sites, all_logits), found, found.nbytes)
        # The same ids may come from another text: the answer carries the prompt as it was asked.
        captured = {site: self._part(found, site) for site in sites}
        return Run(tokens, interventions, found._logits, captured, found.idle, self._label)

    def _forward(
        self, tokens: Tokens, sites: tuple[Site, ...], interventions: tuple[Intervention, ...], all_logits: bool
    ) -> Run:
        ids = torch.tensor([tokens.ids])
        edits = compile_edits(self.engine, interventions, len(tokens), self.read(tokens))
        wanted = {site: self._layers(site) for site in sites}
        capture = {(site.name, layer) for site, layers in wanted.items() for layer in layers}
        forward = ForwardPass(self.engine, edits=edits, capture=capture, check=check_cancelled, watch=True)
        keep = {} if all_logits else self.engine.last_logits_only
        logits = self.engine.run(ids, forward, use_cache=False, **keep)[0]
        captured = {}
        for site, layers in wanted.items():
            whole = {layer: forward.captured[site.name, layer] for layer in layers}
            captured[site] = {layer: self._select(site, layer, value) for layer, value in whole.items()}
        acted = {e.owner for e in edits if float(e.changed) > 0}
        idle = tuple(i for i in range(len(interventions)) if i not in acted)
        return Run(tokens, interventions, logits, captured, idle, self._label)

    def read(self, own: Tokens, interventions: tuple[Intervention, ...] = (), whole: bool = False) -> Read:
        """A reader of activations: of other prompts, or (None) of the prompt `own`.

        Runs are read under `interventions`. `whole` reads all layers of a site at once, for callers that want them
        all.
        """
        runs: dict[Any, Run] = {}

        def read(prompt: Any, site: str, layer: int | None) -> Tensor:
            asked = Site(site, layer=None if whole else layer)
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
        prefix: Prefix | None = None,
        progress: Progress | None = None,
        partial: Partial | None = None,
    ) -> SweepResult:
        """Run many experiments on one prompt in one forward pass (see `engine/sweep.py`).

        Each row is a list of interventions, tried on its own on top of `interventions`, under which the rows'
        sources are read too. `metric` maps the logits at the last position, (row, token), to one number a row.
        `progress(done, total)` counts rows; `partial(values)` receives the values so far, NaN where not known yet.
        A `prefix` that the caller knows to be the same in all rows saves computing it. Rows of one pass take at
        most `memory_budget` bytes; more are split over passes.
        """
        self._require_ready()
        tokens = self.tokenize(prompt)
        ids = torch.tensor([tokens.ids])
        acting = tuple(interventions)
        read = self.read(tokens, acting, whole=True)
        with self.engine.lock:
            base = compile_edits(self.engine, acting, len(tokens), self.read(tokens))
            edits = [compile_edits(self.engine, row, len(tokens), read) for row in rows]
            return sweep(
                self.engine, ids, edits, metric, base=base, prefix=prefix, budget=self.memory_budget,
                shared=self.checked.one_pass, check=check_cancelled, progress=progress, partial=partial,
            )  # fmt: skip

    def generate(self, prompt: Any, max_new_tokens: int = 20, interventions: Iterable[Intervention] = ()) -> Tokens:
        """Continue a prompt greedily; the interventions act at every step.

        An intervention without positions also acts on the tokens that are generated; one with positions acts on those
        of the prompt. Gives the whole sequence, prompt first. Equals `model.generate(do_sample=False)`.
        """
        self._require_ready()
        tokens = self.tokenize(prompt)
        ids = torch.tensor([tokens.ids])
        edits = compile_edits(self.engine, tuple(interventions), len(tokens), self.read(tokens))
        forward = _Generation(self.engine, edits=edits, check=check_cancelled)
        ids = ids.to(self.engine.device)

        def call() -> Tensor:
            return self.model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens
            )

        out = self.engine.inside(forward, call)
        return self.tokenize(tuple(out[0].tolist()))

    def _require_ready(self) -> None:
        if self._closed:
            raise RuntimeError("this session is closed: make a new Session to go on")
        if any(_drops(module) for module in modules(self.model)):
            raise ValueError("the model is in training mode and has dropout: call model.eval() first")
        changed = self.engine.changed_structure() if hasattr(self, "engine") else ""
        if changed:
            raise RuntimeError(
                f"{changed!r} was put in, replaced or taken out after the session was opened, so that the session no "
                "longer reads this model: make a new Session(model)"
            )

    def _layers(self, site: Site) -> list[int | None]:
        if not SITES[site.name].per_layer:
            return [None]
        layers = resolve(site.layer, self.engine.architecture.n_layers, "layer")
        having = [layer for layer in layers if site.name in self.engine.sites(layer)]
        if (site.layer is not None and having != layers) or not having:
            absent = next(layer for layer in layers if layer not in having)
            has = ", ".join(self.engine.sites(absent))
            raise ValueError(f"layer {absent} of this model has no {site.name!r}; it has {has}")
        return list(having)

    def _select(self, site: Site, layer: int | None, value: Tensor) -> Tensor:
        at_positions = resolve(site.position, value.shape[0], "position")
        value = value if site.position is None else value[at_positions]
        if site.head is None:
            return value
        return value[:, resolve(site.head, value.shape[1], "head")]

    def _part(self, run: Run, site: Site) -> dict[int | None, Tensor]:
        """What a run that covers `site` holds of it."""
        have = site if site in run.captured else next(h for h in run.captured if _covers(h, site))
        values = run.captured[have]
        if have == site:
            return values
        return {layer: self._select(site, layer, values[layer]) for layer in self._layers(site)}

    def _label(self, site: Site, values: dict[int | None, Tensor]) -> xr.DataArray:
        """Name the dimensions; an axis addressed by a single int is dropped and kept as a coordinate."""
        info = site.info
        arrays = [_numpy(v) for v in values.values()]
        if info.dims[0] == "head":  # (query, head, key) -> (head, query, key)
            arrays = [a.swapaxes(0, 1) for a in arrays]
        if len({a.shape for a in arrays}) > 1:
            shapes = {layer: a.shape for layer, a in zip(values, arrays, strict=True)}
            raise ValueError(f"{site.name!r} differs in shape between layers, so pick one: {shapes}")
        data = xr.DataArray(np.stack(arrays), dims=("layer", *info.dims), name=site.name)
        data = data.assign_coords(layer=[-1 if i is None else i for i in values])
        length = next(iter(values.values())).shape[0] if site.position is None else None
        axes: list[tuple[str, Index]] = [("position" if "position" in info.dims else "query", site.position)]
        if info.heads:
            axes.append(("head", site.head))
        for dim, index in axes:
            data = data.assign_coords({dim: _coordinates(index, data.sizes[dim], length)})
            if isinstance(index, int):
                data = data.isel({dim: 0})
        if not info.per_layer:
            return data.isel(layer=0, drop=True)
        return data.isel(layer=0) if isinstance(site.layer, int) else data


def _coordinates(index: Index, size: int, length: int | None) -> list[int]:
    if index is None:
        return list(range(size))
    if isinstance(index, slice):
        start = index.start or 0
        return (
            list(itertools.islice(itertools.count(start, index.step or 1), size)) if start >= 0 else list(range(size))
        )
    return [index] if isinstance(index, int) else list(index)


def _several(capture: Iterable[str | Site] | str | Site) -> Iterable[str | Site]:
    return (capture,) if isinstance(capture, str | Site) else capture


def _covers(have: Site, asked: Site) -> bool:
    """Whether a capture of `have` holds all of `asked`; only whole heads and positions are cut down again."""
    if have == asked:
        return True
    whole = have.head is None and have.position is None
    return have.name == asked.name and whole and (have.layer is None or have.layer == asked.layer)


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


def _drops(module: nn.Module) -> bool:
    """Whether a module drops activations at random now: a Dropout, or a rate that it hands to a function."""
    if not module.training:
        return False
    rates = [module.p] if isinstance(module, nn.Dropout) else [v for k, v in vars(module).items() if "drop" in k]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _name(model: nn.Module) -> str:
    path = getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
    return path.rstrip("/").rsplit("/", 1)[-1]
