"""Prints the table of families and checks: `python -m tests.conformance [family ...] [--write]`."""

from __future__ import annotations

import argparse
import sys

from tests.conformance import table
from tests.conformance.families import FAMILIES
from tests.conformance.processes import examine_all


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=FAMILIES, help="such as llama or masked:bert; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="families examined at a time")
    parser.add_argument("--write", action="store_true", help="write README's table")
    options = parser.parse_args()
    results = {}
    for family, outcomes, seconds in examine_all(options.families, options.jobs):
        print(f"{family:24s} {seconds:5.1f} s", *(f"{name}: {outcome}" for name, outcome in outcomes.items()), sep="  ")
        sys.stdout.flush()
        results[family] = outcomes
    passed = sum(table.passes(outcomes) for outcomes in results.values())
    failed = sum(any(o.startswith("FAIL") for o in outcomes.values()) for outcomes in results.values())
    print(f"{passed} of {len(results)} families pass, {failed} fail")
    if options.write:
        table.write(results)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
