"""Attribution patching: what each patch of a sweep would do, to first order, from one backward pass.

Sources: Nanda 2023, "Attribution patching: activation patching at industrial scale"; Syed, Rager & Conmy 2310.10348
(edge attribution patching); Hanna, Pezzelle & Belinkov 2403.17806 (EAP-IG); Sundararajan, Taly & Yan 1703.01365
(integrated gradients); where it misleads, Kramár et al. 2403.00745 (AtP*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..engine.gradient import NoGradient, Recorded
from ..engine.interventions import Intervention, Patch
from ..engine.metrics import LogProbability
from ..engine.sites import SITES, Index, Site
from ..engine.sweep import Prefix
from ..session import Session
from ..tokens import Tokens, first_difference
from .cells import Cell, Grid
from .patching import asked_map, label, runs_of, shared_positions, unpatched
from .task import Task

_OFF = 0.25  # of the gap; a layer whose effects add up to less or more than that is not to be trusted


def attribution_sweep(
    session: Session,
    clean: Any,
    corrupted: Any,
    site: str = "resid_pre",
    answer: int | str | None = None,
    foil: int | str | None = None,
    metric: str = "logit_diff",
    direction: Literal["denoise", "noise"] = "denoise",
    normalize: bool = True,
    *,
    steps: int = 1,
    layer: int | None = None,
    head: int | None = None,
    by_position: bool = False,
    neurons: int | Sequence[int] | None = None,
    interventions: tuple[Intervention, ...] = (),
    answer_position: int | None = None,
) -> xr.DataArray:
    """What `patch_sweep` with these arguments gives, estimated to first order: the same map, axes and units.

    The effect of a patch is taken as (source - base) · gradient of the metric, where the base run is the one that is
    patched and the source the one that is read: two forward passes and one backward for all cells. `steps=1` takes the
    gradient of the base run (attribution patching). More take the mean of the gradients of `steps` runs whose token
    embeddings lie between the two, at the middles of equal parts of the way (EAP-IG): as many forward and backward
    passes, and effects of inputs that add up to the gap as `steps` grows.

    It is far off where the metric is far from linear in the patch: the stream of early layers, whose norms are not
    linear and of which a patch replaces nearly everything; MLP 0; queries and keys of heads whose attention is
    saturated, which have no gradient. `attrs` has `approximate=True`, `method` and `steps`.

    Raises NoGradient where autograd cannot follow the model (weights in integers, kernels without a backward), and for
    one step of "kl" with `direction="noise"`: the clean run, which is patched there, has KL 0, the least there is, so
    that the gradient is 0. NotEnoughMemory if the activations that it would keep are more than the session's budget;
    else as `patch_sweep`.
    """
    task, where = asked_map(
        session, clean, corrupted, site, answer, foil, metric, direction, layer=layer, head=head,
        by_position=by_position, neurons=neurons, interventions=interventions, answer_position=answer_position,
    )  # fmt: skip
    data = label(task, where, direction, estimate_grid(session, task, where, direction, steps), normalize)
    method = "attribution patching" if steps == 1 else "attribution patching with integrated gradients"
    return data.assign_attrs(approximate=True, method=method, steps=steps)


def way_back(
    session: Session, clean: Tokens, corrupted: Tokens, site: str, direction: str, interventions: Sequence[Intervention]
) -> Recorded | None:
    """Run the pair once for both its values and its gradient; None where the gradient is a pass of its own.

    `estimate_grid` is given it, after the task has found the runs.
    """
    base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    joins = session.causal and session.checked.one_pass and not interventions
    if not joins or SITES[site].base in ("scores", "pattern") or len(clean) != len(corrupted):
        return None
    return session.record(base, source, site, first_difference(base.ids, source.ids))


def estimate_grid(
    session: Session, task: Task, where: Grid, direction: str, steps: int = 1, recorded: Recorded | None = None
) -> np.ndarray:
    """What `run_grid` gives, estimated: the raw metric of each cell's patched run; NaN where there is no such cell.

    `recorded` is what `way_back` gave for the task's prompts, if anything; it is used up.
    """
    layers = sorted({cell.layer for cell in where.cells if cell is not None})
    of_entries = any(cell is not None and cell.entry is not None for cell in where.cells)
    effects = attribution(session, task, where.site, direction, layer=tuple(layers), steps=steps, recorded=recorded)
    # (position, [head,] width), or without the width
    tables = {i: (x if of_entries else x.sum(-1)).double().cpu().numpy() for i, x in effects.items()}

    def effect(cell: Cell | None) -> float:
        if cell is None:
            return np.nan
        table = tables[cell.layer] if cell.entry is None else tables[cell.layer][..., cell.entry]
        table = table if cell.head is None else table[:, cell.head]
        return table.sum() if cell.position is None else table[cell.position]

    return unpatched(task, direction) + np.array([effect(cell) for cell in where.cells], float).reshape(where.shape)


def doubt(task: Task, where: Grid, direction: str, estimate: np.ndarray) -> str:
    """Which estimates of a map are known to be far off, and why, in a sentence; empty if none is.

    Of the residual stream that is measured: to patch a whole layer of it is to run the other prompt, so that effects
    that were linear would add up to the whole gap.
    """
    base = SITES[where.site].base
    if base in ("q", "k"):
        return "Where attention is saturated it has no gradient: effects may be missed."
    if base == "mlp_out" and where.dims[0] == "layer" and where.coords["layer"][0] == 0:
        return "MLP 0 acts as part of the embedding, far from linear: do not trust its row."
    if not base.startswith("resid_") or task.gap_is_zero:
        return ""
    sign = 1 if direction == "denoise" else -1
    shares = (estimate - unpatched(task, direction)).sum(1) / (sign * task.gap)  # (layer,)
    off = np.flatnonzero(np.abs(shares - 1) > _OFF)
    if not len(off):
        return ""
    first, last = (where.coords["layer"][i] for i in (off[0], off[-1]))
    low, high = shares[off].min(), shares[off].max()
    sums = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
    rows = f"L{first}" if first == last else f"L{first} to L{last}"
    return f"Norms are not linear: estimates in {rows} add up to {sums} of the gap instead of 1."


def attribution(
    session: Session,
    task: Task,
    site: str,
    direction: str,
    *,
    layer: Index = None,
    steps: int = 1,
    recorded: Recorded | None = None,
) -> dict[int, Tensor]:
    """To first order, what patching each entry alone would add to the metric: (position, [head,] width) by layer.

    (source - base) times the base run's gradient, or the mean of gradients between the two (see `attribution_sweep`).
    Raises ValueError for `steps` that are not 1 or more, NoGradient for one where the metric is flat.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps={steps!r}: a whole number of gradients is needed, 1 or more")
    if steps == 1 and _is_flat(task, direction):
        raise NoGradient(
            "the KL divergence from the clean run is least in that run, which is the one patched with "
            "direction='noise', so that its gradient is 0: iw.attribution_sweep(..., steps=8), "
            "direction='denoise' and other metrics have one"
        )
    base, source = runs_of(task, direction)
    old, new = session.ask_all((base, source), (Site(site),), task.interventions)
    total: dict[int, Tensor] = {}
    if recorded is not None:
        total = {i: g.float() for (_, i), g in recorded.gradients(task.measure).items()}
    prefix = None if total else _prefix(session, task, base)
    for between in [] if total else _between(session, task, base, source, steps):
        found = session.gradients(
            base, site, task.measure, (*task.interventions, *between), layer=layer,
            answer_position=task.answer_position, prefix=prefix,
        )  # fmt: skip
        total = {i: g.float() + total.get(i, 0.0) for i, g in found.items()}
    change = {i: new.tensor(site, i).float() - old.tensor(site, i).float() for i in total}
    return {i: change[i].to(g.device) * g / steps for i, g in total.items()}


def top_neurons(session: Session, task: Task, site: str, layer: int | None, count: int, direction: str) -> list[int]:
    """The neurons of the largest attribution over all positions, largest first.

    Where the metric is flat, of the answer's log-probability: what moves that moves the distribution.
    """
    if SITES[site].base != "mlp_post" or layer is None:
        raise ValueError(f"neurons={count} are chosen from one layer of 'mlp_post': give that site and layer=...")
    if count < 1:
        raise ValueError(f"neurons={count}: a positive number, or a list of neurons, is needed")
    if _is_flat(task, direction):
        task = replace(task, metric="log_probability", measure=LogProbability(task.answer))
    (effects,) = attribution(session, task, site, direction, layer=layer).values()
    size = effects.sum(0).abs()  # (neuron,)
    return size.topk(min(count, len(size))).indices.tolist()


def _is_flat(task: Task, direction: str) -> bool:
    """Whether the metric has its minimum at the run that is patched."""
    return task.metric == "kl" and direction == "noise"


def _prefix(session: Session, task: Task, base: Tokens) -> Prefix | None:
    """Keys and values of the positions that both runs share: their gradients are of no use."""
    shares = session.causal and session.checked.one_pass
    length = min(shared_positions(task), task.answer_position) if shares else 0
    return session.prefix(base, length, task.interventions) if length else None


def _between(session: Session, task: Task, base: Tokens, source: Tokens, steps: int) -> list[tuple[Intervention, ...]]:
    """What brings the base run to each place on the way to the source run, at the embedding of tokens."""
    if steps == 1:
        return [()]
    sites = ["embed"]
    if base.source is not None and source.source is not None and base.source.ids != source.source.ids:
        if len(base.source) != len(source.source):
            raise ValueError(
                f"steps={steps}: what lies between two sources needs as many tokens in both; that of the run that is "
                f"patched has {len(base.source)}, the other {len(source.source)}"
            )
        sites.append("encoder.embed")
    ends = [session.ask_all((base, source), (Site(site),), task.interventions) for site in sites]
    values = [[run.tensor(site, None).float().cpu() for run in runs] for site, runs in zip(sites, ends, strict=True)]
    return [
        tuple(
            Patch(site, source=torch.lerp(old, new, (step + 0.5) / steps).numpy())
            for site, (old, new) in zip(sites, values, strict=True)
        )
        for step in range(steps)
    ]
