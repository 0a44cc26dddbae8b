"""From a fresh process to the first answer: import, load from the cache, first and second click."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

_IMPORT = """
import json, sys, time
start = time.perf_counter()
import interpwidgets as iw
imported = time.perf_counter() - start
print(json.dumps({"import interpwidgets": imported, "torch": "torch" in sys.modules}))
"""
_LOAD = """
import json, time
import interpwidgets as iw
start = time.perf_counter()
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from interpwidgets.session import Session
libraries = time.perf_counter() - start
steps = {"import of torch and transformers": libraries}
start = time.perf_counter()
session = iw.load()
steps["iw.load() from the cache"] = time.perf_counter() - start
prompts = ("When John and Mary went to the store, Mary gave the bag to", "The Eiffel Tower is in the city of Paris and")
for name, prompt in zip(("first", "second"), prompts):
    start = time.perf_counter()
    session.run(prompt, capture="pattern")
    steps[name + " run, patterns of all heads kept"] = time.perf_counter() - start
print(json.dumps(steps))
"""
LIMITS = {"import interpwidgets": 0.3, "iw.load() from the cache": 2.0}
"""Seconds that these are meant to stay under."""


def startup(*, runs: int = 3, load: bool = True) -> dict[str, float]:
    """Median seconds of each step, every run in a process of its own; asserts that the import leaves torch out."""
    imports = [_steps(_IMPORT) for _ in range(runs)]
    assert not any(steps.pop("torch") for steps in imports), "import interpwidgets has imported torch"
    loads = [_steps(_LOAD) for _ in range(runs)] if load else [{}]
    return _medians(imports) | _medians(loads)


def _steps(program: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
