"""PatchingHeatmap at long prompts: what is the same in both does not travel, everything else comes exactly."""

from __future__ import annotations

import numpy as np
import pytest

import interpwidgets as iw
from tests.clicks import click
from tests.models import random_ids
from tests.sent import array

LENGTH = 90
CLEAN = random_ids(LENGTH)


@pytest.fixture(scope="module")
def session(long_model):
    with iw.Session(long_model) as session:
        yield session


def other(at):
    return [*CLEAN[:at], 3 + (CLEAN[at] - 2) % 90, *CLEAN[at + 1 :]]


def widget_of(session, at, **settings):
    session.interventions.clear()
    widget = iw.PatchingHeatmap(session, clean=CLEAN, corrupted=other(at), **settings)
    widget.wait(60)
    return widget


@pytest.mark.parametrize("at", [3, 80])
def test_columns_before_the_difference_do_not_travel_and_the_others_are_exact(session, at):
    widget = widget_of(session, at)
    sent = widget._sweep
    assert sent["first"] == at
    answer, foil = widget._task["answer"]["id"], widget._task["foil"]["id"]
    share = iw.patch_sweep(session, CLEAN, other(at), "resid_pre", answer=answer, foil=foil).values
    drawn = (array(sent["values"]) - sent["baseline"]) / (sent["clean"] - sent["corrupted"])
    assert np.allclose(drawn, share[:, at:], atol=1e-4)
    assert (share[:, :at] == 0).all()
    assert np.abs(share[:, at:]).max() > 0.1
    assert sent["labels"] == {}
    edges = widget._prompts["edges"]
    assert edges[:2] == [0, at]
    assert edges[-1] == LENGTH


def test_prompts_that_are_the_same_are_one_band_and_a_column(session):
    session.interventions.clear()
    widget = iw.PatchingHeatmap(session, clean=CLEAN, corrupted=CLEAN)
    widget.wait(60)
    assert widget._prompts["edges"] == [0, LENGTH - 1, LENGTH]
    assert array(widget._sweep["values"]).shape == (4, 1)


def test_short_prompts_travel_whole(session):
    session.interventions.clear()
    widget = iw.PatchingHeatmap(session, clean=CLEAN[:20], corrupted=other(10)[:20])
    widget.wait(60)
    assert widget._prompts["edges"] is None
    assert widget._sweep["first"] == 0
    assert array(widget._sweep["values"]).shape == (4, 20)
    assert len(widget._sweep["labels"]["position"]) == 20


def test_heads_of_a_layer_leave_the_same_columns_out(session):
    widget = widget_of(session, 80, site="attn_out")
    click(widget, "drill", layer=2)
    widget.wait(60)
    assert widget._drill["first"] == 80
    assert array(widget._drill["values"]).shape[1] == LENGTH - 80


def test_a_map_by_head_has_no_columns_to_leave_out(session):
    widget = widget_of(session, 80, site="z")
    assert widget._sweep["first"] == 0
