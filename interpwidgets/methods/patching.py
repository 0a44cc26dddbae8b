"""Activation patching: which activations carry the difference between a clean and a corrupted prompt.

Conventions follow Heimersheim & Nanda 2404.15255 and TransformerLens' `patching.py`: denoising patches the clean
run's activations into the corrupted run and asks what restores the answer; noising patches the corrupted run's into
the clean run and asks what breaks it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from ..engine.interventions import Ablate, Intervention, Patch
from ..engine.names import unknown
from ..engine.plan import Plan
from ..engine.sites import SITES, Site, parse_name
from ..engine.sweep import Progress
from ..session import Session
from ..tokens import Tokens
from .cells import Cell, Grid, grid, strings_of
from .task import METRICS, Task, patching_task, require_same_length

TOKEN_OF = {"position": "token", "query": "query_token", "key": "key_token"}
"""What the tokens along an axis are called."""


class ZeroGapWarning(UserWarning):
    """The clean and the corrupted run score the same, so that effects cannot be normalised."""


class TokenWarning(UserWarning):
    """An answer or foil is probably not the token that was meant."""


def patch_sweep(
    session: Session,
    clean: Any,
    corrupted: Any,
    site: str = "resid_pre",
    answer: int | str | None = None,
    foil: int | str | None = None,
    metric: str = "logit_diff",
    direction: Literal["denoise", "noise"] = "denoise",
    normalize: bool = True,
    progress: Progress | bool | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    by_position: bool = False,
    neurons: int | Sequence[int] | None = None,
    interventions: tuple[Intervention, ...] = (),
    answer_position: int | None = None,
) -> xr.DataArray:
    """Patch one activation at a time from one run into the other, and measure the prediction at `answer_position`.

    By default that is the last position; in a masked language model the first mask, which both prompts must have at the
    same position.

    Residual sites (resid_pre, resid_mid, resid_post, attn_out, mlp_out): one patch a cell, (layer, position). Head
    sites (z, q, k, v) and `pattern`: a head at all positions, (layer, head); with `by_position`, one head at one
    position (of `pattern`: one query), (layer, head, position); with `layer`, of that layer only, (head, position).
    `pattern` with `layer` and `head`: one attention edge, (query, key), of which the rest of the row stays as it is.
    `mlp_post` with `layer`: one neuron at all positions, (neuron,); `neurons` names those wanted, or says how many:
    those of the largest attribution (`attribution_sweep`; for "kl" and "noise" of the log-probability), largest first.
    Layers that lack the site are left out (`layer` names those that have it); NaN stands for a head that a layer does
    not have, and for keys that a causal query does not see.

    `direction`: "denoise" writes clean activations into the corrupted run, "noise" corrupted ones into the clean
    run. `metric`: "logit_diff" (answer minus foil), "log_probability" or "probability" of the answer, "kl" (of the
    clean prediction from the patched one). `normalize=True` gives `(patched - corrupted) / (clean - corrupted)`,
    for which 1 is the clean run and 0 the corrupted one in either direction; where that gap is zero, warns and
    gives raw values. `answer` and `foil` are one token each, text or id; by default the clean run's top prediction
    and the corrupted run's likeliest other token. `progress`: True for a bar, or a function (done, total).
    `interventions` act in all runs.

    An answer or foil without its leading space, where the token with one is likelier, is warned of (TokenWarning).

    In a model with an encoder these are the decoder's sites; `encoder.<site>` and `cross.<site>` are swept likewise, by
    positions of the source where theirs are. Prompts are `SourceTarget`s, whose sources may differ in length where only
    the decoder's positions count.

    Compared with TransformerLens' `get_act_patch_*`: with `normalize=False` and its metric the values are the same;
    noising is its sweep with the prompts exchanged; its maps by position are (layer, position, head); where heads
    share keys and values, `k` and `v` have key/value heads only, which its `*_every` maps pad with 0.

    All cells share one forward pass (`Session.sweep`). Raises ValueError for prompts of different token length,
    showing both.
    """
    task, where = asked_map(
        session, clean, corrupted, site, answer, foil, metric, direction, layer=layer, head=head,
        by_position=by_position, neurons=neurons, interventions=interventions, answer_position=answer_position,
    )  # fmt: skip
    bar = tqdm(total=1, desc=f"patching {where.site}", unit="cell") if progress is True else None

    def report(done: int, total: int) -> None:
        if bar is not None:
            bar.total = total
            bar.update(done - bar.n)
        elif callable(progress):
            progress(done, total)

    values = run_grid(session, task, where, direction, progress=report)
    if bar is not None:
        bar.close()
    return label(task, where, direction, values, normalize)


def asked_map(
    session: Session,
    clean: Any,
    corrupted: Any,
    site: str,
    answer: int | str | None,
    foil: int | str | None,
    metric: str,
    direction: str,
    *,
    layer: int | None,
    head: int | None,
    by_position: bool,
    neurons: int | Sequence[int] | None,
    interventions: tuple[Intervention, ...],
    answer_position: int | None,
) -> tuple[Task, Grid]:
    """What `patch_sweep` measures, and its cells; the arguments, warnings and errors are its own."""
    site, named = parse_name(site)
    layer = named if layer is None else layer
    if direction not in ("denoise", "noise"):
        raise unknown("direction", direction, ("denoise", "noise"))
    task = patching_task(
        session, clean, corrupted, answer, foil, metric, interventions, sources(session, site), answer_position
    )
    if task.hint:
        warnings.warn(task.hint, TokenWarning, stacklevel=3)
    if isinstance(neurons, int | np.integer):
        from .attribution import top_neurons  # which builds on this file

        neurons = top_neurons(session, task, site, layer, int(neurons), direction)
    return task, grid(session, site, task.clean, layer=layer, head=head, by_position=by_position, neurons=neurons)


def patch_sets(
    session: Session,
    clean: Any,
    corrupted: Any,
    sets: Sequence[Sequence[Site]],
    answer: int | str | None = None,
    foil: int | str | None = None,
    metric: str = "logit_diff",
    direction: Literal["denoise", "noise"] = "denoise",
    normalize: bool = True,
    progress: Progress | None = None,
    *,
    interventions: tuple[Intervention, ...] = (),
) -> xr.DataArray:
    """Patch several activations together, one set at a time: (set,), with the sets' sites written out in `sites`.

    What is not named here is as in `patch_sweep`; all sets share one forward pass.

    Example: `iw.patch_sets(session, clean, corrupted, [[iw.Site("z", 23, 3), iw.Site("z", 21, 1)], [...]])`
    """
    if direction not in ("denoise", "noise"):
        raise unknown("direction", direction, ("denoise", "noise"))
    names = dict.fromkeys(site.name for each in sets for site in each)
    capture = tuple(dict.fromkeys(site for name in names for site in sources(session, name)))
    task = patching_task(session, clean, corrupted, answer, foil, metric, interventions, capture)
    if task.hint:
        warnings.warn(task.hint, TokenWarning, stacklevel=2)
    base, source = runs_of(task, direction)
    rows = [
        [Patch(s.name, layer=s.layer, head=s.head, position=s.position, source=source.prompt) for s in each]
        for each in sets
    ]
    prefix = shared_positions(task)
    result = session.sweep(
        base, rows, task.measure, interventions=interventions, answer_position=task.answer_position, prefix=prefix,
        progress=progress,
    )  # fmt: skip
    coords = {"set": np.arange(len(sets))}
    where = Grid("sets", coords, [None] * len(sets))
    data = label(task, where, direction, result.values, normalize)
    return data.assign_coords(sites=("set", [" + ".join(map(_spelled, each)) for each in sets]))


def _spelled(site: Site) -> str:
    given = ((axis, getattr(site, axis)) for axis in ("layer", "head", "position"))
    return " ".join([site.name, *(f"{axis} {index}" for axis, index in given if index is not None)])


def runs_of(task: Task, direction: str) -> tuple[Tokens, Tokens]:
    """The prompt that is patched, and the one whose activations are written into it."""
    return (task.corrupted, task.clean) if direction == "denoise" else (task.clean, task.corrupted)


def shared_positions(task: Task) -> int:
    """How many positions are the same in all rows of a sweep: those before the first differing token."""
    first = task.first_difference if _shares_prefix(task.interventions) else 0
    return first if first < len(task.clean) else 0


def sources(session: Session, site: str) -> tuple[Site, ...]:
    """What both runs capture: the site, and the keys and values that the sweep's rows share, if they can."""
    shared = (Site("k"), Site("v")) if session.checked.one_pass and session.causal else ()
    return (Site(site), *shared)


@dataclass(frozen=True)
class Patches:
    """A map as a sweep: each cell's patch of the prompt `base` (none where it would change nothing)."""

    base: Tokens
    rows: list[list[Intervention]]
    prefix: int
    """How many positions are the same in all rows."""


def run_grid(
    session: Session,
    task: Task,
    where: Grid,
    direction: str,
    *,
    patches: Patches | None = None,
    priority: np.ndarray | None = None,
    progress: Progress | None = None,
    partial: Callable[[np.ndarray], None] | None = None,
) -> np.ndarray:
    """The raw metric of each cell's patched run; NaN where there is no such cell.

    `patches` are the cells' if they are known already; `priority` is shaped as the map, and its highest cells are
    computed first.
    """
    patches = patches or patch_rows(session, task, where, direction)
    untouched = np.array([not row for row in patches.rows])
    absent = np.array([cell is None for cell in where.cells])

    def shaped(values: np.ndarray) -> np.ndarray:
        values = np.where(untouched, unpatched(task, direction), values)
        return np.where(absent, np.nan, values).reshape(where.shape)

    result = session.sweep(
        patches.base, patches.rows, task.measure, interventions=task.interventions,
        answer_position=task.answer_position, prefix=patches.prefix, progress=progress,
        partial=None if partial is None else lambda values: partial(shaped(values)),
        priority=() if priority is None else priority.ravel().tolist(),
    )  # fmt: skip
    return shaped(result.values)


def unpatched(task: Task, direction: str) -> float:
    """The metric of the run that is patched."""
    return task.corrupted_value if direction == "denoise" else task.clean_value


def plan_patches(session: Session, task: Task, patches: Patches) -> Plan:
    """What `run_grid` will compute."""
    return session.plan(
        patches.base, patches.rows, interventions=task.interventions, answer_position=task.answer_position,
        prefix=patches.prefix,
    )  # fmt: skip


def patch_rows(session: Session, task: Task, where: Grid, direction: str) -> Patches:
    """Each cell's patch, and what all of them share."""
    base, source = runs_of(task, direction)
    info = SITES[where.site]
    if info.of_source or (info.keys_of_source and "key" in info.dims):
        require_same_length("sources", task.clean.keys_of(info), task.corrupted.keys_of(info))
    first = unaffected(session, task)
    runs = session.ask_all((base, source), (Site(where.site),), task.interventions)

    def row(cell: Cell | None) -> list[Intervention]:
        if cell is None or first == len(base) or (cell.position is not None and cell.position < first):
            return []
        old, new = (run.tensor(where.site, cell.layer) for run in runs)  # (position, [head,] width)
        at = slice(first, None) if cell.position is None else cell.position
        part = (at,) if cell.head is None else (at, cell.head)
        part = part if cell.entry is None else (*part, ..., cell.entry)
        # Such as the embedding of a token that is the same in both prompts.
        if torch.equal(old[part], new[part]):
            return []
        place: dict[str, Any] = {"layer": cell.layer, "head": cell.head, "position": at, "entry": cell.entry}
        return [Patch(where.site, **place, source=source.prompt)]

    return Patches(base, [row(cell) for cell in where.cells], shared_positions(task))


def unaffected(session: Session, task: Task) -> int:
    """How many positions at the start are the same in both runs, so that a patch there changes nothing."""
    return task.first_difference if session.causal and _shares_prefix(task.interventions) else 0


def _shares_prefix(interventions: tuple[Intervention, ...]) -> bool:
    """Whether runs of both prompts under these agree before the first differing token, cached keys too."""
    for i in interventions:
        over_own_prompt = isinstance(i, Ablate) and i.how == "mean" and i.reference is None
        # Cached keys and values are edited already; a pass that reads them would edit them again.
        if over_own_prompt or i.site in ("k", "v"):
            return False
    return True


def label(task: Task, where: Grid, direction: str, values: np.ndarray, normalize: bool) -> xr.DataArray:
    """Name the axes of raw metric values, normalised if asked and possible."""
    if normalize and task.gap_is_zero:
        warnings.warn(
            f"clean and corrupted score the same ({task.clean_value:.4g} {METRICS[task.metric]}), so effects cannot be "
            "normalised; raw values are given. Are the prompts, answer and foil the intended ones?",
            ZeroGapWarning,
            stacklevel=3,
        )
        normalize = False
    if normalize:
        values = (values - task.corrupted_value) / task.gap
    data = xr.DataArray(values, dims=where.dims, coords=where.coords, name=where.site)
    for name, tokens in (("clean", task.clean), ("corrupted", task.corrupted)):
        for dim, strings in strings_of(where, tokens).items():
            data = data.assign_coords({f"{name}_{TOKEN_OF[dim]}": (dim, strings)})
    data.attrs = {
        "metric": task.metric,
        "units": "share of the clean-corrupted gap" if normalize else METRICS[task.metric],
        "direction": direction,
        "normalized": normalize,
        "clean": task.clean_value,
        "corrupted": task.corrupted_value,
        "answer": task.answer,
        "foil": task.foil,
    }
    return data
