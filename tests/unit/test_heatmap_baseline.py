"""The patching heatmap compares each patch's effect with that in the baseline."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

import interpwidgets as iw
from tests.sent import array

CLEAN = [5, 17, 3, 44, 17, 60, 8, 91]
CORRUPTED = [5, 21, 3, 44, 17, 60, 8, 91]
PINNED, ACTING = iw.Ablate("z", layer=1, head=2), iw.Ablate("mlp_out", layer=2)


def heatmap(session, **settings):
    widget = iw.PatchingHeatmap(session, clean=CLEAN, corrupted=CORRUPTED, **settings)
    widget.wait(30)
    return widget


def act(session, widget):
    session.interventions.append(PINNED)
    session.interventions.pin()
    session.interventions.replace([ACTING])
    widget.wait(30)


def swept(session, *interventions, **asked):
    return iw.patch_sweep(session, CLEAN, CORRUPTED, interventions=interventions, normalize=False, **asked).values


def ends(session, *interventions):
    """The logit difference of the clean and the corrupted run, of the tokens that the widget asks about."""
    runs = [session.run(prompt).logits[-1].values for prompt in (CLEAN, CORRUPTED)]
    answer = int(runs[0].argmax())
    foil = next(int(i) for i in np.argsort(-runs[1]) if i != answer)
    logits = [session.run(prompt, interventions=interventions).logits[-1].values for prompt in (CLEAN, CORRUPTED)]
    return [float(x[answer] - x[foil]) for x in logits]


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("site", ["resid_pre", "z"])
def test_the_difference_is_that_of_two_sweeps_in_shares_of_the_baselines_gap(session, site, direction):
    widget = heatmap(session, site=site, direction=direction, view="difference")
    act(session, widget)
    asked = {"site": site, "direction": direction}
    now, before = swept(session, ACTING, **asked), swept(session, PINNED, **asked)
    from_run = 1 if direction == "denoise" else 0
    raw = (now - ends(session, ACTING)[from_run]) - (before - ends(session, PINNED)[from_run])
    clean, corrupted = ends(session, PINNED)
    assert np.allclose(widget.result["difference"], raw / (clean - corrupted), atol=1e-3)
    assert np.allclose(widget.result["baseline_value"], before, atol=1e-4)
    assert widget.result["difference"].attrs["units"] == "now − baseline, share of the gap in the baseline"
    assert np.allclose(array(widget._baseline_sweep["values"]), before, atol=1e-4)
    widget.set(normalize=False)
    assert np.allclose(widget.result["difference"], raw, atol=1e-3)
    assert widget.result["difference"].attrs["units"] == "now − baseline, change in logit_diff logits"
    drawn = widget._heatmap()
    assert np.allclose(drawn.values, raw, atol=1e-3)
    assert "now − baseline" in drawn.unit
    assert "baseline_value,baseline_effect,difference" in widget.to_csv().splitlines()[0]


def test_the_baselines_map_is_kept_from_before_and_runs_no_sweep(session):
    widget = heatmap(session)
    before = array(widget._sweep["values"])
    session.interventions.append(ACTING)
    widget.wait(30)
    assert np.array_equal(array(widget._baseline_sweep["values"]), before)


def test_a_baseline_that_is_not_known_is_computed_once_it_is_looked_at(session):
    session.interventions.append(ACTING)
    widget = heatmap(session)
    assert widget._baseline_sweep is None
    assert "difference" not in widget.result
    shown = []
    widget.observe(lambda change: shown.append(change["new"]), "_baseline_sweep")
    widget.view = "difference"
    widget.wait(30)
    assert np.allclose(array(widget._baseline_sweep["values"]), swept(session), atol=1e-4)
    assert "difference" in widget.result
    widget.view = "now"
    widget.view = "baseline"
    widget.wait(30)
    assert len({id(each["values"]["view"]) for each in shown}) == len(shown)
    assert widget._status["state"] == "idle"


def test_where_the_baseline_acts_there_is_nothing_to_compare(session):
    widget = heatmap(session, view="difference")
    assert widget._baseline_sweep is None
    act(session, widget)
    assert widget._baseline_sweep is not None
    session.interventions.pin()
    widget.wait(30)
    assert widget._baseline_sweep is None
    assert "difference" not in widget.result


def test_the_view_is_in_state_and_code(session):
    widget = heatmap(session, view="difference")
    act(session, widget)
    assert "view='difference'" in widget.code()
    again = iw.restore(widget.state, session)
    again.wait(30)
    assert again.view == "difference"
    assert np.allclose(again.result["difference"], widget.result["difference"], atol=1e-5)


@pytest.mark.parametrize("ends", ["finishes", "is stopped"])
@pytest.mark.parametrize("asks", ["another pair", "another answer"])
def test_while_a_map_fills_it_is_not_compared_with_the_map_of_another_question(session, asks, ends):
    widget = heatmap(session, view="difference", estimate=False)
    act(session, widget)
    old, seen = widget._baseline_sweep, []

    def note(change):
        values = array(change["new"]["values"])
        if np.isfinite(values).any():
            seen.append(widget._baseline_sweep is old)
            if ends == "is stopped" and len(seen) == 1:
                widget.stop()

    widget.observe(note, "_sweep")
    widget._last_progress = -np.inf
    if asks == "another pair":
        widget.run(CORRUPTED, CLEAN)
    else:
        widget.set(answer=9)
    with suppress(RuntimeError):
        widget.wait(30)
    assert seen
    assert not any(seen)
    assert widget._baseline_sweep is not old
    assert ("difference" in widget.result) == (widget._baseline_sweep is not None)


def test_a_map_under_other_experiments_is_compared_with_the_same_baseline_while_it_fills(session):
    widget = heatmap(session, view="difference")
    act(session, widget)
    old, seen = widget._baseline_sweep, []
    widget.observe(lambda change: seen.append(widget._baseline_sweep is old), "_sweep")
    session.interventions.append(iw.Ablate("mlp_out", layer=1))
    widget.wait(30)
    assert seen
    assert seen[0]
    assert np.allclose(widget.result["baseline_value"], swept(session, PINNED), atol=1e-4)
