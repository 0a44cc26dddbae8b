"""A pair's runs come with their way back: the values and gradients of passes of their own, for fewer of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interpwidgets as iw
from interpwidgets import differentiating
from interpwidgets.engine.memory import NotEnoughMemory
from interpwidgets.methods.attribution import estimate_grid, way_back
from interpwidgets.methods.cells import grid
from interpwidgets.methods.patching import sources
from interpwidgets.methods.task import patching_task, prompt_pair
from tests.models import tiny

CLEAN = (5, 17, 3, 44, 17, 60, 8, 91)
PAIRS = {first: (*CLEAN[:first], 21, *CLEAN[first + 1 :]) for first in (0, 3, 7)}
SITES = ("resid_pre", "resid_mid", "resid_post", "mlp_out", "z", "v")


def ask(session, corrupted, site, direction, recorded):
    """The estimate, the task and both runs, from nothing known."""
    session._results.clear()
    found = way_back(session, *prompt_pair(session, CLEAN, corrupted), site, direction, ()) if recorded else None
    assert (found is not None) == recorded
    capture = sources(session, site)
    task = patching_task(session, CLEAN, corrupted, 7, 11, capture=capture)
    estimate = estimate_grid(session, task, grid(session, site, task.clean), direction, recorded=found)
    return estimate, task, session.ask_all((task.clean, task.corrupted), capture)


@pytest.fixture(params=[24, 0], ids=["together", "one after the other"])
def few(request, monkeypatch):
    """Both ways of joining the passes: short prompts share one, long ones the positions before they differ."""
    monkeypatch.setattr(differentiating, "_FEW", request.param)


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_values_and_estimates_are_those_of_passes_of_their_own(few, family, direction):
    with iw.Session(tiny(family)) as session:
        # OPT's stream between attention and MLP is a view, which autograd does not let us write into.
        sites = [s for s in SITES if s in session.engine.sites(0) and (family, s) != ("opt", "resid_mid")]
        for first, corrupted in PAIRS.items():
            for site in sites:
                joined, apart = (ask(session, corrupted, site, direction, recorded) for recorded in (True, False))
                scale = np.abs(apart[0]).max()
                assert np.abs(joined[0] - apart[0]).max() <= 1e-5 * scale, (first, site)
                for name in ("clean_value", "corrupted_value"):
                    assert getattr(joined[1], name) == pytest.approx(getattr(apart[1], name), rel=1e-5, abs=1e-6)
                for ours, theirs in zip(joined[2], apart[2], strict=True):
                    for each in sources(session, site):
                        for layer, value in theirs.captured[each].items():
                            found = ours.tensor(each.name, layer)
                            assert found.shape == value.shape
                            assert (found - value).abs().max() <= 1e-5 * value.abs().max(), (first, each, layer)


def test_nothing_of_the_pair_is_run_again(few):
    with iw.Session(tiny("llama")) as session:
        calls = []
        session.model.register_forward_pre_hook(lambda *_: calls.append(1))
        found = way_back(session, *prompt_pair(session, CLEAN, PAIRS[3]), "z", "denoise", ())
        made = len(calls)
        task = patching_task(session, CLEAN, PAIRS[3], 7, 11, capture=sources(session, "z"))
        estimate_grid(session, task, grid(session, "z", task.clean), "denoise", recorded=found)
        assert len(calls) == made


def test_a_run_by_hand_is_not_answered_from_a_joined_pass():
    with iw.Session(tiny("llama")) as session:
        way_back(session, *prompt_pair(session, CLEAN, PAIRS[3]), "z", "denoise", ())
        with torch.no_grad():
            plain = session.model(torch.tensor([PAIRS[3]]), use_cache=False).logits[0]
        assert np.array_equal(session.run(PAIRS[3]).logits.values, plain.numpy())


def test_without_room_or_where_the_run_is_known_there_is_no_way_back():
    with iw.Session(tiny("llama")) as session:
        pair = prompt_pair(session, CLEAN, PAIRS[3])
        assert way_back(session, *pair, "z", "denoise", (iw.Ablate("z", layer=0, head=1),)) is None
        assert way_back(session, *pair, "pattern", "denoise", ()) is None
        session.memory_budget = 1000
        assert way_back(session, *pair, "z", "denoise", ()) is None
        with pytest.raises(NotEnoughMemory):
            session.gradients(PAIRS[3], "z", iw.LogitDifference(7, 11))
        session.memory_budget = 2**28
        task = patching_task(session, *pair, 7, 11, capture=sources(session, "z"))
        assert task.answer == 7
        assert way_back(session, *pair, "z", "denoise", ()) is None
