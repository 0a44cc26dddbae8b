"""The one-pass sweep against TransformerLens, one forward pass a cell: `python -m tests.benchmarks.sweep`."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from transformer_lens import patching

import interpwidgets as iw
from tests.parity.bridge import bridge_to

CLEAN = "When John and Mary went to the store, Mary gave the bag to"
CORRUPTED = "When John and Mary went to the store, John gave the bag to"
ANSWER, FOIL = " John", " Mary"
TOLERANCE = 1e-4
THEIRS = {
    "resid_pre": (patching.get_act_patch_resid_pre, "pos"),
    "z": (patching.get_act_patch_attn_head_out_all_pos, "head"),
}


def timed(run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds that a run took, and what it gave."""
    start = time.perf_counter()
    values = run()
    return time.perf_counter() - start, values


def our_sweep(session: iw.Session, site: str) -> np.ndarray:
    """One cold sweep: no run of the prompts is remembered from before."""
    session._results.clear()
    return iw.patch_sweep(session, CLEAN, CORRUPTED, site, ANSWER, FOIL, normalize=False).values


def their_sweep(session: iw.Session, site: str, layers: list[int], shape: tuple[int, int]) -> tuple[float, np.ndarray]:
    """TransformerLens' sweep of these layers; the clean run's cache is not counted."""
    bridge = bridge_to(session.model)
    clean, corrupted = (torch.tensor([session.tokenize(prompt).ids]) for prompt in (CLEAN, CORRUPTED))
    answer, foil = session.token_id(ANSWER), session.token_id(FOIL)

    def difference(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1, answer] - logits[0, -1, foil]

    function, axis = THEIRS[site]
    cells = pd.DataFrame([(layer, i) for layer in layers for i in range(shape[1])], columns=["layer", axis])
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)
        if len(layers) == shape[0]:
            return timed(lambda: function(bridge, corrupted, cache, difference).numpy())
        some = partial(function, bridge, corrupted, cache, difference, index_axis_names=None, index_df=cells)
        return timed(lambda: some().numpy().reshape(len(layers), shape[1]))


def compare(session: iw.Session, site: str, quick: bool, runs: int) -> bool:
    """Print both times and the largest difference; False if that is too large."""
    _, ours = timed(lambda: our_sweep(session, site))
    seconds = [timed(lambda: our_sweep(session, site))[0] for _ in range(runs)]
    our_time = statistics.median(seconds)
    n_layers = ours.shape[0]
    layers = [0, n_layers // 2, n_layers - 1] if quick else list(range(n_layers))
    spent, theirs = their_sweep(session, site, layers, ours.shape)
    their_time = spent * n_layers / len(layers)
    worst = float(np.abs(ours[layers] - theirs).max())
    print(f"\n{site}: {ours.shape[0]} x {ours.shape[1]} cells")
    spread = f"median of {runs} cold runs, {min(seconds):.2f} to {max(seconds):.2f}"
    print(f"  interpwidgets     {our_time:8.2f} s   ({spread})")
    how = f"extrapolated from {len(layers)} of {n_layers} layers, {spent:.2f} s" if quick else "one whole run"
    print(f"  TransformerLens   {their_time:8.2f} s   ({how})")
    print(f"  ratio             {their_time / our_time:8.1f}")
    print(f"  largest difference {worst:.1e} logits (at most {TOLERANCE:.0e})")
    return worst <= TOLERANCE


def main() -> int:
    """Run the comparisons asked for; 1 if any differs by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", choices=THEIRS, action="append", help="resid_pre by default; may be repeated")
    parser.add_argument("--quick", action="store_true", help="three layers of TransformerLens, extrapolated")
    parser.add_argument("--runs", type=int, default=5, help="cold runs of ours, after one to warm up")
    arguments = parser.parse_args()
    packages = ("torch", "transformers", "transformer-lens")
    print(f"{os.cpu_count()} CPUs ({platform.machine()}), {torch.get_num_threads()} torch threads")
    print(f"Python {platform.python_version()}, interpwidgets {iw.__version__}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print(f"load average at the start: {os.getloadavg()[0]:.1f}")
    with iw.load() as session:
        print(f"{session.name}, {session.engine.dtype_name}, {session.engine.device}")
        sites = arguments.site or ["resid_pre"]
        same = [compare(session, site, arguments.quick, arguments.runs) for site in sites]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
