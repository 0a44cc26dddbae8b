"""The command that prints all reports has a figure in each of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_the_quick_report_has_figures_in_every_part() -> None:
    # In a process of its own, as it is called: the tests' own browser would not let another one start.
    done = subprocess.run(
        [sys.executable, "-m", "tests.report", "--quick"], cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    parts = dict(re.findall(r"^## (.+)\n\n((?:(?!## ).*\n)*)", done.stdout, re.M))
    assert list(parts) == ["axe", "Palettes", "Frames at long prompts", "Notebook", "Bytes of each click"]
    assert "| attention_pattern | light | 420 | 0 |" in parts["axe"]
    assert parts["Palettes"].count("deuteranopia") == 4
    assert re.search(r"\| LogitLens \| tiny \| 512 \| \d+\.\d \|", parts["Frames at long prompts"])
    assert re.search(r"^3 widgets .* add \d+\.\d\d MB", parts["Notebook"])
    assert re.search(r"\| AttentionPattern: ablate a head \| [\d,]+ \(", parts["Bytes of each click"])
