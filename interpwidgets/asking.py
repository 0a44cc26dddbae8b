"""How a session answers: from a kept run, from a part of one, or by running the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .engine.bins import Bins
from .engine.cache import Cache
from .engine.edits import Read, compile_edits
from .engine.finite import require_finite
from .engine.forward import Edit, Enough, ForwardPass
from .engine.interventions import Intervention, in_ids
from .engine.jobs import check_cancelled
from .engine.memory import explained
from .engine.prompts import has_text
from .engine.ready import require_still
from .engine.resume import Resume, is_watched, shared_blocks
from .engine.sites import Site
from .reading import Reader
from .run import Run, covers, select
from .tokens import Tokens


@dataclass(frozen=True)
class Look:
    """The state in which a look found the model (see `engine/version.py`); None if it cannot be told."""

    weights: int | None


@dataclass(frozen=True)
class _Base:
    """A run that another one goes on from: its blocks from `begin` to `until` are computed, the rest is known."""

    run: Run | None
    begin: int
    until: int


class Asker(Reader):
    """What a session knows of runs: which it keeps, and what is left to compute."""

    _results: Cache[Run]
    _closed: bool

    def look(self) -> Look:
        """Look whether the model is ready, and still computes what it did."""
        self._require_ready()
        return Look(self.engine.version())

    def ask(
        self,
        tokens: Tokens,
        sites: tuple[Site, ...] = (),
        interventions: tuple[Intervention, ...] = (),
        *,
        reduce: tuple[Bins, ...] = (),
        all_logits: bool = False,
        resume: bool = True,
        look: Look | None = None,
    ) -> Run:
        """`run` for one prompt that is already tokenised, answered from the cache where it can be.

        `reduce`: patterns of which bins are kept, and not the whole. Unless `all_logits` is set, the run may hold the
        logits of the last position only. `resume`: it may go on from a kept run at the block where they differ, or run
        only the blocks of which a kept run lacks what is asked for, and so be off from a pass of its own by rounding.
        `look`: one that has just been taken, where several questions belong together.
        """
        return self.ask_all(
            [tokens], sites, interventions, reduce=reduce, all_logits=all_logits, resume=resume, look=look
        )[0]

    def ask_all(
        self,
        prompts: Sequence[Tokens],
        sites: tuple[Site, ...] = (),
        interventions: tuple[Intervention, ...] = (),
        *,
        reduce: tuple[Bins, ...] = (),
        all_logits: bool = False,
        resume: bool = True,
        look: Look | None = None,
    ) -> list[Run]:
        """`ask` for several prompts of the same length: those that are not in the cache share one pass."""
        all_logits |= not self.causal or any(site.name == "ln_final" for site in sites)
        # A run is kept under the tokens that a text was read as, for it may be read as others later.
        given, interventions = interventions, tuple(in_ids(i, self._read_as) for i in interventions)
        with self.engine.lock:
            look = look or self.look()
            weights = look.weights

            def known(tokens: Tokens) -> Run | None:
                return self._known(tokens, sites, interventions, weights, reduce, all_logits, resume)

            found = {tokens.prompt: known(tokens) for tokens in prompts}
            missing = list({tokens.prompt: tokens for tokens in prompts if found[tokens.prompt] is None}.values())
            # What two encoders read may differ in length.
            together = [missing] if not self.engine.has_encoder else [[tokens] for tokens in missing]
            if missing:
                alone = resume and len(missing) == 1
                base = self._base(missing[0], sites, reduce, interventions, all_logits, weights) if alone else None
                asked = sites, reduce, interventions, all_logits
                runs = [run for each in together for run in self._forward(each, *asked, base, look)]
                # Another thread may have edited the model in the middle of the run.
                keep = weights is not None and weights == self.engine.version()
                # Part of a kept run costs few blocks: a large one must not push whole runs out.
                part = base is not None and base.until < self.engine.architecture.n_layers - 1
                for run in runs:
                    found[run.tokens.prompt] = run
                    if keep and not (part and run.nbytes > self._results.budget // 16):
                        key = run.tokens.prompt, interventions, weights, sites, reduce, all_logits, base is not None
                        self._results.put(key, run, run.nbytes)
        return [self._answer(tokens, given, found[tokens.prompt], sites, reduce) for tokens in prompts]

    def _read_as(self, prompt: Any) -> Any:
        """A prompt that an intervention names, as token ids."""
        return self.tokenize(prompt).prompt if has_text(prompt) else prompt

    def _known(
        self,
        tokens: Tokens,
        sites: tuple[Site, ...],
        interventions: tuple[Intervention, ...],
        weights: int | None,
        reduce: tuple[Bins, ...] = (),
        all_logits: bool = False,
        resume: bool = True,
    ) -> Run | None:
        """The kept run that answers this; see `ask`."""

        def suits(key: Any, run: Run) -> bool:
            asked = (tokens.prompt, interventions, weights)
            if key[:3] != asked or (all_logits and len(run._logits) < len(tokens)) or (key[-1] and not resume):
                return False
            return not self._lacking(run, sites, reduce)

        return self._results.find(suits) if weights is not None else None

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

    def _answer(
        self,
        tokens: Tokens,
        interventions: tuple[Intervention, ...],
        found: Run | None,
        sites: tuple[Site, ...],
        reduce: tuple[Bins, ...],
    ) -> Run:
        """A run as the answer to a prompt under interventions: the same ids may come from another text."""
        assert found is not None
        captured = {site: self._part(found, site) for site in sites}
        at = self.answer_position(tokens)
        reduced = {bins: found.reduced[bins] for bins in reduce}
        return Run(tokens, interventions, found._logits, captured, found.idle, self._n_heads(), at, reduced)

    def _forward(
        self,
        prompts: Sequence[Tokens],
        sites: tuple[Site, ...],
        reduce: tuple[Bins, ...],
        interventions: tuple[Intervention, ...],
        all_logits: bool,
        base: _Base | None,
        look: Look,
    ) -> list[Run]:
        """Run the prompts in one pass; of one prompt, the blocks that a run does not know that is kept."""
        last = self.engine.architecture.n_layers - 1
        before, begin, until = (None, 0, last) if base is None else (base.run, base.begin, base.until)
        known_blocks = begin if until == last else last + 1
        stream = None if before is None or not begin else self._stream(before, begin)
        resume = None if stream is None else Resume(begin, stream)
        ids, source = tensors(prompts)
        length = ids.shape[1]
        own = [self._edits(tokens, interventions, self.read(tokens, look=look)) for tokens in prompts]
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
            require_finite(answer, self.engine, *tensors([tokens]), own[row], interventions, capture)
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

    def read(
        self,
        own: Tokens,
        interventions: tuple[Intervention, ...] = (),
        whole: bool = False,
        look: Look | None = None,
    ) -> Read:
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
                tokens = self.tokenize(own if prompt is None else prompt)
                runs[key] = self.ask(tokens, (asked,), interventions, look=look)
            return runs[key].tensor(site, layer)

        return read

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


def _is_above(block: int, layer: int | None) -> bool:
    return layer is not None and layer < block


def tensors(prompts: Sequence[Tokens]) -> tuple[Tensor, Tensor | None]:
    """(row, position) ids, and those that an encoder reads."""
    read = [tokens.source.ids for tokens in prompts if tokens.source is not None]
    return torch.tensor([tokens.ids for tokens in prompts]), torch.tensor(read) if read else None
