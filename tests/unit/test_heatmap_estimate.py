"""The heatmap shows an estimate first where the sweep is long; exact cells replace it, and a stop leaves the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interpwidgets as iw
from tests.models import tiny

CLEAN = [5, 17, 3, 44, 17, 60, 8, 91]
EARLY = [5, 21, 3, 44, 17, 60, 8, 91]
LATE = [5, 17, 3, 44, 17, 60, 9, 91]


def array(wire):
    return np.frombuffer(wire["view"], wire["dtype"]).reshape(wire["shape"])


def watched(session, corrupted=EARLY, watch=None, **settings):
    """A heatmap whose maps are kept as they come, and the maps; `watch` is called with each."""
    widget = iw.PatchingHeatmap(session, clean=CLEAN, corrupted=corrupted, **settings)
    widget.wait(30)
    seen = []

    def see(change):
        seen.append(change["new"])
        if watch is not None:
            watch(widget, change["new"])

    widget.observe(see, ["_sweep", "_drill"])
    return widget, seen


def test_a_long_sweep_is_estimated_first_and_then_exact(session):
    widget, seen = watched(session)
    widget.set(direction="noise")
    widget.wait(30)
    first, last = seen[0], seen[-1]
    raw = {"normalize": False, "direction": "noise"}
    estimate = iw.attribution_sweep(session, CLEAN, EARLY, answer=None, **raw)
    exact = iw.patch_sweep(session, CLEAN, EARLY, **raw)
    assert np.allclose(array(first["estimate"]), estimate, atol=1e-4)
    # What both prompts share, as the embedding of a token, is known without running it; all else is still to run.
    to_run = np.tile(np.arange(8) > 0, (4, 1))
    to_run[0] = np.arange(8) == 1
    assert (np.isnan(array(first["values"])) == to_run).all()
    assert first["doubt"].startswith("Norms are not linear")
    assert (last["estimate"], last["doubt"], last["stopped"]) == (None, "", False)
    assert np.allclose(array(last["values"]), exact, atol=1e-4)
    assert "forward passes), " in widget._status["detail"]


def test_a_layers_heads_are_estimated_first_too(session):
    widget, seen = watched(session, site="z")
    widget.drill(0)
    widget.wait(30)
    assert [each["estimate"] is not None for each in (seen[0], seen[-1])] == [True, False]
    exact = iw.patch_sweep(session, CLEAN, EARLY, "z", layer=0, normalize=False)
    assert np.allclose(array(widget._drill["values"]), exact, atol=1e-4)


@pytest.mark.parametrize(("corrupted", "settings"), [(LATE, {}), (EARLY, {"estimate": False})])
def test_no_estimate_where_the_sweep_is_short_or_where_it_is_switched_off(session, corrupted, settings):
    widget, seen = watched(session, corrupted, **settings)
    widget.set(direction="noise")
    widget.wait(30)
    assert all(each["estimate"] is None for each in seen)
    assert ("estimate=False" in widget.code()) == bool(settings)


def test_switching_the_estimate_off_runs_nothing(session):
    widget, seen = watched(session)
    widget.set(estimate=False)
    widget.wait(30)
    assert seen == []
    assert "estimate=False" in widget._code


def test_stop_keeps_what_is_exact_and_leaves_the_rest_as_estimates(session):
    widget, seen = watched(session, watch=lambda widget, each: each["estimate"] and widget.stop())
    before = array(widget._sweep["values"])
    widget.set(direction="noise")
    widget.wait(30)
    session.worker.submit("after", lambda ticket: None).wait(30)
    assert widget._status["state"] == "cancelled"
    assert widget._status["message"] == "10 of 32 cells are exact, the hatched ones are estimates"
    assert (seen[-1]["stopped"], np.isfinite(array(seen[-1]["values"])).sum()) == (True, 10)
    assert seen[-1]["estimate"] is not None
    # What leaves the notebook is what is on the screen: the exact cells of this map, not the map before.
    assert (np.isfinite(widget.result["value"]).sum(), widget.result.attrs["direction"]) == (10, "noise")
    rows = widget.to_csv().splitlines()
    assert sum(",noise," in row for row in rows) == 32
    assert sum(",nan," in row for row in rows) == 22
    assert "+nan" not in widget.static_frame()
    widget.unobserve_all()
    widget.set(direction="denoise")
    widget.wait(30)
    assert np.allclose(array(widget._sweep["values"]), before, atol=1e-5)
    assert not widget._sweep["stopped"]


def test_an_experiment_is_estimated_anew_and_undo_shows_the_map_that_is_known(session):
    widget, seen = watched(session)
    known = array(widget._sweep["values"])
    ablation = iw.Ablate("z", layer=1, head=2)
    widget.experiments.append(ablation)
    widget.wait(30)
    estimates = [array(each["estimate"]) for each in seen if each["estimate"] is not None]
    unlike = iw.attribution_sweep(session, CLEAN, EARLY, normalize=False)
    assert not np.allclose(estimates[-1], unlike, atol=1e-3)
    exact = iw.patch_sweep(session, CLEAN, EARLY, normalize=False, interventions=(ablation,))
    assert np.allclose(array(widget._sweep["values"]), exact, atol=1e-4)
    before = len(seen)
    widget.undo()
    widget.wait(30)
    assert np.array_equal(array(widget._sweep["values"]), known)
    assert all(each["estimate"] is None for each in seen[before:])


def test_a_model_without_a_way_back_has_no_estimate_and_its_map_is_whole():
    with torch.inference_mode():
        model = tiny("llama")
    with iw.Session(model) as session:
        widget, seen = watched(session)
        widget.set(direction="noise")
        widget.wait(30)
        assert all(each["estimate"] is None for each in seen)
        assert "no estimate first: autograd cannot follow this model" in widget._status["message"]
        exact = iw.patch_sweep(session, CLEAN, EARLY, direction="noise", normalize=False)
        assert np.allclose(array(widget._sweep["values"]), exact, atol=1e-4)


def test_where_the_gradient_is_zero_no_estimate_is_drawn_and_the_map_says_why(session):
    widget, seen = watched(session, metric="kl")
    widget.set(direction="noise")
    widget.wait(30)
    assert all(each["estimate"] is None for each in seen)
    assert "no estimate first: the KL divergence from the clean run is least" in widget._status["message"]
    exact = iw.patch_sweep(session, CLEAN, EARLY, metric="kl", direction="noise", normalize=False)
    assert np.allclose(array(widget._sweep["values"]), exact, atol=1e-4)


def test_closing_the_drill_ends_its_run(session):
    widget, _ = watched(session, site="z", watch=lambda widget, each: each["estimate"] and widget.drill(None))
    widget.drill(0)
    session.worker.submit("after", lambda ticket: None, priority=9).wait(30)
    assert widget._drill is None
