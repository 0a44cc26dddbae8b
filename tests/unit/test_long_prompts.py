"""AttentionPattern where whole patterns are too large to keep or to send."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import interpwidgets as iw
from interpwidgets.engine.bins import Bins
from tests.clicks import click
from tests.models import random_ids
from tests.sent import array, head, thumbnails
from tests.unit.test_resume import products

LENGTH = 300
PROMPT = random_ids(LENGTH)
ABLATION = iw.Ablate("z", layer=1, head=2, how="mean")


@pytest.fixture(params=["all layers kept", "the layer in view kept"])
def widget(request, long_model):
    with iw.Session(long_model) as session:
        session.memory_budget = 2**30 if request.param == "all layers kept" else 2**24
        widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2)
        widget.wait(30)
        assert widget._keeps_all() == (request.param == "all layers kept")
        yield widget


def largest(weights, edges):
    """The largest of each bin, cell by cell."""
    bins = list(itertools.pairwise(edges))
    return np.array([[weights[..., a:b, c:d].max((-2, -1)) for c, d in bins] for a, b in bins]).transpose(
        *range(2, weights.ndim), 0, 1
    )


def ask(widget, rows, cols):
    asked = {"version": widget._detail["version"], "rows": rows, "cols": cols}
    widget.set_state({"_asked": asked})


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 63, 64, 94, 256, 257, 1023, 1024])
@pytest.mark.parametrize("most", [32, 256])
def test_bins_cover_every_position_once_and_are_not_too_many(length, most):
    edges = Bins("pattern", most).edges(length)
    assert edges[0] == 0
    assert edges[-1] == length
    assert all(np.diff(edges) > 0)
    assert len(edges) - 1 <= most
    assert edges[1] == 1
    weights = torch.rand(1, length, 2, length, generator=torch.Generator().manual_seed(length))
    found = Bins("pattern", most)(weights)[0]
    one = weights[0].transpose(0, 1)[1].numpy()
    by_hand = np.maximum.reduceat(np.maximum.reduceat(one, edges[:-1], axis=0), edges[:-1], axis=1)
    assert np.array_equal(found[1], by_hand)
    assert np.array_equal(Bins("pattern", most).of(one), by_hand)


def test_thumbnails_and_the_picture_lose_no_spike_in_either_run(widget):
    before = iw.attention_patterns(widget.session, PROMPT).values
    widget.session.interventions.append(ABLATION)
    widget.wait(30)
    now = iw.attention_patterns(widget.session, PROMPT, [ABLATION]).values
    click(widget, "select", layer=3, head=1)
    widget.wait(30)
    for kind, weights in (("baseline", before), ("now", now)):
        small = largest(weights, widget._baseline_overview["edges"])
        assert np.abs(thumbnails(widget, kind) / 255 - small).max() <= 0.5 / 255 + 1e-5
        picture = largest(weights[3, 1], widget._baseline_detail["edges"])
        assert np.abs(head(widget, kind) / 255 - picture).max() <= 0.5 / 255 + 1e-5
    change = largest(np.abs(now - before)[3, 1], widget._baseline_detail["edges"])
    bound = widget._detail["bound"]
    assert bound == pytest.approx(change.max(), abs=1e-6)
    drawn = (array(widget._detail["difference"]).astype(float) - 127) / 127 * bound
    lower = np.tril(np.ones_like(change, dtype=bool))
    assert np.abs(np.abs(drawn) - change)[lower].max() <= bound / 127


def test_a_window_is_exact(widget):
    widget.session.interventions.append(ABLATION)
    click(widget, "select", layer=3, head=1)
    widget.wait(30)
    ask(widget, [120, 160], [40, 100])
    before = iw.attention_patterns(widget.session, PROMPT).values[3, 1, 120:160, 40:100]
    now = iw.attention_patterns(widget.session, PROMPT, [ABLATION]).values[3, 1, 120:160, 40:100]
    assert np.abs(array(widget._window["baseline"]) - before).max() < 1e-6
    assert np.abs(array(widget._window["now"]) - now).max() < 1e-6
    assert np.abs(now - before).max() > 1e-4


def test_a_window_of_a_picture_that_has_been_replaced_is_not_sent(widget):
    ask(widget, [0, 4], [0, 4])
    shown = widget._window
    version = widget._detail["version"]
    click(widget, "select", layer=1, head=0)
    assert widget._detail["version"] != version
    late = {"version": version, "rows": [4, 8], "cols": [0, 4]}
    widget.set_state({"_asked": late})
    assert widget._window is shown
    assert widget._status["error"] is None


@pytest.mark.parametrize("change", ["another prompt", "another baseline"])
def test_a_window_of_other_weights_is_not_taken_for_one_of_these(widget, change):
    """The page keeps windows by the picture's version: nothing of `_detail` but this tells it that they are old."""
    ask(widget, [0, 4], [0, 4])
    old = widget._window["version"]
    if change == "another prompt":
        widget.run([*PROMPT[:1], *PROMPT[:0:-1]])
    else:
        widget.session.interventions.append(iw.Scale("resid_pre", factor=0.999, layer=1, position=1))
        widget.session.interventions.pin()
    widget.wait(30)
    assert widget._detail["now"] is None
    assert widget._detail["version"] != old
    ask(widget, [0, 4], [0, 4])
    acting = widget.session.interventions
    exact = iw.attention_patterns(widget.session, widget._tokens.given, acting).values[1, 2, :4, :4]
    assert np.abs(array(widget._window["baseline"]) - exact).max() < 1e-6


@pytest.mark.parametrize("rows", [[5], [4, 4], [-1, 3], [0, 2.5], [False, True], None])
def test_a_window_that_makes_no_sense_is_drawn_as_an_error(widget, rows):
    ask(widget, rows, [0, 4])
    assert f"rows={rows!r}: a window is [first, end]" in widget._status["error"]["text"]


def test_a_window_outside_of_the_prompt_is_drawn_as_an_error(widget):
    ask(widget, [0, 4], [298, 302])
    assert "no weights at queries [0, 4], keys [298, 302]" in widget._status["error"]["text"]


def test_a_head_is_said_to_change_by_no_more_than_it_does(widget):
    before = iw.attention_patterns(widget.session, PROMPT).values
    widget.session.interventions.append(ABLATION)
    widget.wait(30)
    now = iw.attention_patterns(widget.session, PROMPT, [ABLATION]).values
    changed, truth = array(widget._overview["changed"]), np.abs(now - before).max((2, 3))
    assert widget._overview["exact"] == widget._keeps_all()
    if widget._overview["exact"]:
        assert np.abs(changed - truth).max() < 1e-6
    else:
        edges = widget._baseline_overview["edges"]
        lower = np.abs(largest(now, edges) - largest(before, edges)).max((2, 3))
        assert np.abs(changed - lower).max() < 1e-6
        assert (changed <= truth + 1e-6).all()
    assert (changed[:2] == 0).all()
    assert (changed[2:] > 0).all()


def test_what_an_experiment_leaves_alone_is_not_sent_again(widget):
    baseline, detail = widget._baseline_overview, widget._baseline_detail
    widget.session.interventions.append(ABLATION)
    widget.wait(30)
    assert widget._baseline_overview is baseline
    assert widget._baseline_detail is detail
    assert widget._detail["now"] is None  # the selected head lies above
    assert widget._overview["first"] == 2
    assert widget._overview["now"]["shape"][0] == 2
    overview = widget._overview
    widget.refresh()
    widget.wait(30)
    assert widget._overview is overview


def test_only_the_layer_in_view_is_held_and_another_one_costs_one_block(long_model):
    with iw.Session(long_model) as session:
        session.memory_budget = 2**24
        widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2)
        widget.wait(30)
        session.interventions.append(ABLATION)
        widget.wait(30)
        layer = 4 * LENGTH * LENGTH * 4
        held = {t.untyped_storage().data_ptr(): t.nbytes for run in widget.runs() for t in run.tensors()}
        assert sum(size >= layer for size in held.values()) <= 2  # now and baseline
        tokens = session.tokenize(PROMPT)
        _, whole = products(lambda: session.run(tokens, "pattern"))
        part, few = products(lambda: session.ask(tokens, (iw.Site("pattern", layer=2),), (ABLATION,)))
        assert few <= whole / 3
        expected = iw.attention_patterns(session, PROMPT, [ABLATION]).sel(layer=2)
        assert np.abs(part["pattern"].values.squeeze() - expected.values).max() < 1e-6


def test_a_figure_shows_every_weight_of_a_long_prompt(widget):
    click(widget, "select", layer=2, head=3)
    drawn = widget.figure().data[0].z
    expected = iw.attention_patterns(widget.session, PROMPT).values[2, 3]
    assert np.abs(np.nan_to_num(drawn) - expected).max() < 1e-6
