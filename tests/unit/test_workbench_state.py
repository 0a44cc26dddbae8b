"""A workbench as data and as code: three widgets that come back as they were, in one figure, linked again."""

from __future__ import annotations

import copy
import html
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import interpwidgets as iw
from interpwidgets.widgets.view import OtherModelWarning
from tests.clicks import CORRUPTED, PROMPT
from tests.models import tiny
from tests.unit.test_state import EXPERIMENTS, numbers

BASELINE = [iw.Ablate("z", layer=0, head=1)]
LOOKS = {"palette": "cividis", "size": "presenter"}


def busy(session, *, pair=True):
    """A workbench that is no longer as it was made."""
    workbench = iw.Workbench(session, PROMPT[::-1], **LOOKS)
    workbench.attention.run(PROMPT)
    session.interventions.extend(EXPERIMENTS)
    session.interventions.baseline = BASELINE
    if pair:
        workbench.compare(CORRUPTED, answer=7, foil=9)
        workbench.heatmap.set(site="z", direction="noise", normalize=False)
        workbench.heatmap.wait(60)
        workbench.heatmap.view = "difference"
        workbench.heatmap.patch([{"site": "z", "layer": 1, "head": 2}, {"site": "z", "layer": 2, "head": 0}])
        workbench.heatmap.drill(2)
    workbench.attention.hide_bos, workbench.attention.view = False, "difference"
    workbench.attention.layer, workbench.attention.head, workbench.attention.edge = 3, 1, [6, 2]
    workbench.lens.metric = "entropy"
    workbench.lens.track(44)
    workbench.wait(60)
    return workbench


def widgets_of(workbench):
    return {name: getattr(workbench, name) for name in ("attention", "lens", "heatmap") if getattr(workbench, name)}


def all_numbers(workbench):
    """All that is on the screen, by the names of the widgets."""
    return {f"{name} {key}": v for name, w in widgets_of(workbench).items() for key, v in numbers(w).items()}


def assert_close(mine, its):
    assert set(mine) == set(its)
    for name, values in mine.items():
        assert np.allclose(values, its[name], atol=1e-5, equal_nan=True), name


def assert_linked_again(workbench):
    widgets = list(widgets_of(workbench).values())
    assert list(workbench.children)[: len(widgets)] == widgets
    assert [w._embedded for w in widgets] == [False, True, True][: len(widgets)]
    workbench.attention.select(2, 0)
    assert workbench.lens.selection.layer == 2
    workbench.lens.run([7, *PROMPT[1:]])
    assert {w.state["prompts"].get("prompt", w.state["prompts"].get("clean"))[0] for w in widgets} == {7}
    workbench.lens.size = "normal"
    assert {w.size for w in (workbench, *widgets)} == {"normal"}


@pytest.mark.parametrize("pair", [True, False])
def test_its_state_rebuilds_it_in_another_session(session, pair):
    workbench = busy(session, pair=pair)
    text = json.dumps(workbench.state)
    with iw.Session(tiny("llama")) as other:
        other.interventions.append(iw.Scale("z", 2.0, layer=0))
        again = iw.restore(json.loads(text), other)
        again.wait(60)
        assert type(again) is iw.Workbench
        assert (again.heatmap is not None) == pair
        assert again.state == json.loads(text)
        assert {name: w.state for name, w in widgets_of(again).items()} == {
            name: w.state for name, w in widgets_of(workbench).items()
        }
        assert (other.interventions.entries, other.interventions.baseline) == (EXPERIMENTS, tuple(BASELINE))
        assert_close(all_numbers(workbench), all_numbers(again))
        other.interventions.undo()
        assert list(other.interventions) == [iw.Scale("z", 2.0, layer=0)]
        other.interventions.redo()
        assert_linked_again(again)


def test_its_state_says_once_what_the_three_share(session):
    workbench = busy(session)
    state = workbench.state
    assert len(state["experiments"]) == len(EXPERIMENTS)
    (array,) = (a["data"] for a in workbench.lens.state["arrays"].values() if len(a["data"]) > 300)
    assert json.dumps(state).count(array) == 1
    assert [sorted(each) for each in state["widgets"].values()] == [["prompts", "selection", "settings"]] * 3


@pytest.mark.parametrize("pair", [True, False])
def test_its_code_gives_the_same_numbers_in_a_fresh_process(tmp_path, pair):
    tiny("llama").save_pretrained(tmp_path / "model")
    with iw.Session(tiny("llama")) as session:
        workbench = busy(session, pair=pair)
        mine = all_numbers(workbench)
        there = (
            "from transformers import AutoModelForCausalLM\n"
            f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'model')!r}).eval()\n"
            "model.config._name_or_path = ''\n"
        )
        program = (
            f"{there}{workbench.code()}\n"
            "workbench.wait(60)\nimport json, numpy\nfrom tests.unit.test_workbench_state import all_numbers\n"
            f"numpy.savez({str(tmp_path / 'seen.npz')!r}, **all_numbers(workbench))\n"
            f"assert workbench.code() == {workbench.code()!r}\n"
            f"assert workbench.state == json.loads({json.dumps(workbench.state)!r})\n"
        )
        (tmp_path / "program.py").write_text(program)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        subprocess.run([sys.executable, tmp_path / "program.py"], check=True, timeout=300, env=environment)
        assert_close(mine, np.load(tmp_path / "seen.npz"))


def test_the_code_in_its_header_is_that_of_all_three(session):
    workbench = iw.Workbench(session, PROMPT, CORRUPTED)
    workbench.wait(60)
    attention = workbench.attention
    assert attention._code_of_all == workbench.code() != attention.code()
    workbench.heatmap.site = "mlp_out"
    workbench.lens.selection = iw.Selection(layer=1, position=2)
    session.interventions.append(iw.Ablate("z", layer=1, head=2))
    workbench.wait(60)
    assert "site='mlp_out'" in attention._code_of_all
    assert attention._code_of_all == workbench.code()
    workbench.compare((5, *CORRUPTED[1:]))
    workbench.wait(60)
    assert attention._code_of_all == workbench.code()
    workbench.close()


def test_its_still_picture_comes_back_as_a_workbench_with_one_click(session):
    workbench = busy(session)
    frame = workbench.static_frame()
    (given,) = re.findall(r'data-commandlinker-args="(.*?)"', frame)
    code = json.loads(html.unescape(given))["args"]["text"]
    assert code == workbench.code()
    assert html.unescape(frame).count("<details>") == 1
    for title in ("Attention pattern", "Logit lens", "Patching heatmap"):
        assert f"<b>{title}</b>" in frame
    before = all_numbers(workbench)
    workbench.close()
    session.interventions.clear()
    kernel = {}
    exec(code, kernel)
    kernel["workbench"].wait(60)
    assert kernel["session"] is session
    assert_close(before, all_numbers(kernel["workbench"]))
    assert_linked_again(kernel["workbench"])


def _deep():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    return nested


def test_what_is_no_state_of_a_workbench_is_refused_and_changes_nothing(session):
    workbench = busy(session)
    state = workbench.state
    workbench.close()
    session.interventions.replace([iw.Scale("z", 2.0, layer=0)], [])
    held, count = session.interventions.entries, len(session.widgets)

    def changed(*path, to):
        damaged = copy.deepcopy(state)
        at = damaged
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to
        return damaged

    for nonsense, said in (
        (changed("version", to=2), "has version 2"),
        (changed("widgets", to=[]), "widgets: an object is needed"),
        (changed("widgets", to=_deep()), "."),
        (changed("widgets", "lens", to=None), "lens: an object is needed"),
        (changed("widgets", "lens", "prompts", to={}), "prompts has no 'prompt'"),
        (changed("widgets", "lense", to={}), "widgets has an unknown 'lense'"),
        (changed("widgets", "heatmap", "settings", "site", to="w"), "'w'"),
        (changed("widgets", "attention", "selection", "layer", to=9), "no attention head"),
        (changed("experiments", 0, to={}), "an experiment has no"),
        ({key: value for key, value in state.items() if key != "widgets"}, "the state has no 'widgets'"),
        ({"widget": "Workbench"}, "has version None"),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            iw.restore(nonsense, session)
        assert session.interventions.entries == held
        assert len(session.widgets) == count
    with pytest.raises(ValueError, match=r"of the model 'LlamaForCausalLM': iw\.restore"):
        iw.restore(state)
    with pytest.warns(OtherModelWarning, match="of the model 'gpt2'") as warned:
        iw.restore(changed("model", to="gpt2"), session).wait(60)
    assert len(warned) == 1


def test_only_widgets_that_share_one_open_session_are_put_together(session):
    attention, lens = iw.AttentionPattern(session, PROMPT), iw.LogitLens(session, PROMPT)
    with pytest.raises(TypeError, match=r"lens=AttentionPattern.*a widget of iw\.LogitLens is needed"):
        iw.Workbench.of(attention, attention)
    with pytest.raises(ValueError, match="lens: a widget that is open, and shares the experiments of one session"):
        iw.Workbench.of(attention, iw.LogitLens(session, PROMPT, linked=False))
    with iw.Session(tiny("llama")) as other, pytest.raises(ValueError, match="heatmap: a widget that is open"):
        iw.Workbench.of(attention, lens, iw.PatchingHeatmap(other, PROMPT, CORRUPTED))
    assert_linked_again(iw.Workbench.of(attention, lens))
    attention.close()
    with pytest.raises(ValueError, match="attention: a widget that is open"):
        iw.Workbench.of(attention, lens)
