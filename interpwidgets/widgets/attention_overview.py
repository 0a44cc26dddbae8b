"""All heads of a stack, small: their patterns in bins, how much experiments change them, and what acts on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..engine.bins import Bins
from ..engine.interventions import Intervention
from ..engine.sites import StackName, on_stack
from ..session import Run, Session
from .attention_clicks import single_ablations, single_cuts
from .attention_places import axes_of, is_causal, rests, stack_named, stacks_of
from .wire import Wire, to_wire

_THUMBNAIL = 32  # cells along the side of a head's thumbnail


def thumbnail_bins(stack: StackName) -> Bins:
    """The bins that runs reduce a stack's patterns to."""
    return Bins(on_stack(stack, "pattern"), _THUMBNAIL)


@dataclass(frozen=True)
class Overview:
    """The thumbnails of a stack in the baseline and now, of runs that have reduced its patterns."""

    session: Session
    stack: StackName
    baseline: Run
    now: Run

    def to_wire(self, number: int, acting: Iterable[Intervention]) -> Wire:
        """The overview in the baseline, and what the `acting` interventions change in it."""
        stack, acting = self.stack, tuple(acting)
        a, causal, acts = (
            stack_named(self.session, stack),
            is_causal(self.session, stack),
            self.now is not self.baseline,
        )
        queries, keys = axes_of(self.now.tokens, stack)
        bins = thumbnail_bins(stack)
        changed, exact = self._changes()
        first = next((layer for layer in range(a.n_layers) if changed[layer].any()), a.n_layers)
        baseline = {
            "id": number,
            "stack": stack,
            "stacks": stacks_of(self.session),
            "causal": causal,
            "rests": rests(queries, stack),
            "edges": bins.edges(len(queries)),
            "key_edges": bins.edges(len(keys)),
            "present": [bins.site in self.session.engine.sites(layer, stack) for layer in range(a.n_layers)],
            "weights": to_wire(self._thumbnails(self.baseline), triangle=causal),
        }
        overview = {
            "id": number,
            "stack": stack,
            "acts": acts,
            "first": first,
            "now": to_wire(self._thumbnails(self.now)[first:], triangle=causal) if first < a.n_layers else None,
            "changed": to_wire(changed) if acts else None,
            "exact": exact,
            "ablated": single_ablations(acting, stack),
            "cut": single_cuts(acting, stack),
        }
        return {"_baseline_overview": baseline, "_overview": overview}

    def _thumbnails(self, run: Run) -> np.ndarray:
        """The largest weight of each bin in 255ths, (layer, head, query bin, key bin)."""
        a = stack_named(self.session, self.stack)
        reduced = run.reduced[thumbnail_bins(self.stack)]
        shape = next(iter(reduced.values())).shape[1:]
        found = np.zeros((a.n_layers, max(a.n_heads), *shape), np.uint8)
        for layer, weights in reduced.items():
            found[layer, : len(weights)] = in_255ths(weights.float().cpu().numpy())
        return found

    def _changes(self) -> tuple[np.ndarray, bool]:
        """How much the weights of each head differ at most from the baseline's, (layer, head), and whether it is exact.

        Where whole patterns are not held, it is the largest difference of any two bins' largest weights: no more than
        the largest difference of two weights.
        """
        a, bins = stack_named(self.session, self.stack), thumbnail_bins(self.stack)
        exact = True
        changed = np.zeros((a.n_layers, max(a.n_heads)), np.float32)
        for layer, binned in self.now.reduced[bins].items():
            if binned is self.baseline.reduced[bins][layer]:
                continue
            if self.now.holds(bins.site, layer) and self.baseline.holds(bins.site, layer):
                heads = [run.tensor(bins.site, layer).float() for run in (self.now, self.baseline)]
                most = (heads[0] - heads[1]).abs_().amax((0, 2))
            else:
                most = (binned.float() - self.baseline.reduced[bins][layer].float()).abs().amax((1, 2))
                exact = exact and all(len(tokens) <= bins.most for tokens in axes_of(self.now.tokens, self.stack))
            changed[layer, : len(most)] = most.cpu().numpy()
        return changed, exact


def in_255ths(weights: np.ndarray) -> np.ndarray:
    """Weights in 8 bits."""
    return np.rint(255 * weights.clip(0, 1)).astype(np.uint8)
