"""The peak of memory against the session's budget, by length of prompt: `python -m tests.benchmarks.memory`.

Each line is a process of its own. Peaks are of the process' resident set, above what it had once the session was open;
Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import interpwidgets as iw

LENGTHS = (15, 256, 1024)
DIFFERING = 16  # tokens that follow the first one that differs: the rest is shared
WORKLOADS = ("lens", "pattern", "resid_pre sweep", "z sweep")
STATUS = Path("/proc/self/status")


def resident(line: str) -> int:
    """Bytes that the process has in memory now (VmRSS) or had at most (VmHWM)."""
    return next(int(row.split()[1]) * 1024 for row in STATUS.read_text().splitlines() if row.startswith(line))


def prompts(session: iw.Session, length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A text of so many tokens, and one that differs in one of its last tokens."""
    text = "When John and Mary went to the store, John gave a drink to Mary, and then they talked about it. " * 80
    clean = session.tokenize(text).ids[:length]
    at = max(1, length - DIFFERING)
    return clean, (*clean[:at], session.token_id(" Paris"), *clean[at + 1 :])


def measure(length: int, workload: str, budget: int) -> None:
    """Run one workload and print its line of the table."""
    session = iw.load()
    session.memory_budget = budget
    clean, corrupted = prompts(session, length)
    session.run(clean[:4])
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from what is resident
    before = resident("VmRSS")
    if workload == "lens":
        iw.logit_lens(session, clean)
    elif workload == "pattern":
        session.run(clean, capture="pattern")
    else:
        iw.patch_sweep(session, clean, corrupted, workload.split()[0], answer=" John", foil=" Mary")
    peak, held = resident("VmHWM") - before, session.memory().results
    print(f"| {length} | {workload} | {peak / 2**20:.0f} | {held / 2**20:.0f} | {peak / budget:.2f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=512, help="the session's memory_budget in MiB")
    parser.add_argument("--only", nargs=2, metavar=("LENGTH", "WORKLOAD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure(int(options.only[0]), options.only[1], options.budget * 2**20)
        return 0
    print(f"| tokens | workload | peak MiB | kept MiB | peak / budget of {options.budget} MiB |")
    print("|---:|---|---:|---:|---:|")
    command = [sys.executable, "-m", "tests.benchmarks.memory", "--budget", str(options.budget), "--only"]
    ended = [
        subprocess.run([*command, str(length), workload], check=False).returncode
        for length in LENGTHS
        for workload in WORKLOADS
    ]
    return max(ended)


if __name__ == "__main__":
    sys.exit(main())
