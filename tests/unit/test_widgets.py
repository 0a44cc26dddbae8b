"""What all widgets share, without a browser: experiments, code, static frames, observers, closing."""

from __future__ import annotations

import numpy as np
import pytest

import interpwidgets as iw
from tests.clicks import CORRUPTED, PROMPT, click
from tests.models import tiny
from tests.sent import array


def test_an_error_in_a_run_is_drawn_and_raised_by_wait(session, attention):
    attention.cut(1, 2, 7, 3)
    attention.wait(30)
    attention.run([5, 17, 3])
    with pytest.raises(ValueError, match="position 7 is out of range"):
        attention.wait(30)
    assert attention._status["state"] == "error"
    assert "remove it" in attention._status["error"]["hint"]


def test_experiments_reach_linked_widgets_only(session, attention, lens):
    apart = iw.LogitLens(session, PROMPT, linked=False)
    apart.wait(30)
    attention.ablate(1, 2)
    lens.wait(30)
    apart.wait(30)
    assert lens._now is not None
    assert apart._now is None
    assert lens._experiments[0]["label"] == "z L1H2 → 0"
    assert apart._experiments == []


def test_the_strip_edits_the_list_that_acts(session, attention):
    session.interventions.extend([iw.Scale("mlp_out", 0.5, layer=1), iw.Ablate("z", layer=2, head=1)])
    click(attention, "set_strength", index=0, value=-2)
    click(attention, "move", index=0, to=1)
    click(attention, "group", indices=[0, 1], name="pair")
    click(attention, "rename", index=1, name="flip")
    assert session.interventions.entries == (
        iw.Experiment(iw.Ablate("z", layer=2, head=1), group="pair"),
        iw.Experiment(iw.Scale("mlp_out", -2.0, layer=1), group="pair", name="flip"),
    )
    sent = attention._experiments[1]
    assert (sent["label"], sent["name"], sent["group"]) == ("mlp_out L1 × -2", "flip", "pair")
    assert sent["strength"] == {"value": -2.0, "before": "mlp_out L1 ×", "after": ""}
    attention.wait(30)
    expected = session.run(PROMPT, interventions=list(session.interventions)).logits[-1]
    shown = session.ask(session.tokenize(PROMPT), (), tuple(session.interventions)).prediction
    assert np.allclose(shown, expected, atol=1e-5)
    click(attention, "toggle_group", group="pair")
    assert list(session.interventions) == []
    namespace = {"iw": iw, "session": session}
    code = attention.code().split("widget =")[0]
    before = session.interventions.entries
    session.interventions.clear()
    exec(code, namespace)
    assert session.interventions.entries == before
    click(attention, "set_strength", index=0, value=1)
    assert "no strength to set" in attention._status["error"]["text"]
    click(attention, "move", index="0", to=1)
    assert "index='0': a whole number is needed" in attention._status["error"]["text"]


def test_an_experiment_that_changes_nothing_says_so(session, attention):
    session.interventions.append(iw.Scale("z", 1.0, layer=2))
    attention.wait(30)
    assert attention._experiments[0]["note"] == "changed nothing here"


@pytest.mark.parametrize("kind", ["attention", "lens", "heatmap"])
def test_the_code_of_a_view_rebuilds_it(request, session, kind):
    widget = request.getfixturevalue(kind)
    session.interventions.append(iw.Ablate("z", layer=1, head=2))
    {
        "attention": lambda: widget.select(2, 3),
        "lens": lambda: widget.track(44),
        "heatmap": lambda: widget.set(site="z"),
    }[kind]()
    widget.wait(30)
    code = widget.code()
    assert widget._code == code
    with iw.Session(tiny("llama")) as other:
        names = {"iw": iw, "session": other}
        exec(code, names)
        again = names["widget"]
        again.wait(30)
        assert again.code() == code
        for name in ("_baseline_detail", "_grid", "_sweep"):
            if hasattr(widget, name):
                mine, its = getattr(widget, name), getattr(again, name)
                key = {"_baseline_detail": "weights", "_grid": "p", "_sweep": "values"}[name]
                assert np.allclose(array(mine[key]), array(its[key]), atol=1e-5)


@pytest.mark.parametrize("kind", ["attention", "lens", "heatmap"])
def test_the_static_frame_is_small_and_model_text_is_text(request, session, kind, monkeypatch):
    monkeypatch.setattr(session, "show_token", lambda i: "<script>alert(1)</script>")
    widget = request.getfixturevalue(kind)
    widget.refresh()
    widget.wait(30)
    data, _ = widget._repr_mimebundle_()
    assert "<script" not in data["text/html"]
    assert len(data["text/html"]) < 100_000
    assert data["text/plain"] == f"{type(widget).__name__}(LlamaForCausalLM)"
    assert "application/vnd.jupyter.widget-view+json" in data


def test_figures_show_what_is_on_the_screen(session, attention, lens, heatmap):
    heat = attention.figure().data[0]
    assert np.nanmax(heat.z) == pytest.approx(float(iw.attention_patterns(session, PROMPT)[1, 2].max()), abs=1e-6)
    assert np.isnan(heat.z[0, 1])
    assert lens.figure().data[0].z.shape == (5, 8)
    share = iw.patch_sweep(session, PROMPT, CORRUPTED)
    assert np.allclose(heatmap.figure().data[0].z, share, atol=1e-5)


def test_a_widget_whose_views_are_gone_computes_nothing_until_it_is_seen_again(session, attention):
    attention._view_count = 1
    attention._view_count = 0
    before = attention._overview
    session.interventions.append(iw.Ablate("z", layer=0, head=0))
    assert attention._overview is before
    attention._view_count = 1
    attention.wait(30)
    assert attention._overview["ablated"] == [[0, 0, "zero"]]


def test_closing_the_session_closes_its_widgets(session, attention):
    session.close()
    assert attention._status["state"] == "closed"
    assert attention not in session.widgets
    with pytest.raises(RuntimeError, match="closed"):
        session.worker.submit("x", lambda ticket: None)


def test_what_is_sent_stays_small(attention, lens, heatmap):
    for widget in (attention, lens, heatmap):
        assert len(widget._esm) < 60_000
        assert len(widget._esm) + len(widget._css) < 100_000


def test_a_baseline_that_a_prompt_does_not_have_is_said_to_be_in_the_way(session, attention):
    session.interventions.append(iw.Ablate("z", layer=1, head=0, position=6))
    session.interventions.pin()
    session.interventions.clear()
    click(attention, "run", prompt=PROMPT[:3])
    with pytest.raises(ValueError, match="out of range"):
        attention.wait(30)
    assert "baseline addresses a place" in attention._status["error"]["hint"]
    assert "unpin" in attention._status["error"]["hint"]


def test_an_observer_of_the_result_that_fails_is_told_of_and_the_picture_is_whole(session, attention):
    def fail(change):
        raise ZeroDivisionError("an observer's own bug")

    attention.observe(fail, "result")
    click(attention, "ablate", layer=1, head=1)
    with pytest.raises(ZeroDivisionError, match="own bug"):
        attention.wait(30)
    assert attention._status["error"]["title"] == "An observer of the result failed: ZeroDivisionError"
    assert attention._overview["acts"]
    assert set(attention._predictions["rows"][0]) >= {"baseline", "now"}
    assert attention.history[0]["current"]
    assert len(attention.history) == 2
    attention.unobserve(fail, "result")
    click(attention, "select", layer=2, head=1)
    attention.wait(30)


def test_an_observer_of_the_result_may_run_something_else(session, attention):
    seen = []

    def follow(change):
        seen.append(len(change["new"]["query"]))
        if len(seen) == 1:
            attention.run(CORRUPTED)

    attention.observe(follow, "result")
    attention.run(PROMPT[:5])
    while len(seen) < 2:
        attention.wait(30)
    assert seen == [5, 8]
    assert [token["id"] for token in attention._prompt["tokens"]] == CORRUPTED
    prompts = [visit["prompt"] for visit in attention.history]
    assert prompts == [" ".join(map(str, prompt)) for prompt in (CORRUPTED, PROMPT[:5], PROMPT)]
