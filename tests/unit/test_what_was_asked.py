"""What a widget shows, keeps and gives to Python is of what was asked for last, however that was asked."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
from traitlets import TraitError

import interpwidgets as iw
from interpwidgets.presets import Preset
from tests.clicks import CORRUPTED, PROMPT, click
from tests.models import tiny
from tests.sent import array

ABLATION = iw.Ablate("z", layer=1, head=2)


def ready(widget):
    widget.wait(30)
    return widget


@pytest.fixture
def attention(session):
    return ready(iw.AttentionPattern(session, PROMPT, layer=1, head=2))


@pytest.fixture
def heatmap(session):
    return ready(iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED))


class Held:
    """Holds up the worker where a widget calls a method of its own, once."""

    def __init__(self, widget, name):
        self.entered, self._release, self._method = threading.Event(), threading.Event(), getattr(widget, name)
        setattr(widget, name, self)

    def __call__(self, *given, **named):
        if threading.current_thread().name == "interpwidgets-worker" and not self.entered.is_set():
            self.entered.set()
            self._release.wait(30)
        return self._method(*given, **named)

    def __enter__(self):
        assert self.entered.wait(30)

    def __exit__(self, *error):
        self._release.set()


def test_a_widget_that_nobody_looks_at_is_brought_up_to_date_by_wait(session):
    lens = ready(iw.LogitLens(session, PROMPT))
    lens._view_count = 1
    lens._view_count = 0
    session.interventions.append(ABLATION)
    expected = iw.logit_lens(session, PROMPT, metric="probability", interventions=[ABLATION])
    assert np.allclose(ready(lens).result["probability"].sel(run="now"), expected["probability"], atol=1e-5)
    assert "experiments: " in lens.static_frame()


def test_a_closed_session_or_widget_says_so_to_who_waits(session, attention, heatmap):
    attention.close()
    with pytest.raises(RuntimeError, match="is closed"):
        attention.wait(30)
    session.close()
    heatmap.set(metric="kl")
    with pytest.raises(RuntimeError, match="is closed"):
        heatmap.wait(30)


def test_a_state_of_a_deeper_model_is_refused_and_changes_nothing(session):
    with iw.Session(tiny("llama", num_hidden_layers=1)) as shallow:
        session.interventions.append(iw.Ablate("z", layer=3, head=0))
        widget = ready(iw.LogitLens(session, PROMPT))
        session.interventions.pin()
        for state in (widget.state, widget.state | {"experiments": []}):
            with pytest.raises(ValueError, match="layer 3"):
                iw.restore(state, shallow)
        assert len(shallow.interventions) == 0
        assert not shallow.widgets


def test_traits_that_are_set_do_what_the_method_does(session, heatmap):
    heatmap.patch([{"site": "resid_pre", "layer": 1, "position": 3}])
    heatmap.site = "z"
    assert heatmap._cells == []
    assert ready(heatmap)._sweep["site"] == "z"
    heatmap.direction, heatmap.metric = "noise", "probability"
    ready(heatmap)
    expected = iw.patch_sweep(session, PROMPT, CORRUPTED, "z", metric="probability", direction="noise", normalize=False)
    assert np.allclose(array(heatmap._sweep["values"]), expected, atol=1e-5)
    with pytest.raises(TraitError, match="residual"):
        heatmap.site = "residual"
    lens = ready(iw.LogitLens(session, PROMPT))
    lens.tracked = [44]
    assert [each["id"] for each in ready(lens)._tracks["tokens"]] == [44]


def test_a_head_that_is_chosen_while_a_run_ends_is_what_is_shown(session, attention):
    held = Held(attention, "_predictions_to_wire")
    session.interventions.append(ABLATION)
    with held:
        attention.select(3, 1)
    ready(attention)
    assert (attention._detail["layer"], attention._detail["head"]) == (3, 1)
    assert (int(attention.result["layer"]), int(attention.result["head"])) == (3, 1)
    expected = iw.attention_patterns(session, PROMPT, interventions=[ABLATION]).sel(layer=3, head=1)
    assert np.allclose(attention.result["pattern"], expected, atol=1e-6)


def test_a_difference_that_is_chosen_while_the_map_fills_is_computed(session, heatmap):
    held = Held(heatmap, "_complete")
    session.interventions.append(ABLATION)
    with held:
        heatmap.view = "difference"
    ready(heatmap)
    assert heatmap._baseline_sweep is not None
    assert "difference" in heatmap.result


def test_an_older_run_is_not_kept_as_the_newer_one(session, attention):
    seen = []
    held = Held(attention, "_predictions_to_wire")
    attention.experiments.observe(lambda: seen.append(len(attention.history)))
    session.interventions.append(ABLATION)
    with held:
        attention._tokens = session.tokenize(CORRUPTED)  # as a cell does, just before it asks for the run
    attention.session.worker.submit("after", lambda ticket: None).wait(30)
    assert [visit["prompt"] for visit in attention.history] == [" ".join(map(str, PROMPT))]
    attention.refresh()
    assert [visit["current"] for visit in ready(attention).history] == [True, False]


def test_going_back_shows_what_was_chosen_in_that_run(session, attention, heatmap):
    first = attention.history[0]["number"]
    attention.select(3, 1)
    attention.hide_bos = False
    attention.run(CORRUPTED)
    ready(attention).select(0, 0)
    attention.hide_bos = True
    attention.back_to(first)
    assert (attention.layer, attention.head, attention.hide_bos) == (3, 1, False)
    first = heatmap.history[0]["number"]
    heatmap.patch([{"site": "resid_pre", "layer": 1, "position": 3}])
    heatmap.drill(2)
    ready(heatmap).set(site="z")
    ready(heatmap).back_to(first)
    assert [cell["position"] for cell in ready(heatmap)._patched["cells"]] == [3]
    assert heatmap._drill["layer"] == 2


def test_the_code_that_the_page_shows_follows_settings_and_looks(session, attention, heatmap):
    lens = ready(iw.LogitLens(session, PROMPT))
    attention.view, attention.hide_bos, attention.how, attention.palette = "difference", False, "mean", "cividis"
    lens.metric = "rank"
    heatmap.normalize = False
    for widget in (attention, ready(lens), heatmap):
        assert widget._code == widget.code()
    assert "hide_bos=False" in attention._code
    assert "metric='rank'" in lens._code


@pytest.mark.parametrize("way", ["chosen", "given", "restored"])
def test_a_presets_answer_and_foil_leave_with_it(session, heatmap, monkeypatch, way):
    preset = Preset("name", tuple(PROMPT), tuple(CORRUPTED), 9, 60, {})
    monkeypatch.setattr("interpwidgets.widgets.patching_heatmap.PRESETS", (preset,))
    heatmap._run_preset(preset)
    if way == "given":  # as a workbench does
        heatmap = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED, answer=9, foil=60)
    elif way == "restored":
        heatmap = iw.restore(ready(heatmap).state, session)
    assert ready(heatmap)._task["answer"]["id"] == 9
    heatmap.run(CORRUPTED, PROMPT)
    predicted = int(session.run(CORRUPTED).logits[-1].values.argmax())
    assert ready(heatmap)._task["answer"]["id"] == predicted
    heatmap.set(answer=9)
    heatmap.run(PROMPT, CORRUPTED)
    assert ready(heatmap)._task["answer"]["id"] == 9  # what was asked for in words stays
    click(heatmap, "set", answer="")
    assert ready(heatmap)._task["answer"]["id"] == int(session.run(PROMPT).logits[-1].values.argmax())


def test_what_changed_nothing_on_another_prompt_is_said_anew(session):
    lens = ready(iw.LogitLens(session, PROMPT))
    session.interventions.append(iw.Steer("resid_pre", np.zeros(32), layer=1))
    session.interventions.append(iw.CutEdge(layer=1, head=0, query=1, key=0))
    session.interventions.pin()
    notes = [each["note"] for each in ready(lens)._experiments]
    assert notes == ["changed nothing here", ""]


def test_a_link_keeps_no_other_model(session, attention):
    other = iw.Session(tiny("gpt2"))
    elsewhere = ready(iw.LogitLens(other, PROMPT))
    iw.link(attention, elsewhere)
    reference = weakref.ref(other)
    elsewhere.close()
    other.close()
    del other, elsewhere
    gc.collect()
    assert reference() is None
    session.interventions.append(ABLATION)
    session.interventions.pin()
