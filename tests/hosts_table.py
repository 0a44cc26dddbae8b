"""README's table of front ends, from what their tests have shown: `python -m tests.hosts_table [--write]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from filelock import FileLock

from tests import readme
from tests.browser.front_ends import ABILITIES, CANNOT_BE, FRONT_ENDS, IN_JUPYTERLAB_ONLY, SHOWS

_OUTCOMES = Path(__file__).parents[1] / "test-report/hosts.json"
_PART = ("front ends", "python -m tests.hosts_table --write")
WORKS, FAILS, NOT_TRIED = "yes", "**no**", "not tried"

Outcomes = dict[str, dict[str, dict[str, str]]]
"""Front end, ability, test: passed, failed or skipped."""


def record(front_end: str, ability: str, test: str, outcome: str) -> None:
    """Keep how a test has ended, beside those of earlier runs."""
    _OUTCOMES.parent.mkdir(exist_ok=True)
    with FileLock(_OUTCOMES.with_suffix(".lock")):  # tests run in several processes
        outcomes = recorded()
        outcomes.setdefault(front_end, {}).setdefault(ability, {})[test] = outcome
        _OUTCOMES.write_text(json.dumps(outcomes, indent=1))


def recorded() -> Outcomes:
    return json.loads(_OUTCOMES.read_text()) if _OUTCOMES.exists() else {}


def table(outcomes: Outcomes) -> list[list[str]]:
    """The table's rows, the header first."""
    rows = [[name, *(_cell(name, ability, outcomes) for ability in ABILITIES)] for name in FRONT_ENDS]
    return [["front end", *ABILITIES], *rows]


def _cell(name: str, ability: str, outcomes: Outcomes) -> str:
    tests = outcomes.get(name, {}).get(ability, {})
    if not tests or "skipped" in tests.values():
        return CANNOT_BE.get((name, ability), NOT_TRIED)
    return SHOWS.get((name, ability), WORKS) if set(tests.values()) == {"passed"} else FAILS


def one_only() -> str:
    """What the table does not have, because it is tried in one front end alone."""
    return f"Tried in JupyterLab 4 only: {'; '.join(IN_JUPYTERLAB_ONLY)}."


def written() -> list[list[str]]:
    """The rows of the table that stands in README."""
    lines = readme.written(*_PART).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def _write(rows: list[list[str]]) -> None:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    readme.write(*_PART, "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:], "", one_only()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write README's table")
    rows = table(recorded())
    print(*(" | ".join(row) for row in rows), sep="\n")
    if parser.parse_args().write:
        _write(rows)


if __name__ == "__main__":
    main()
