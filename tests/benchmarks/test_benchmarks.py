"""The benchmark itself: it runs on tiny models, its tools agree, and its floor counts what a forward pass does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.floor import Blocks
from tests.benchmarks.outcome import Outcome
from tests.benchmarks.plot import plot
from tests.benchmarks.workloads import Cell, Pair, Workload
from tests.models import tiny

ROOT = Path(__file__).parents[2]
LENGTH = 9


def test_every_part_runs_and_every_tool_gives_our_values():
    # In a process of its own, because nnsight changes torch for all.
    command = [sys.executable, "-m", "tests.benchmarks", "--quick"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for title in (
        "Targets",
        "Sweeps",
        "The floor",
        "Growth",
        "From a fresh process",
        "On the wire",
        "Drawing",
        "Estimates",
    ):
        assert f"## {title}" in done.stdout
    assert "| values equal | all workloads | 5 of 5 | yes |" in done.stdout


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_blocks_count_what_torch_counts(family):
    model = tiny(family, **({"num_key_value_heads": 4} if family == "gpt_neox" else {}))
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model(torch.arange(3, 3 + LENGTH)[None])
    blocks = Blocks.of(model)
    each = LENGTH * (blocks.kv + blocks.query + blocks.out + blocks.mlp) + blocks.score * LENGTH**2
    unembedding = LENGTH * model.config.hidden_size * model.config.vocab_size
    assert counted.get_total_flops() == 2 * (blocks.layers * each + unembedding)


def test_rows_count_what_their_patch_can_reach():
    b = Blocks(layers=3, kv=2, query=3, out=5, mlp=7, score=1, parallel=False)
    first, length = 2, 4
    last_block = {n: 2 * (n * 2 + 3 + 5 + 7 + 4) for n in (1, 2)}  # keys and values of n, the rest of one position
    whole_block = {1: 2 * (17 + 4), 2: 2 * (2 * 17 + 3 + 4)}  # the queries see 3 and 4 keys
    expected = {
        Cell("resid_pre", 0, 1): 0,
        Cell("resid_pre", 2, 2): last_block[2],
        Cell("resid_pre", 1, 3): whole_block[1] + last_block[1],
        Cell("attn_out", 1, 2): 2 * 7 + last_block[2],
        Cell("attn_out", 2, 2): 0,
        Cell("attn_out", 2, 3): 2 * 7,
        Cell("mlp_out", 0, 2): whole_block[2] + last_block[2],
        Cell("z", 1, 0): 2 * 2 * (5 + 7) + last_block[2],
        Cell("z", 2, 0): 2 * (5 + 7),
    }
    assert {cell: b.row(cell, first, length) for cell in expected} == expected


def test_peers_run_cells_that_can_have_an_effect():
    pair = Pair((1, 2, 3, 4), (1, 2, 9, 4), 5, 6)
    workload = Workload("w", "m", (pair,), ("resid_pre", "z"), sample=9)
    cells = workload.chosen(workload.cells(layers=3, heads=2))
    assert cells == workload.chosen(workload.cells(layers=3, heads=2))
    assert len(set(cells)) == 9
    assert {cell.index for cell in cells if cell.site == "resid_pre"} == {2, 3}
    assert [cell.site for cell in cells] == sorted(cell.site for cell in cells)


def test_plot_is_small_and_names_every_workload():
    pair = (Pair((1, 2), (1, 3), 4, 5),)
    outcomes = [
        Outcome(Workload(name, "a model", pair), 4, 2, 10**9, [1e11], {"interpwidgets": [0.1], "nnsight": [2.0]})
        for name in ("first & only", "second")
    ]
    picture = plot(outcomes)
    assert "first &amp; only, a model" in picture
    assert picture.count("<circle") == 4 + 2 * 3
    assert len(plot(outcomes * 15)) < 60_000
