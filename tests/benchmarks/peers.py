"""The same cells by each tool: one function a tool, which gets ready and gives back what is timed.

`get ready` is not timed for a peer: its clean run is cached. Ours is timed cold, both runs of the prompts included.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformer_lens import patching
from transformers import PreTrainedModel

import interpwidgets as iw
from tests.parity.bridge import bridge_to

from .workloads import Cell, Workload

Run = Callable[[Sequence[Cell]], np.ndarray]
"""Cells -> the answer's logit minus the foil's after each, (pair, cell)."""

_LENS = {
    "resid_pre": (patching.get_act_patch_resid_pre, "pos"),
    "attn_out": (patching.get_act_patch_attn_out, "pos"),
    "mlp_out": (patching.get_act_patch_mlp_out, "pos"),
    "z": (patching.get_act_patch_attn_head_out_all_pos, "head"),
}
_MODULES = {  # blocks, and in a block: attention, its output projection, MLP
    "llama": ("model.layers", "self_attn", "o_proj", "mlp"),
    "gpt2": ("transformer.h", "attn", "c_proj", "mlp"),
    "gpt_neox": ("gpt_neox.layers", "attention", "dense", "mlp"),
}


def interpwidgets(session: iw.Session, workload: Workload) -> Run:
    """The whole maps, cold, of several pairs in one call; `cells` are picked from them afterwards."""
    order = {cell: i for i, cell in enumerate(workload.cells(*layers_and_heads(session.model)))}
    maps = _one_map if len(workload.pairs) == 1 else _maps

    def run(cells: Sequence[Cell]) -> np.ndarray:
        forget(session)
        found = np.concatenate([maps(session, workload, site) for site in workload.sites], 1)  # (pair, cell)
        return found[:, [order[cell] for cell in cells]]

    return run


def _one_map(session: iw.Session, workload: Workload, site: str) -> np.ndarray:
    """`patch_sweep` of the only pair, (1, cell)."""
    (pair,) = workload.pairs
    asked = {"answer": pair.answer, "foil": pair.foil, "normalize": False}
    return iw.patch_sweep(session, pair.clean, pair.corrupted, site, **asked).values.reshape(1, -1)


def _maps(session: iw.Session, workload: Workload, site: str) -> np.ndarray:
    """`patch_pairs`, (pair, cell): its effects are from the corrupted run, which every cell's logit difference is."""
    pairs = [iw.Pair(p.clean, p.corrupted, p.answer, p.foil) for p in workload.pairs]
    effects = iw.patch_pairs(session, pairs, site, normalize=False)["effect"].values.reshape(len(pairs), -1)
    unpatched = [session.ask(session.tokenize(p.corrupted)).prediction for p in workload.pairs]  # kept runs
    return effects + [[float(x[p.answer] - x[p.foil])] for x, p in zip(unpatched, workload.pairs, strict=True)]


def forget(session: iw.Session) -> None:
    """Drop the results that a session keeps, so that the next sweep begins from nothing."""
    budget = session.memory_budget
    session.memory_budget = 1
    session.memory_budget = budget


def transformer_lens(model: PreTrainedModel, workload: Workload) -> Run:
    """`get_act_patch_*` of TransformerLens on the chosen cells; several pairs are one batch."""
    bridge = bridge_to(model)
    clean, corrupted, measure = _batch(workload, model.device)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)

    def run(cells: Sequence[Cell]) -> np.ndarray:
        columns: list[np.ndarray] = []
        for site in workload.sites:
            function, axis = _LENS[site]
            chosen = [(cell.layer, cell.index) for cell in cells if cell.site == site]
            if chosen:
                rows = pd.DataFrame(chosen, columns=["layer", axis])
                ask = partial(function, bridge, corrupted, cache, measure, index_axis_names=None, index_df=rows)
                with torch.no_grad():
                    found = ask(reduce="none")
                columns.append(found.values.float().cpu().numpy().T)  # (row, pair)
        return np.concatenate(columns, 1)

    return run


def nnsight(model: PreTrainedModel, workload: Workload) -> Run:
    """One nnsight trace a cell, on a module tree of its own with the same parameters; several pairs are one batch."""
    # Imported late: nnsight replaces functions of torch.
    from nnsight import NNsight

    blocks, attention, projection, mlp = _MODULES[model.config.model_type]
    wrapped = NNsight(copy.deepcopy(model, {id(t): t for t in [*model.parameters(), *model.buffers()]}))
    layers = operator.attrgetter(blocks)(wrapped)
    width = model.get_input_embeddings().weight.shape[1] // layers_and_heads(model)[1]
    clean, corrupted, measure = _batch(workload, model.device)

    def activation(site: str, layer: int) -> Tensor:
        """(batch, position, width), of the trace that is running."""
        block = layers[layer]
        if site == "resid_pre":
            return block.input
        if site == "mlp_out":
            return getattr(block, mlp).output
        here = getattr(block, attention)
        return here.output[0] if site == "attn_out" else getattr(here, projection).input

    source = {}
    for site in workload.sites:
        for layer in range(len(layers)):
            with torch.no_grad(), wrapped.trace(clean):
                value = activation(site, layer).clone().save()
            source[site, layer] = value

    def patched(cell: Cell) -> Tensor:
        head = slice(cell.index * width, (cell.index + 1) * width)
        at = (slice(None), slice(None), head) if cell.site == "z" else (slice(None), cell.index)
        value = source[cell.site, cell.layer][at]
        with torch.no_grad(), wrapped.trace(corrupted):
            activation(cell.site, cell.layer)[at] = value
            logits = wrapped.output.logits.save()
        return measure(logits)

    return lambda cells: torch.stack([patched(cell) for cell in cells], 1).cpu().numpy()


def versions() -> dict[str, str]:
    """What is compared."""
    names = ("torch", "transformers", "transformer-lens", "nnsight")
    return {"interpwidgets": iw.__version__} | {name: version(name) for name in names}


def layers_and_heads(model: PreTrainedModel) -> tuple[int, int]:
    return model.config.num_hidden_layers, model.config.num_attention_heads


def _batch(workload: Workload, device: Any) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Both prompts of all pairs (pair, position), and the metric (pair, position, token) -> (pair,)."""
    pairs = workload.pairs
    clean, corrupted = (torch.tensor([getattr(p, w) for p in pairs], device=device) for w in ("clean", "corrupted"))
    answers, foils = (torch.tensor([getattr(p, w) for p in pairs], device=device) for w in ("answer", "foil"))

    def measure(logits: Tensor) -> Tensor:
        row = torch.arange(len(pairs), device=device)
        return logits[row, -1, answers].float() - logits[row, -1, foils].float()

    return clean, corrupted, measure
