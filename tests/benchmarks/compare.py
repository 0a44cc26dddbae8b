"""One workload by every tool: alternating, timed, and compared number by number."""

from __future__ import annotations

import copy
import gc
import time

import numpy as np
import torch

import interpwidgets as iw

from . import floor, peers
from .outcome import OURS, Outcome
from .workloads import Workload, model_of

TOLERANCE = 1e-5
"""Largest difference of float32 values, as a share of the largest value; at least as many logits."""
LONGEST = 120
"""Seconds after which no further round of the tools begins."""
PEERS = {"TransformerLens": peers.transformer_lens, "nnsight": peers.nnsight}


def compare(workload: Workload, *, quick: bool) -> Outcome:
    """Run a workload by all tools, A B C A B C; a peer runs two cells first to warm up."""
    model = model_of(workload.model, quick)
    if (workload.dtype, workload.device) != ("float32", "cpu"):
        model = copy.deepcopy(model).to(workload.device, getattr(torch, workload.dtype))
    every = workload.cells(*peers.layers_and_heads(model))
    cells = workload.chosen(every)
    outcome = Outcome(workload, len(every), len(cells), floor.operations(model, workload))
    # The trees of the peers are made before the session puts its hooks into the model.
    runs = {tool: ready(model, workload) for tool, ready in PEERS.items()}
    with iw.Session(model) as session:
        runs = {OURS: peers.interpwidgets(session, workload), **runs}
        values = {tool: runs[tool](cells[:2]) for tool in PEERS}
        begun = time.perf_counter()
        while len(outcome.seconds.get(OURS, ())) < workload.runs and time.perf_counter() - begun < LONGEST:
            before = floor.rate(model)
            for tool, run in runs.items():
                start = time.perf_counter()
                values[tool] = run(cells)
                spent = time.perf_counter() - start
                scale = 1.0 if tool == OURS else len(every) / len(cells)
                outcome.seconds.setdefault(tool, []).append(spent * scale)
                if tool == OURS:
                    outcome.rates.append((before + floor.rate(model)) / 2)
    _judge(outcome, values, _exact(workload, cells, quick))
    del runs, session, model
    gc.collect()
    return outcome


def _exact(workload: Workload, cells: list[peers.Cell], quick: bool) -> np.ndarray | None:
    """What lower precision is measured against: TransformerLens' values of the same weights in float32."""
    if workload.dtype == "float32":
        return None
    model = copy.deepcopy(model_of(workload.model, quick)).to(getattr(torch, workload.dtype)).float()
    return peers.transformer_lens(model, workload)(cells)


def _judge(outcome: Outcome, values: dict[str, np.ndarray], exact: np.ndarray | None) -> None:
    """float32: ours are the peers' values. Lower precision: at most twice as far from float32's as one of theirs."""
    if exact is None:
        outcome.allowed = TOLERANCE * max(1.0, float(np.abs(values[OURS]).max()))
        outcome.difference = {tool: float(np.abs(values[tool] - values[OURS]).max()) for tool in PEERS}
    else:
        outcome.errors = {tool: float(np.abs(found - exact).max()) for tool, found in values.items()}
        outcome.allowed = 2 * max(outcome.errors[tool] for tool in PEERS)
        outcome.difference = {OURS: outcome.errors[OURS]}
