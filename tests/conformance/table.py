"""The outcomes of all families as the README shows them: families that support the same, together."""

from __future__ import annotations

import re
import textwrap

from tests import readme

_PART = ("families", "python -m tests.conformance --write")


def support(outcomes: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """How a family sweeps, and what it does not have."""
    absent = tuple(name for name, outcome in outcomes.items() if outcome.startswith("absent"))
    return ("full batch" if "full-batch" in outcomes["session"] else "one pass"), absent


def passes(outcomes: dict[str, str]) -> bool:
    """Whether a session opens and every check that applies passes."""
    return outcomes.get("session", "").startswith("pass") and not any(o.startswith("FAIL") for o in outcomes.values())


def as_markdown(results: dict[str, dict[str, str]]) -> str:
    """Families that pass, grouped by what they support; then those that are refused, and those that do not build."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    refused, unbuilt = [], []
    for family, outcomes in sorted(results.items()):
        if passes(outcomes):
            groups.setdefault(support(outcomes), []).append(family)
        elif "session" in outcomes:
            refused.append(f"| {family} | {_cell(outcomes['session'].removeprefix('refused: '))} |")
        else:
            unbuilt.append(f"| {family} | {_cell(outcomes['model'].removeprefix('not built: '))} |")
    count = sum(len(families) for families in groups.values())
    rows = [
        f"| {len(families)} | {sweeps} | {', '.join(absent) or 'none'} | {', '.join(families)} |"
        for (sweeps, absent), families in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return "\n".join(
        [
            f"Of the {len(results)} causal and masked families of transformers, {count} pass every check that applies "
            f"to them, "
            f"{len(refused)} are refused with the reason, and {len(unbuilt)} could not be built tiny without a size "
            "table of their own.",
            "",
            "<details><summary>Every family, and which checks do not apply to it</summary>",
            "",
            "| families | sweeps | checks that do not apply | which |",
            "|---:|---|---|---|",
            *rows,
            "",
            "| refused | why |",
            "|---|---|",
            *refused,
            "",
            "| not built | why |",
            "|---|---|",
            *unbuilt,
            "",
            "</details>",
        ]
    )


def write(results: dict[str, dict[str, str]]) -> None:
    """Put the table between README's marks."""
    readme.write(*_PART, as_markdown(results))


def written() -> str:
    """What README says now."""
    return readme.written(*_PART)


def _cell(text: str) -> str:
    # A pipe would begin a cell, and angle brackets an element.
    return textwrap.shorten(re.sub(r"[|<>`]", " ", text), 110, placeholder=" …")
