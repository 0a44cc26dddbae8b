"""Every figure of RESULTS.md: `python -m tests.benchmarks` (`make bench`); `--quick` tries it out on tiny models."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# Progress bars of the peers would cost time and fill the screen. Read when tqdm is imported.
os.environ.setdefault("TQDM_DISABLE", "1")

import torch

from . import compare, drawing, frames, machine, memory, plot, preview, report, scaling, startup, wire
from .workloads import workloads

HERE = Path(__file__).parent
PARTS = ("sweeps", "growth", "memory", "startup", "wire", "drawing", "preview")


def main() -> int:
    """Measure the parts asked for; 1 if any tool's values differ from ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny models and short prompts; the figures mean nothing")
    parser.add_argument("--part", choices=PARTS, action="append", help="may be repeated; all by default")
    parser.add_argument("--only", metavar="TEXT", default="", help="sweeps of workloads with this in their name")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and its plot beside this file")
    options = parser.parse_args()
    if options.write and (options.quick or options.part or options.only):
        parser.error("--write is for a whole run")
    parts = options.part or (["sweeps"] if options.only else PARTS)
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    results = report.Results(machine.described())
    if options.quick:
        results.facts.append("tiny models in place of those named: times and ratios mean nothing")
    start, load = time.perf_counter(), machine.load()
    if "sweeps" in parts:
        for workload in workloads(quick=options.quick, devices=devices):
            if options.only in workload.name:
                _say(workload.name, workload.model, workload.dtype, workload.device)
                results.outcomes.append(compare.compare(workload, quick=options.quick))
                _say("  seconds:", *(f"{tool} {t[-1]:.3g}" for tool, t in results.outcomes[-1].seconds.items()))
    _rest(results, parts, options.quick)
    took = time.perf_counter() - start
    results.facts.append(f"load average {load} before, {machine.load()} after; all of it took {took / 60:.0f} minutes")
    if options.write:
        (HERE / "results.svg").write_text(plot.plot(results.outcomes), encoding="utf-8")
        (HERE / "RESULTS.md").write_text(report.page(results, "results.svg"), encoding="utf-8")
    print(report.page(results))
    return 0 if all(outcome.same for outcome in results.outcomes) else 1


def _rest(results: report.Results, parts: list[str] | tuple[str, ...], quick: bool) -> None:
    if "growth" in parts:
        _say("growth")
        results.curves, results.threads = scaling.curves(quick=quick), scaling.by_threads(quick=quick)
    if "memory" in parts and not quick:
        _say("memory")
        results.peaks = list(memory.peaks(memory.LENGTHS, memory.SWEEPS))
    if "startup" in parts:
        _say("startup")
        results.startup = startup.startup(runs=1 if quick else 3, load=not quick)
    if not {"wire", "drawing", "preview"} & set(parts):
        return
    with wire.opened(quick) as (session, pair_of):
        if "wire" in parts:
            _say("wire")
            results.modules = wire.modules()
            results.sent = wire.clicks(session, pair_of, wire.QUICK if quick else wire.LENGTHS)
        if "preview" in parts:
            _say("preview")
            results.previews = list(preview.previews(session, preview.pairs(quick), runs=1 if quick else 5))
        if "drawing" in parts:
            _say("drawing")
            lengths = (15,) if quick else drawing.LENGTHS
            results.frames = frames.frames(runs=5 if quick else 30)
            results.drawn = drawing.drawings(session, [pair_of(n).clean for n in lengths], runs=1 if quick else 3)


def _say(*what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}", *what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
