"""The wire takes whatever arrives: every request is answered or superseded, errors are drawn, the widget goes on."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traitlets import TraitError

import interpwidgets as iw
from tests.models import tiny
from tests.sent import head

from .clicking import click, send, shows_the_model, widgets_of
from .state import LONG, PROMPT
from .wire import GOOD, PRIVATE, fuzz

NAMES = ("AttentionPattern", "LogitLens", "PatchingHeatmap")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def session():
    with iw.Session(tiny("llama")) as session:
        yield session


@pytest.fixture(scope="module")
def widgets(session):
    made = widgets_of(session)
    for widget in made:
        widget.wait(LONG)
    return dict(zip(NAMES, made, strict=True))


@pytest.fixture(autouse=True)
def quiet(session, widgets):
    """Each test begins and ends with widgets that show the model."""
    yield
    shows_the_model(session, list(widgets.values()), tiny("llama"))


def test_ten_thousand_requests_are_each_answered_or_superseded():
    figures = fuzz(10_000)
    assert figures["answered"] + figures["refused"] == 10_000
    assert min(figures["answered"], figures["refused"], figures["runs superseded or stopped"]) > 500


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_any_json_in_any_argument_is_acknowledged(session, widgets, data):
    widget = widgets[data.draw(st.sampled_from(NAMES))]
    op, arguments = data.draw(st.sampled_from(GOOD[type(widget).__name__]))
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(arguments)), JSON, min_size=1))
    number = click(widget, op, **{**arguments, **changed})
    assert widget._status["id"] == number
    session.interventions.clear()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("op", [*PRIVATE, None, 5, ["run"], {"run": 1}, math.nan, "x" * 10**6, "figure", "code"])
def test_an_operation_that_is_none_is_refused(widgets, name, op):
    number = click(widgets[name], op)
    assert widgets[name]._status["id"] == number
    assert "unknown request" in widgets[name]._status["error"]["text"]
    assert len(widgets[name]._status["error"]["text"]) < 3000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [None, "7", math.nan, math.inf, -1, 2**60, 1.5, True, [3], {"id": 3}])
def test_an_id_that_is_no_whole_number_is_refused(widgets, name, number):
    widget = widgets[name]
    before = widget._status["id"]
    send(widget, {"_request": {"id": number, "op": "clear"}})
    assert "whole number as its id" in widget._status["error"]["text"]
    assert widget._status["id"] == before


@pytest.mark.parametrize(
    ("name", "op", "arguments"),
    [
        ("AttentionPattern", "cut", {"layer": 0, "head": 0, "query": 3, "key": 1, "renormalize": [1]}),
        ("AttentionPattern", "cut", {"layer": 0, "head": 0, "query": 3.0, "key": 1}),
        ("AttentionPattern", "select", {"layer": 1.0, "head": 0}),
        ("AttentionPattern", "ablate", {"layer": True, "head": 0}),
        ("AttentionPattern", "ablate", {"layer": 1, "head": 0, "how": ["zero"]}),
        ("AttentionPattern", "run", {"prompt": 5}),
        ("AttentionPattern", "run", {"prompt": {"a": 1}, "extra": 1}),
        ("LogitLens", "track", {"token": 10**9}),
        ("LogitLens", "track", {"token": -1}),
        ("LogitLens", "track", {"token": None}),
        ("LogitLens", "compute", {"metric": "x"}),
        ("LogitLens", "compute", {"metric": ["kl"]}),
        ("LogitLens", "transplant_cells", {"source": [1.5, 1], "target": [2, 2]}),
        ("LogitLens", "transplant_cells", {"source": [1, 1.0], "target": [2, 2]}),
        ("LogitLens", "transplant_cells", {"source": 5, "target": [2, 2, 2]}),
        ("LogitLens", "replace", {"position": 1.5, "token": 3}),
        ("PatchingHeatmap", "set", {"answer": 10**9}),
        ("PatchingHeatmap", "set", {"site": "z", "metric": "x"}),
        ("PatchingHeatmap", "drill", {"layer": 1.5}),
        ("PatchingHeatmap", "drill", {"layer": math.nan}),
        ("PatchingHeatmap", "patch", {"cells": [{"site": "resid_pre", "layer": 99, "head": None, "position": 0}]}),
        ("PatchingHeatmap", "patch", {"cells": [{"site": "resid_pre", "layer": 0, "head": 1, "position": 0}]}),
        ("PatchingHeatmap", "patch", {"cells": [{"site": "z", "layer": 0, "head": 77, "position": None}]}),
        ("PatchingHeatmap", "patch", {"cells": [{"site": "z", "layer": 0, "head": 0, "position": [0, 1]}]}),
        ("PatchingHeatmap", "patch", {"cells": [5]}),
        ("PatchingHeatmap", "patch", {"cells": 5}),
    ],
)
def test_what_cannot_be_run_is_refused_at_once_and_leaves_nothing_in_the_way(session, widgets, name, op, arguments):
    widget = widgets[name]
    code = widget.code()
    number = click(widget, op, **arguments)
    assert widget._status["id"] == number
    assert widget._status["error"]["title"] == "This cannot be run"
    assert widget.code() == code
    assert len(session.interventions) == 0
    widget.refresh()
    widget.wait(LONG)
    assert widget._status["state"] == "idle"


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("AttentionPattern", "layer", 99),
        ("AttentionPattern", "head", -1),
        ("AttentionPattern", "layer", "2"),
        ("AttentionPattern", "view", "sideways"),
        ("AttentionPattern", "_view_count", "x"),
        ("LogitLens", "metric", "x"),
        ("LogitLens", "cell", [999, 999]),
        ("LogitLens", "cell", [1]),
        ("LogitLens", "tracked", [-1]),
        ("LogitLens", "tracked", [10**9]),
        ("LogitLens", "tracked", None),
        ("PatchingHeatmap", "site", "resid_post"),
        ("PatchingHeatmap", "direction", 3),
        ("PatchingHeatmap", "normalize", "yes"),
    ],
)
def test_a_setting_that_makes_no_sense_is_drawn_and_the_page_shows_what_holds(
    widgets, name, setting, value, monkeypatch
):
    widget = widgets[name]
    sent = []
    monkeypatch.setattr(widget.comm, "send", lambda data, buffers=None: sent.append(data))
    before = getattr(widget, setting)
    send(widget, {setting: value})
    assert getattr(widget, setting) == before
    assert widget._status["error"] is not None
    assert any(m["method"] == "update" and m["state"].get(setting, ...) == before for m in sent)


def test_a_bad_setting_does_not_take_the_request_beside_it_along(widgets):
    lens = widgets["LogitLens"]
    number = lens._status["id"] + 1
    send(lens, {"metric": "x", "_request": {"id": number, "op": "track", "token": 44}, "cell": [999, 999]})
    assert lens._status["id"] == number
    assert lens.tracked == [44]
    lens.wait(LONG)
    click(lens, "untrack", token=44)


@pytest.mark.parametrize("name", NAMES)
def test_what_python_says_cannot_be_said_by_the_page(widgets, name):
    widget = widgets[name]
    ours = [
        trait
        for trait in widget.keys
        if trait.startswith("_") and trait not in ("_request", "_view_count", "_past_wanted")
    ]
    before = {trait: getattr(widget, trait) for trait in [*ours, "linked"]}
    for trait in before:
        send(widget, {trait: {} if isinstance(before[trait], dict) else [] if isinstance(before[trait], list) else ""})
    send(widget, {"linked": False})
    assert {trait: getattr(widget, trait) for trait in before} == before


def test_a_refused_request_stays_drawn_when_an_older_run_ends(session, widgets):
    attention = widgets["AttentionPattern"]
    entered, go_on = threading.Event(), threading.Event()

    def halt(*_):
        if threading.current_thread().name == "interpwidgets-worker" and not entered.is_set():
            entered.set()
            assert go_on.wait(LONG)

    handle = session.model.model.layers[2].register_forward_pre_hook(halt)
    click(attention, "run", prompt=[7, 8, 9])
    assert entered.wait(LONG)
    number = click(attention, "select", layer=99, head=0)
    go_on.set()
    with pytest.raises(ValueError, match="no attention head"):
        attention.wait(LONG)
    handle.remove()
    assert attention._status["id"] == number
    assert "no attention head" in attention._status["error"]["text"]
    assert [token["id"] for token in attention._prompt["tokens"]] == [7, 8, 9]


def test_repeated_and_stale_requests_do_no_harm(session, widgets):
    attention = widgets["AttentionPattern"]
    number = click(attention, "ablate", layer=1, head=1)
    request = dict(attention._request)
    for _ in range(5):
        send(attention, {"_request": request})
    assert len(session.interventions) == 1
    send(attention, {"_request": {"id": number - 1, "op": "clear"}})
    assert attention._status["id"] == number - 1
    assert len(session.interventions) == 0
    send(attention, {"_request": {"id": number + 1, "op": "run", "prompt": list(PROMPT)}})
    attention.wait(LONG)
    assert attention._status["id"] == number + 1
    assert np.array_equal(head(attention), iw.attention_patterns(session, PROMPT).sel(layer=1, head=2))


def test_a_widget_that_cannot_be_made_leaves_nothing_behind(session):
    before = set(session.widgets)
    for make in (
        lambda: iw.AttentionPattern(session, PROMPT, layer=99),
        lambda: iw.AttentionPattern(session, PROMPT, view="sideways"),
        lambda: iw.LogitLens(session, PROMPT, tracked=[10**9]),
        lambda: iw.PatchingHeatmap(session, clean=PROMPT, corrupted=PROMPT, site="resid_post"),
        lambda: iw.PatchingHeatmap(session, clean=PROMPT, corrupted=PROMPT, direction="up"),
    ):
        with pytest.raises((ValueError, TraitError)):
            make()
    assert set(session.widgets) == before
