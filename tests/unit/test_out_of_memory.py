"""Out of memory: a sweep goes on with half the rows, once; then the error says what was asked and how to get by."""

from __future__ import annotations

import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

import interpwidgets as iw
from interpwidgets.engine.memory import NotEnoughMemory
from tests.unit.test_bad_input import CORRUPTED, PROMPT, drawn, every_way


def refuse_tokens(model, most):
    """Run out of memory, as CUDA does, in the last block of any pass of more than `most` tokens."""
    asked = []

    def hook(module, args, kwargs):
        asked.append(args[0].shape[1])
        if args[0].shape[1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore words")

    model.model.layers[-1].register_forward_pre_hook(hook, with_kwargs=True)
    return asked


def rows(n):
    return [[iw.Scale("resid_pre", 0.5 + i / 10, layer=i % 4, position=i % 8)] for i in range(n)]


# 24 rows have 8 - i % 8 positions each, and the undisturbed run 8; blocks 3 and 2 come first.
WHOLE = 8 + sum(8 - i % 8 for i in range(24))
LATE = 8 + sum(8 - i % 8 for i in range(24) if i % 4 >= 2)
EARLY = 8 + sum(8 - i % 8 for i in range(24) if i % 4 < 2)


def metric(logits):
    return logits[:, 7]


def test_a_sweep_that_runs_out_of_memory_goes_on_with_half_the_rows(session):
    expected = session.sweep(PROMPT, rows(24), metric).values
    asked = refuse_tokens(session.model, EARLY)
    seen = []
    result = session.sweep(PROMPT, rows(24), metric, progress=lambda done, total: seen.append((done, total)))
    # The whole was refused once; then two passes of half the rows, each beside the undisturbed run.
    assert asked == [WHOLE, LATE, EARLY]
    assert np.allclose(result.values, expected, atol=1e-6)
    assert seen[-1] == (24, 24)


def test_a_sweep_that_does_not_fit_by_halves_either_says_what_was_asked(session):
    session.memory_budget = 3 << 30
    asked = refuse_tokens(session.model, LATE - 1)
    said = (
        "out of memory: a sweep of 24 rows, 12 in this pass, each of 8 tokens. Lower session.memory_budget .3 GiB., "
        "sweep fewer places, or shorten the prompts.\nCUDA out of memory. Tried to allocate 2.00 GiB.$"
    )
    with pytest.raises(NotEnoughMemory, match=said):
        session.sweep(PROMPT, rows(24), metric)
    assert asked == [WHOLE, LATE]
    session.memory_budget = 1
    assert session.sweep(PROMPT, rows(24), metric).values.shape == (24,)


def fails(model, words):
    """Let the last block fail with this text."""

    def hook(*_):
        raise RuntimeError(words)

    return model.model.layers[-1].register_forward_pre_hook(hook)


def test_running_out_of_memory_is_drawn_and_leaves_the_session_usable(session):
    widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED)
    widget.wait(30)
    handle = fails(session.model, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes")
    text = drawn(widget, "run", clean="5, 6", corrupted="5, 7")
    assert "a run of 2 prompts of 2 tokens that keeps resid_pre of 4 layers, k of 4 layers" in text
    with pytest.raises(NotEnoughMemory, match=r"run of 2 tokens that keeps no activation. Keep fewer sites or layers"):
        session.run((8, 9))
    with pytest.raises(NotEnoughMemory, match=r"2 tokens of prompt and 4 to generate. Generate fewer"):
        session.generate((8, 9), 4)
    handle.remove()
    assert np.isfinite(session.run((8, 9)).logits).all()


def test_another_error_of_the_model_passes_through(session):
    fails(session.model, "shapes do not fit")
    for ask in every_way(session, PROMPT)[:6]:
        with pytest.raises(RuntimeError, match=r"^shapes do not fit$"):
            ask()


def test_the_failed_pass_gives_its_memory_back_before_the_next(session):
    held = []

    def hook(module, args, kwargs):
        if args[0].shape[1] > EARLY:
            own = torch.zeros(1000)
            held.append(weakref.ref(own))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert all(ref() is None for ref in held)

    session.model.model.layers[-1].register_forward_pre_hook(hook, with_kwargs=True)
    session.sweep(PROMPT, rows(24), metric)
    assert held


SHORTAGE = """
import resource, psutil, torch
import interpwidgets as iw
from tests.models import tiny

torch.set_num_threads(1)
session = iw.Session(tiny("llama", intermediate_size=4096))
session.memory_budget = 1 << 40
# 200 rows of 55 positions take 180 MB for each of the MLP's inner values.
rows = [[iw.Scale("resid_pre", 1 + i / 100, layer=0, position=5)] for i in range(200)]
asked = []
session.model.model.layers[0].mlp.register_forward_pre_hook(lambda _, args: asked.append(args[0].shape[1]))
used = psutil.Process().memory_info().vms
for room in (500, 80):
    resource.setrlimit(resource.RLIMIT_AS, (used + (room << 20), -1))
    try:
        values = session.sweep(tuple(range(5, 65)), rows, lambda logits: logits[:, 7]).values
        print(asked, values.shape, bool((values == values).all()))
    except MemoryError as error:
        print(asked, error)
    asked.clear()
"""


def test_a_real_shortage_of_memory_is_survived_once_by_halves_and_then_explained():
    """With the process's own memory limited, torch's allocator itself fails."""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", SHORTAGE], capture_output=True, text=True, check=True, timeout=120)
    survived, refused = done.stdout.splitlines()[:2]
    assert survived == "[11060, 5560, 5560] (200,) True"
    assert refused.startswith("[11060, 5560] out of memory: a sweep of 200 rows, 100 in this pass, each of 60 tokens.")
