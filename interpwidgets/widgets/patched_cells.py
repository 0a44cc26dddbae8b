"""Cells of a patching map, {"site", "layer", "head", "position"}: checked, selected, and patched jointly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..engine.edits import Read
from ..engine.interventions import Patch
from ..engine.sites import Site, resolve
from ..methods.patching import runs_of, unpatched
from ..methods.predictions import compare_predictions
from ..methods.task import Task
from ..session import Run, Session
from ..tokens import Tokens
from .selection import Selection
from .wire import Wire, whole

PatchedCell = dict[str, Any]


def check_site(site: Any, sites: Sequence[str]) -> None:
    """Raises ValueError for what is none of these sites."""
    if site not in sites:
        raise ValueError(f"{site!r} cannot be patched here; this model has {', '.join(sites)}")


def checked_cell(session: Session, cell: Any, sites: Sequence[str], length: int) -> PatchedCell:
    """The cell, complete. Raises TypeError or ValueError if the model and prompts of this length do not have it."""
    if not isinstance(cell, dict) or not {"site", "layer"} <= cell.keys():
        raise TypeError(f"a cell is {{'site', 'layer', 'head', 'position'}}; got {cell!r}")
    check_site(cell["site"], sites)
    at = Site(cell["site"], whole(cell["layer"], "layer"), cell.get("head"), cell.get("position"))
    resolve(at.layer, session.engine.architecture.n_layers, "layer")
    for axis, size in (("head", _n_heads(session, at)), ("position", length)):
        index = getattr(at, axis)
        if index is not None:
            resolve(whole(index, axis), size, axis)
    return {"site": at.name, "layer": at.layer, "head": at.head, "position": at.position}


def selection_of(cells: Sequence[PatchedCell], clean: Tokens) -> Selection:
    """The last of some cells."""
    if not cells:
        return Selection()
    layer, head, position = (cells[-1][axis] for axis in ("layer", "head", "position"))
    return Selection(layer, head, position, token=None if position is None else clean.ids[position])


def patched_run(session: Session, task: Task, cells: Sequence[PatchedCell], direction: str) -> Wire:
    """The run with these cells patched jointly: its predictions beside the clean and the corrupted ones, its metric."""
    base, source = runs_of(task, direction)
    read = session.read(source, task.interventions)
    patches = [_patch(cell, source, read) for cell in cells]
    patched = session.ask(base, (), (*task.interventions, *patches))
    runs: dict[str, Run] = {
        "clean": session.ask(task.clean, (), task.interventions),
        "corrupted": session.ask(task.corrupted, (), task.interventions),
        "patched": patched,
    }
    rows, _ = compare_predictions(session, runs)
    return {
        "cells": cells,
        "rows": rows,
        "value": float(task.measure(patched.prediction[None])[0]),
        "baseline": unpatched(task, direction),
    }


def _patch(cell: PatchedCell, source: Tokens, read: Read) -> Patch:
    """The patch of one cell, its values read from the source prompt's run."""
    site: str = cell["site"]
    layer, head, position = cell["layer"], cell.get("head"), cell.get("position")
    values = read(source.prompt, site, layer)  # (position, [head,] width)
    values = values if head is None else values[:, head]
    return Patch(
        site, layer=layer, head=head, position=position, source=values if position is None else values[position]
    )


def _n_heads(session: Session, at: Site) -> int:
    a = session.engine.architecture
    return (a.n_kv_heads if at.info.heads == "kv" else a.n_heads)[at.layer] if isinstance(at.layer, int) else 0
