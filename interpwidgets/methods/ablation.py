"""Ablation sweeps: which activations does a prediction need.

Terms are those of Chan et al. 2022, "Causal scrubbing", and Zhang & Nanda 2309.16042: zero, mean and resample ablation.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..engine.interventions import Ablate, Intervention, Patch
from ..engine.names import unknown
from ..engine.sites import SITES, parse_name
from ..engine.sweep import Progress
from ..run import NOTHING_MASKED
from ..session import Session
from .cells import Cell, Grid, grid, strings_of
from .patching import TOKEN_OF, TokenWarning
from .task import METRICS, measure_of, missing_space

HOWS = ("zero", "mean", "resample")


def ablation_sweep(
    session: Session,
    prompt: Any,
    site: str = "z",
    how: Literal["zero", "mean", "resample"] = "zero",
    reference: Any = None,
    answer: int | str | None = None,
    foil: int | str | None = None,
    metric: str = "logit_diff",
    progress: Progress | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    by_position: bool = False,
    neurons: Sequence[int] | None = None,
    interventions: tuple[Intervention, ...] = (),
) -> xr.DataArray:
    """Ablate one activation at a time, and measure how the prediction changes.

    `site`, `layer`, `head`, `by_position` and `neurons`, of which a list is needed, choose the map as in `patch_sweep`.
    `how` and `reference` are those of `Ablate`: "zero"; "mean" over the positions of this prompt, or of the `reference`
    prompts; "resample", from one reference prompt of as many tokens. Single edges and neurons keep the rest of what
    they are part of. Attention weights have no mean: it would be one over queries, which see different keys.

    Gives the metric of the ablated run minus that of the undisturbed one, which is `attrs["base"]`, in the metric's
    units: 0 is no effect. `answer` defaults to the run's top prediction, `foil` to the likeliest other token; "kl" is
    of the undisturbed prediction from the ablated one. An answer or foil without its leading space is warned of as in
    `patch_sweep`. `interventions` act in all runs. All cells share one pass.

    Example: `iw.ablation_sweep(session, prompt, "z", how="mean")`
    """
    site, named = parse_name(site)
    layer = named if layer is None else layer
    if how not in HOWS:
        raise unknown("how", how, HOWS)
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    tokens = session.tokenize(prompt)
    at = session.answer_position(tokens)
    if at is None:
        raise ValueError(NOTHING_MASKED)
    where = grid(session, site, tokens, layer=layer, head=head, by_position=by_position, neurons=neurons)
    if SITES[site].base == "pattern" and how == "mean":
        raise ValueError("the mean of attention weights is not defined: how='zero' or 'resample' is needed")
    logits = session.ask(tokens, interventions=interventions).prediction.float()  # (token,)
    likeliest = logits.topk(2).indices.tolist()
    answer_id = likeliest[0] if answer is None else session.token_id(answer)
    foil_id = likeliest[likeliest[0] == answer_id] if foil is None else session.token_id(foil)
    if foil_id == answer_id and metric == "logit_diff":
        raise ValueError(f"answer and foil are both {session.show_token(foil_id)!r} (id {foil_id}): give another foil")
    if hint := missing_space(session, {"answer": answer, "foil": foil}, [logits]):
        warnings.warn(hint, TokenWarning, stacklevel=2)
    measure = measure_of(metric, answer_id, foil_id, logits)
    rows = ablation_rows(where, how, reference)
    result = session.sweep(tokens, rows, measure, interventions=interventions, answer_position=at, progress=progress)
    absent = np.array([cell is None for cell in where.cells])
    values = np.where(absent, np.nan, result.values - result.base).reshape(where.shape)
    data = xr.DataArray(values, dims=where.dims, coords=where.coords, name=site)
    for dim, strings in strings_of(where, tokens).items():
        data = data.assign_coords({TOKEN_OF[dim]: (dim, strings)})
    data.attrs = {"metric": metric, "units": METRICS[metric], "how": how, "base": result.base}
    data.attrs |= {"answer": answer_id, "foil": foil_id}
    return data


def ablation_rows(where: Grid, how: Literal["zero", "mean", "resample"], reference: Any) -> list[list[Intervention]]:
    """Each cell's ablation; none where there is no such cell."""
    prompts = Ablate("embed", how=how, reference=reference).references()  # raises for a reference that does not fit

    def row(cell: Cell | None) -> list[Intervention]:
        if cell is None:
            return []
        at: dict[str, Any] = {"layer": cell.layer, "head": cell.head, "position": cell.position, "entry": cell.entry}
        if prompts is not None and SITES[where.site].base == "pattern":
            return [Patch(where.site, **at, source=prompts[0])]
        return [Ablate(where.site, **at, how=how, reference=prompts)]

    return [row(cell) for cell in where.cells]
