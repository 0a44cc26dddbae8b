"""A view as data and as code: read, set, restored, returned to; what is no state changes nothing."""

from __future__ import annotations

import base64
import copy
import gc
import html
import json
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import interpwidgets as iw
from interpwidgets.widgets.view import OtherModelWarning
from tests.clicks import CORRUPTED, PROMPT, click
from tests.models import tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level
from tests.unit.test_session import count_forwards

KINDS = ["attention", "lens", "heatmap"]
EXPERIMENTS = (
    iw.Experiment(iw.Ablate("z", layer=1, head=2, how="mean"), group="heads", name="mover"),
    iw.Experiment(iw.Ablate("z", layer=2, head=slice(0, 2)), on=False, group="heads"),
    iw.Experiment(iw.Patch("resid_post", layer=2, position=5, source=PROMPT, source_layer=1, source_position=1)),
    iw.Experiment(iw.Patch("resid_pre", layer=1, position=[3, 4], source=np.linspace(-1, 1, 64).reshape(2, 32))),
    iw.Experiment(iw.Steer("mlp_out", torch.arange(32) / 3, layer=0, strength=0.25)),
    iw.Experiment(iw.CutEdge(layer=3, head=(0, 1), query=6, key=2, renormalize=False)),
    iw.Experiment(iw.Scale("mlp_out", np.float32(0.1), layer=3)),
)


def make(kind, session, **settings):
    """A widget of a kind that is no longer as it was made."""
    if kind == "attention":
        widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2, hide_bos=False, **settings)
        widget.view, widget.palette = "difference", "cividis"
        widget.edge = [6, 3]
    elif kind == "lens":
        widget = iw.LogitLens(session, PROMPT, metric="entropy", **settings)
        widget.track(44)
        widget.compute("kl")
        widget.cell = [2, 5]
    else:
        widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED, answer=7, direction="noise", **settings)
        widget.set(site="z", normalize=False)
        widget.patch([{"site": "z", "layer": 1, "head": 2}, {"site": "z", "layer": 2, "head": 0, "position": 3}])
        widget.drill(2)
    return ready(widget)


def ready(widget):
    widget.wait(60)
    return widget


def numbers(widget):
    """All numbers that are on the screen."""
    found = {name: widget.result[name].values for name in widget.result.data_vars}
    for trait in ("_predictions", "_patched", "_drill"):
        shown = getattr(widget, trait, None) or {}
        found |= {f"{trait} {i} {k}": v for i, row in enumerate(shown.get("rows", [])) for k, v in row.items()}
        if "values" in shown:
            found["drilled"] = np.frombuffer(shown["values"]["view"], "float32")
    return {k: v for k, v in found.items() if not isinstance(v, str) and v is not None}


def assert_same_numbers(one, other):
    mine, its = numbers(one), numbers(other)
    assert mine.keys() == its.keys()
    for name, values in mine.items():
        assert np.allclose(values, its[name], atol=1e-5, equal_nan=True), name


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_rebuilds_the_view_in_another_session(session, kind, linked):
    widget = make(kind, session, linked=linked)
    widget.experiments.extend(EXPERIMENTS)
    ready(widget)
    text = json.dumps(widget.state)
    with iw.Session(tiny("llama")) as other:
        again = ready(iw.restore(json.loads(text), other))
        assert type(again).__name__ == type(widget).__name__
        assert again.experiments.entries == EXPERIMENTS
        assert (again.experiments is other.interventions) == linked
        assert again.selection == widget.selection
        assert json.loads(text) == again.state
        assert_same_numbers(widget, again)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_set_in_place_and_one_undo_takes_its_experiments_back(session, kind):
    widget = make(kind, session)
    session.interventions.extend(EXPERIMENTS[:2])
    ready(widget)
    before, shown = widget.state, numbers(widget)
    session.interventions.extend(EXPERIMENTS[2:])
    ready(widget)
    if kind == "heatmap":
        widget.run(PROMPT[:7], CORRUPTED[:7])
    else:
        session.interventions.clear()
        widget.run(PROMPT[:3])
    ready(widget)
    later = widget.experiments.entries
    widget.state = before
    ready(widget)
    assert widget.state == before
    assert all(np.allclose(numbers(widget)[k], v, atol=1e-5, equal_nan=True) for k, v in shown.items())
    widget.undo()
    assert widget.experiments.entries == later


def test_what_is_no_state_of_this_widget_is_refused(session):
    widget = make("attention", session)
    state = widget.state
    for change, said in (
        ({"version": 2}, "has version 2; this version of interpwidgets reads 1"),
        ({"widget": "LogitLens"}, "of 'LogitLens', and this widget is of 'AttentionPattern'"),
        ({"linked": False}, "experiments of its own"),
        ({"selection": {"layer": 9, "head": 0}}, "no attention head 0 in layer 9"),
        ({"selection": {"lair": 9}}, "did you mean 'layer'"),
        ({"prompts": {"prompt": [5, 1000]}}, "token id 1000 is out of range"),
        ({"settings": state["settings"] | {"view": "later"}}, "view"),
        ({"experiments": [{}]}, "an experiment has no"),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            widget.state = state | change
    with pytest.raises(ValueError, match=r"unknown widget 'LogitLense'; did you mean 'LogitLens'"):
        iw.restore(state | {"widget": "LogitLense"}, session)
    with pytest.raises(ValueError, match=r"of the model 'LlamaForCausalLM': iw\.restore"):
        iw.restore(state)
    assert widget.state == state
    with pytest.warns(UserWarning, match="of the model 'gpt2', and is shown on 'LlamaForCausalLM'"):
        widget.state = state | {"model": "gpt2"}


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
LEAVES |= st.sampled_from([[], {}, [[[]]]])


@st.composite
def damaged(draw, state):
    """A state of which one place is something else, or missing."""
    state = copy.deepcopy(state)
    at, where = state, []
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = draw(st.sampled_from(list(keys)))
        where.append(key)
        if not isinstance(at[key], dict | list) or not at[key] or draw(st.integers(0, 3)) == 0:
            break
        at = at[key]
    action = draw(st.sampled_from(["replace", "remove", "rename"]))
    if action == "replace":
        at[key] = draw(LEAVES)
    else:
        value = at.pop(key)
        if action == "rename" and isinstance(at, dict):
            at[draw(st.text(max_size=4))] = value
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_state_is_applied_or_refused_and_then_changes_nothing(session, kind):
    widget = make(kind, session)
    session.interventions.replace(EXPERIMENTS)
    whole = ready(widget).state

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        given = data.draw(damaged(whole))
        before = widget.state
        try:
            widget.state = given
        except (ValueError, TypeError):
            assert widget.state == before
        else:
            widget.state = whole

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check()
    widget.state = whole
    assert ready(widget).state == whole


def test_deep_and_large_nonsense_is_refused(session):
    widget = make("lens", session)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    nested = widget.state | {"settings": deep}
    for nonsense in (None, 3, [], "x", {}, deep, {"version": 1}, nested, {"version": 10**5000}):
        with pytest.raises((ValueError, TypeError)):
            widget.state = nonsense
    gc.collect()


def test_the_session_stays_as_it_was_if_a_state_cannot_be_restored(session):
    widget = make("attention", session)
    session.interventions.append(iw.Scale("z", 2.0, layer=0))
    state, count = widget.state, len(session.widgets)
    with pytest.raises(ValueError, match="there is no attention head"):
        iw.restore(state | {"selection": {"layer": 77, "head": 0}, "experiments": []}, session)
    assert len(session.interventions) == 1
    assert len(session.widgets) == count


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_copied_code_gives_the_same_numbers_in_a_fresh_process(tmp_path, kind, linked):
    tiny("llama").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    model = tmp_path / "model"
    with iw.Session(tiny("llama")) as session:
        widget = make(kind, session, linked=linked)
        widget.experiments.extend(EXPERIMENTS)
        ready(widget)
        there = (
            "from transformers import AutoModelForCausalLM\n"
            f"model = AutoModelForCausalLM.from_pretrained({str(model)!r}).eval()\n"
            "model.config._name_or_path = ''\n"
        )
        program = f"{there}{widget._code}\n" + (
            "widget.wait(60)\nimport sys, json, numpy\nfrom tests.unit.test_state import numbers\n"
            f"numpy.savez({str(tmp_path / 'seen.npz')!r}, **numbers(widget))\n"
            "assert widget.code() == " + repr(widget._code)
        )
        (tmp_path / "program.py").write_text(program)
        subprocess.run([sys.executable, tmp_path / "program.py"], check=True, timeout=300, env=_environment())
        seen = np.load(tmp_path / "seen.npz")
        mine = numbers(widget)
        assert set(mine) == set(seen)
        for name, values in mine.items():
            assert np.allclose(values, seen[name], atol=1e-5, equal_nan=True), name


def test_copied_code_of_the_demo_model_needs_nothing_else(tmp_path):
    with iw.load() as session:
        prompt = "When John and Mary went to the store, John gave a drink to"
        widget = ready(iw.AttentionPattern(session, prompt, layer=25, head=3))
        session.interventions.append(iw.Ablate("z", layer=23, head=3))
        ready(widget)
        save = f"\nwidget.wait(120)\nimport numpy\nwidget.result.to_dataframe().to_csv({str(tmp_path / 'seen.csv')!r})"
        (tmp_path / "program.py").write_text(widget._code + save)
        subprocess.run([sys.executable, tmp_path / "program.py"], check=True, timeout=300, env=_environment())
        seen = np.loadtxt(tmp_path / "seen.csv", delimiter=",", skiprows=1)
        shown = widget.result.to_dataframe()[["pattern", "baseline"]].values
        assert not np.allclose(shown[:, 0], shown[:, 1], atol=1e-3)
        assert np.allclose(seen[:, 2:4], shown, atol=1e-5)  # after query and key


def _environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def test_an_array_too_large_for_code_says_so_and_travels_in_the_state(session):
    widget = make("lens", session)
    session.interventions.append(iw.Patch("resid_pre", layer=0, position=0, source=np.ones((2**14, 32))))
    assert "2.0 MiB, too large to stand here: widget.state holds it" in widget.code()
    with pytest.raises(ValueError, match=r"too large to stand here.*is no base64 of float32"):
        exec(widget.code(), {"session": session})
    assert len(base64.b64decode(next(iter(widget.state["arrays"].values()))["data"])) == 2**21


def test_going_back_shows_a_run_again_without_running_it(session):
    calls = count_forwards(session.model)
    for kind in KINDS:
        session.interventions.clear()
        widget = make(kind, session)
        shown, first = numbers(widget), widget.history[0]["number"]
        widget.experiments.extend(EXPERIMENTS)
        ready(widget)
        assert widget.history[0]["experiments"][0] == "mover"
        widget.undo()
        ready(widget)
        assert [visit["current"] for visit in widget.history[:2]] == [False, True]  # the same run is the same visit
        widget.redo()
        ready(widget)
        count = len(calls)
        click(widget, "back_to", number=first)
        ready(widget)
        assert len(calls) == count, kind
        assert all(np.allclose(numbers(widget)[k], v, atol=1e-6, equal_nan=True) for k, v in shown.items())
        assert [visit["number"] for visit in widget.history if visit["current"]] == [first]
        assert len(widget.experiments) == 0
        widget.undo()
        assert widget.experiments.entries == EXPERIMENTS
        ready(widget)
        widget.close()


def test_a_still_picture_says_how_to_go_on_and_carries_the_code(session):
    widget = make("lens", session)
    session.interventions.extend(EXPERIMENTS[:3])
    ready(widget)
    frame = widget.static_frame()
    assert "run the cell to click in it" in frame
    assert html.unescape(frame).count(widget.code()) == 1
    (given,) = re.findall(r'data-commandlinker-args="(.*?)"', frame)
    commands = ["notebook:insert-cell-below", "notebook:replace-selection", "notebook:run-cell"]
    assert json.loads(html.unescape(given)) == {"commands": commands, "args": {"text": widget.code()}}
    session.interventions.append(iw.Patch("resid_pre", layer=0, position=0, source=np.ones((200, 32))))
    assert "<details>" not in widget.static_frame()
    assert "<button" not in widget.static_frame()


def test_the_history_is_bounded_and_says_what_was_asked(session):
    widget = ready(iw.AttentionPattern(session, PROMPT))
    for token in range(3, 60):
        widget.run([*PROMPT, token])
        ready(widget)
    history = widget.history
    assert len(history) == 50
    assert history[0]["current"]
    assert history[0]["number"] == 58
    assert history[0]["prompt"] == "5 17 3 44 17 60 8 91 59"
    assert history[0]["time"] >= history[-1]["time"]
    with pytest.raises(ValueError, match="unknown run 1"):
        widget.back_to(1)
    assert widget._past == []
    widget._past_wanted = True
    assert widget._past == history
    click(widget, "back_to", number="x")
    assert "unknown run 'x'" in widget._status["error"]["text"]


def test_text_that_is_read_as_other_tokens_is_another_run():
    with iw.Session(tiny("llama", vocab_size=VOCABULARY), byte_level(add_bos=False)) as session:
        widget = ready(iw.AttentionPattern(session, "the the"))
        session.prepend_bos = True
        widget.run("the the")
        assert [visit["current"] for visit in ready(widget).history] == [True, False]


def test_edited_weights_are_run_again(session):
    widget = make("heatmap", session)
    first, shown = widget.history[0]["number"], numbers(widget)["value"]
    widget.set(metric="probability")
    ready(widget)
    with torch.no_grad():
        session.model.lm_head.weight.mul_(2)
    widget.back_to(first)
    ready(widget)
    assert not np.allclose(numbers(widget)["value"], shown)


def test_text_that_would_be_read_as_other_tokens_is_warned_of():
    model = tiny("llama", vocab_size=VOCABULARY)
    with (
        iw.Session(model, byte_level(add_bos=False)) as session,
        iw.Session(model, byte_level(add_bos=False)) as other,
    ):
        session.prepend_bos = True
        widget = ready(iw.LogitLens(session, "the the"))
        with pytest.warns(OtherModelWarning, match="prepend_bos=True, and this one's is None"):
            iw.restore(widget.state, other)
        other.prepend_bos = True
        assert_same_numbers(widget, ready(iw.restore(widget.state, other)))
        with pytest.raises(ValueError, match="prepend_bos='yes': true, false or null"):
            widget.state = widget.state | {"prepend_bos": "yes"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_user_does_to_what_was_read_does_not_reach_the_widget(session, kind):
    widget = make(kind, session)
    shown, table, history = numbers(widget), widget.to_csv(), copy.deepcopy(widget.history)
    before = {name: np.array(values) for name, values in shown.items()}
    for name in widget.result.data_vars:
        widget.result[name].values[...] = 0
    widget.history[0]["experiments"].append("x")
    widget.state["settings"].clear()
    widget.refresh()
    ready(widget)
    assert widget.to_csv() == table
    assert widget.history == history
    after = numbers(widget)
    assert all(np.allclose(after[name], values, atol=1e-5, equal_nan=True) for name, values in before.items())


HOSTILE = (
    "it's \"q\"\n''' \"\"\" \\ \\n \r\t", "</script><b>&amp;", "שלום \u202ethe", "<s>the</s> the<pad>", "\x00\x1b[31m",
    "🙂 👩\u200d👧", "{x} %s $x",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_code_and_state_hold_any_text(text):
    model = tiny("llama", vocab_size=VOCABULARY)
    with (
        iw.Session(model, byte_level(add_bos=False)) as session,
        iw.Session(model, byte_level(add_bos=False)) as other,
    ):
        moved = iw.Patch("resid_pre", layer=1, position=0, source=text, source_layer=0, source_position=0)
        session.interventions.append(iw.Experiment(moved, name=text, group=text))
        widget = ready(iw.LogitLens(session, text))
        again = ready(iw.restore(json.loads(json.dumps(widget.state).encode()), other))
        assert again.state == widget.state
        assert_same_numbers(widget, again)
        names = {"session": other}
        exec(widget.code().encode().decode(), names)
        assert ready(names["widget"]).state == widget.state
        assert_same_numbers(widget, names["widget"])
