"""How a session differentiates: gradients of a metric, and runs that are kept with their way back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .asking import tensors
from .engine.finite import require_finite
from .engine.forward import Edit, Enough, ForwardPass
from .engine.gradient import NoGradient, Recorded, gradients, record
from .engine.interventions import Intervention
from .engine.jobs import check_cancelled
from .engine.memory import NotEnoughMemory
from .engine.sites import Index, Site
from .engine.sweep import Metric, Prefix, Sweep
from .run import Run
from .sweeping import Sweeper, interventions_of, prefix_of
from .tokens import Tokens

_FEW = 24
"""Tokens; reading the weights takes a pass as long as computing so many."""


class Differentiator(Sweeper):
    """What a session knows of gradients."""

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
        acting, at = interventions_of(interventions), self._answer_position(tokens, answer_position)
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
                prefix = prefix_of(known, self.engine.architecture.n_layers, length)
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
