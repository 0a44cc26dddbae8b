"""One head's attention in the baseline and now: as the page draws it large, as a table, an array and a picture."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import xarray as xr

from ..engine.bins import Bins
from ..engine.sites import StackName, on_stack
from ..session import Run, Session
from ..tokens import Tokens
from .attention_overview import in_255ths
from .attention_places import axes_of, head_name, is_causal, rests, stack_named
from .exporting import Column
from .heatmap import NUMBERED, Heatmap, square
from .page import Answer
from .scale import weight_scale
from .wire import Wire, to_wire

_PICTURE = 256  # cells along the side of the large picture: a longer prompt's weights come for the window in view
_MOST_IN_A_PAGE = 200_000  # weights of all heads that a saved page holds exactly


@dataclass(frozen=True)
class HeadPattern:
    """The weights of one head, (query, key) each."""

    session: Session
    stack: StackName
    layer: int
    head: int
    queries: Tokens
    keys: Tokens
    baseline: np.ndarray
    now: np.ndarray
    acts: bool
    """Whether the second run is under other interventions than the first."""

    @classmethod
    def read(cls, session: Session, stack: StackName, layer: int, head: int, runs: tuple[Run, Run]) -> HeadPattern:
        """Of two runs of a prompt, in the baseline and now, that hold the patterns of the layer."""
        site = on_stack(stack, "pattern")
        baseline, now = (run.tensor(site, layer)[:, head].float().cpu().numpy() for run in runs)
        acts = runs[1] is not runs[0]
        return cls(session, stack, layer, head, *axes_of(runs[1].tokens, stack), baseline, now, acts)

    def to_wire(self, number: int) -> Wire:
        """The weights in the baseline, and what experiments change in them, as the page shows them large."""
        a, causal = stack_named(self.session, self.stack), is_causal(self.session, self.stack)
        group = a.n_heads[self.layer] // max(1, a.n_kv_heads[self.layer])
        before, here = self.baseline, self.now
        place = {
            "id": number,
            "stack": self.stack,
            "layer": self.layer,
            "head": self.head,
        }
        bins = Bins(on_stack(self.stack, "pattern"), _PICTURE)
        sides = len(self.queries), len(self.keys)
        coarse = max(sides) > _PICTURE
        same = np.array_equal(here, before)
        baseline = place | {
            "kv_head": self.head // max(1, group),
            "edges": bins.edges(sides[0]) if coarse else None,
            "key_edges": bins.edges(sides[1]) if coarse else None,
            "weights": to_wire(in_255ths(bins.of(before)) if coarse else before, triangle=causal),
        }
        now, difference, bound = here, None, 0.0
        if coarse and not same:
            now = in_255ths(bins.of(here))
            rise, fall = bins.of(here - before), bins.of(before - here)
            bound = float(max(rise.max(), fall.max()))
            signed = np.where(rise >= fall, rise, -fall) / bound
            difference = np.rint(127 * signed + 127).astype(np.uint8)
        detail = place | {
            "acts": self.acts,
            "now": None if same else to_wire(now, triangle=causal),
            "difference": to_wire(difference, triangle=causal),
            "bound": bound,
            # Windows that have come are of these very weights, though others may have the same bins.
            "version": _checksum(before, here) if coarse else 0,
        }
        return {"_baseline_detail": baseline, "_detail": detail}

    def window(self, rows: slice, cols: slice) -> tuple[np.ndarray, np.ndarray]:
        """The weights of a window in the baseline and now. Raises ValueError if the head does not have all of it."""
        before, here = self.baseline[rows, cols], self.now[rows, cols]
        if before.shape != (rows.stop - rows.start, cols.stop - cols.start):
            asked = f"queries {[rows.start, rows.stop]}, keys {[cols.start, cols.stop]}"
            raise ValueError(f"there are no weights at {asked}")
        return before, here

    def dataset(self) -> xr.Dataset:
        """The widget's `result`."""
        return xr.Dataset(
            # Copies: views would hold the runs' whole patterns for as long as the result is known.
            {"pattern": (("query", "key"), self.now.copy()), "baseline": (("query", "key"), self.baseline.copy())},
            coords={
                "query": np.arange(len(self.queries)), "key": np.arange(len(self.keys)), "layer": self.layer,
                "head": self.head,
            },
            attrs={"stack": self.stack, "tokens": list(self.queries.strings), "key_tokens": list(self.keys.strings)},
        )  # fmt: skip

    def columns(self) -> dict[str, Column]:
        """Every weight that the model could give, in long form."""
        causal = is_causal(self.session, self.stack)
        query, key = np.tril_indices(len(self.now)) if causal else np.indices(self.now.shape).reshape(2, -1)
        columns: dict[str, Column] = {
            "stack": [self.stack] * len(query), "layer": [self.layer] * len(query), "head": [self.head] * len(query),
            "query": query.tolist(), "query_token": [self.queries.strings[i] for i in query],
            "key": key.tolist(), "key_token": [self.keys.strings[i] for i in key],
        }  # fmt: skip
        weights = {"baseline": self.baseline, "now": self.now} if self.acts else {"weight": self.now}
        return columns | {name: values[query, key] for name, values in weights.items()}

    def heatmap(self, view: str, *, hide_bos: bool) -> Heatmap:
        """The pattern, or its difference from baseline, (query, key)."""
        weights = (self.baseline if view == "baseline" else self.now).copy()
        difference = view == "difference" and self.acts
        if difference:
            weights -= self.baseline
        if is_causal(self.session, self.stack):
            weights[np.triu_indices(len(weights), 1)] = np.nan  # what its queries cannot see
        first = 1 if hide_bos and rests(self.queries, self.stack) else 0
        hidden = ", position 0 hidden" if first else ""
        name = head_name(self.stack, self.layer, self.head)
        # Of both runs, so that their colours can be compared.
        ends = (weights,) if difference else (self.now, self.baseline)
        bound = max(float(np.nanmax(np.abs(each[first:, first:]), initial=0)) for each in ends)
        # Without numbers in them, faint patterns would look empty.
        root = square(*weights[first:, first:].shape) < NUMBERED
        unit = ("now − baseline" if difference else "attention weight") + (", square-root scale" if root else "")
        return Heatmap(
            weights[first:, first:], self.queries.strings[first:], self.keys.strings[first:], row_title="query",
            column_title="key", unit=unit, number=lambda weight, letters: _short(weight, bound, letters),
            scale=weight_scale(max(0.01 if difference else 0.001, bound), diverging=difference, root=root),
            kept="farthest" if difference else "largest",
            title=f"attention of {name}, query (row) to key (column){hidden}",
            row_edges=_drawn(len(self.queries), first), column_edges=_drawn(len(self.keys), first),
            row_names=[str(i) for i in range(first, len(self.queries))],
            column_names=[str(i) for i in range(first, len(self.keys))],
        )  # fmt: skip


def _checksum(*arrays: np.ndarray) -> int:
    return reduce(lambda so_far, array: zlib.crc32(np.ascontiguousarray(array).data, so_far), arrays, 0)


def _drawn(length: int, first: int) -> list[int] | None:
    """Where the bins begin that the page draws of so many positions from the first one on; None if it draws each."""
    edges = Bins("pattern", _PICTURE).edges(length)
    return [edge - first for edge in edges[first:]] if length > _PICTURE else None


def _short(weight: float, bound: float, letters: int) -> str:
    """A weight in a cell, as the page writes it; "" for what is faint beside the largest, `bound`."""
    if abs(weight) < 0.05 * bound:
        return ""
    for digits in (3, 2, 1) if bound < 0.1 else (2, 1):
        text = f"{weight:.{digits}f}".replace("0.", ".", 1)
        if len(text) <= letters:
            return text.replace("-", "−") if float(text) else ""
    return ""


def answers_of_heads(session: Session, stack: StackName, runs: tuple[Run, Run], number: int) -> Iterator[Answer]:
    """What selecting each head shows, for a page without a kernel, unless they are too many for one."""
    site, a = on_stack(stack, "pattern"), stack_named(session, stack)
    queries, keys = (len(tokens) for tokens in axes_of(runs[1].tokens, stack))
    if sum(a.n_heads) * queries * keys > _MOST_IN_A_PAGE:
        return
    for layer, n_heads in enumerate(a.n_heads):
        if not all(run.holds(site, layer) for run in runs):
            continue
        for head in range(n_heads):
            request = {"op": "select", "layer": layer, "head": head, "stack": stack}
            yield request, HeadPattern.read(session, stack, layer, head, runs).to_wire(number)
