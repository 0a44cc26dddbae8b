"""The peak of memory against the session's budget, by length of prompt: `python -m tests.benchmarks.memory`.

Each line is a process of its own. Peaks are of the process' resident set, above what it had once the session was open;
Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import interpwidgets as iw

from .workloads import DemoPrompts

LENGTHS = (15, 256, 1024)
DIFFERING = 16  # tokens that follow the first one that differs: the rest is shared
SWEEPS = ("resid_pre sweep", "z sweep")
WORKLOADS = ("lens", "pattern", "AttentionPattern", *SWEEPS)
BUDGET = 512 * 2**20
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Peak:
    """Bytes that a workload took at most, and bytes of results that the session keeps."""

    length: int
    workload: str
    peak: int
    kept: int
    budget: int

    @property
    def share(self) -> float:
        """Of the budget."""
        return self.peak / self.budget


HEADER = f"| tokens | workload | peak MiB | kept MiB | peak / budget of {BUDGET >> 20} MiB |\n|---:|---|---:|---:|---:|"


def line(p: Peak) -> str:
    """A row of the table under `HEADER`."""
    return f"| {p.length} | {p.workload} | {p.peak / 2**20:.0f} | {p.kept / 2**20:.0f} | {p.share:.2f} |"


def peaks(lengths: Iterable[int], workloads: Iterable[str]) -> Iterator[Peak]:
    """Measure each in a process of its own."""
    for length in lengths:
        for workload in workloads:
            command = [sys.executable, "-m", "tests.benchmarks.memory", "--only", str(length), workload]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            yield Peak(**json.loads(done.stdout.splitlines()[-1]))


def resident(row: str) -> int:
    """Bytes that the process has in memory now (VmRSS) or had at most (VmHWM)."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(row))


def measure(length: int, workload: str) -> Peak:
    """Run one workload in this process."""
    session = iw.load()
    session.memory_budget = BUDGET
    pair = DemoPrompts().long(length, min(length - 1, DIFFERING))
    session.run(pair.clean[:4])
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from what is resident
    before = resident("VmRSS")
    if workload == "lens":
        iw.logit_lens(session, pair.clean)
    elif workload == "pattern":
        session.run(pair.clean, capture="pattern")
    elif workload == "AttentionPattern":
        widget = iw.AttentionPattern(session, pair.clean)
        widget.ablate(3, 1)
        widget.wait()
        widget.select(20, 2)
        widget.wait()
    else:
        iw.patch_sweep(session, pair.clean, pair.corrupted, workload.split()[0], answer=pair.answer, foil=pair.foil)
    return Peak(length, workload, resident("VmHWM") - before, session.memory().results, BUDGET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs=2, metavar=("LENGTH", "WORKLOAD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(asdict(measure(int(options.only[0]), options.only[1]))))
        return
    print(HEADER)
    for peak in peaks(LENGTHS, WORKLOADS):
        print(line(peak), flush=True)


if __name__ == "__main__":
    main()
