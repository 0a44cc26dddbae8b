"""All stress figures: `python -m tests.stress`; more with `--clicks 2000 --requests 100000 --interrupts 5000`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

import interpwidgets as iw
from tests.models import tiny

from . import faults, memory
from .clicking import click_while_the_user_works
from .wire import fuzz


def inject(interrupts: int, seed: int) -> Counter:
    """Every fault at every module of a run, each kind of fault in each operation, and interrupts at random points."""
    figures: Counter = Counter()
    draw = np.random.default_rng(seed)
    bare = tiny("llama", num_hidden_layers=2)
    with iw.Session(tiny("llama", num_hidden_layers=2)) as session:
        operations = faults.operations(session)
        places = faults.every_module(session.model)
        for fault in faults.FAULTS:
            for place in places:
                figures += faults.fail_at(session, "run with interventions", *place, fault)
            for operation in operations:
                figures += faults.fail_at(session, operation, *places[int(draw.integers(len(places)))], fault)
        for operation in ("run", "sweep", "sweep under interventions", "generate", "lens"):
            figures += faults.stop_at_block(session, operation, 0)
        targets: list[tuple[int, Callable[[int], Counter]]] = [
            (faults.points(operations[name]), lambda at, name=name: faults.interrupt_at(session, name, at))
            for name in ("run with interventions", "sweep", "generate", "second session")
        ]
        iw.Session(bare).close()
        opening, closing = faults.points(lambda: iw.Session(bare).close()), faults.points(iw.Session(bare).close)
        targets += [
            (opening, lambda at: faults.interrupt_opening(bare, at)),
            (closing, lambda at: faults.interrupt_closing(bare, at)),
        ]
        for n in range(interrupts):
            points, strike = targets[n % len(targets)]
            figures += strike(1 + int(draw.integers(points)))
    return figures


def end_sessions() -> Counter:
    """Every way to end a session after every kind of work."""
    figures: Counter = Counter({"leaks found": 0})
    for ending in ("close", "delete"):
        for work in ("none", "views", "error"):
            figures.update(memory.lifetime(ending, work))
    return figures


def rerun_cells(times: int) -> Counter:
    """Each widget's cell again and again, as IPython keeps it."""
    figures: Counter = Counter()
    for kind in memory.TOKENS:
        found = memory.rerun_a_cell(times, kind, displayed=True, kept=True)
        figures.update({f"{kind}: {name}": found[name] for name in found if "bytes" in name})
        figures["cells run again"] += found["cells run again"]
    return figures


def show(title: str, work: Callable[[], Counter]) -> bool:
    """Run a part and print its figures; False if it failed."""
    start = time.perf_counter()
    try:
        figures, ok = work(), True
    except AssertionError as error:
        figures, ok = Counter({f"FAILED: {str(error)[:500]}": 1}), False
    print(f"\n{title} ({time.perf_counter() - start:.0f} s)")
    for name, count in sorted(figures.items()):
        print(f"  {name:<52}{count:>12,}")
    return ok and not figures["leaks found"]


def main() -> int:
    """Run all parts; 1 if any failed or leaked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=300)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--interrupts", type=int, default=300)
    parser.add_argument("--cells", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load average at the start: {os.getloadavg()[0]:.1f}, seed {given.seed}")
    parts = (
        ("clicks while the user works", lambda: click_while_the_user_works(given.clicks, given.seed)),
        ("faults", lambda: inject(given.interrupts, given.seed)),
        ("wire", lambda: fuzz(given.requests, given.seed)),
        ("sessions that end", end_sessions),
        ("cells run again", lambda: rerun_cells(given.cells)),
    )
    failed = [title for title, work in parts if not show(title, work)]
    print(f"\n{'failed: ' + ', '.join(failed) if failed else 'nothing failed, nothing leaked'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
