"""LogitLens at long prompts: bands that lose no spike, exact cells for the window in view."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import interpwidgets as iw
from interpwidgets.methods.lens import UNITS
from interpwidgets.widgets.bands import MOST, band_edges
from interpwidgets.widgets.lens_bands import KEPT
from tests.clicks import click
from tests.models import random_ids, tiny
from tests.sent import array

LENGTH = 150
PROMPT = random_ids(LENGTH)


@pytest.fixture
def widget(long_model):
    with iw.Session(long_model) as session:
        widget = iw.LogitLens(session, PROMPT, metric="kl")
        widget.wait(30)
        yield widget


def ask(widget, rows, cols, number=1):
    widget.set_state({"_asked": {"number": number, "reading": widget._grid["reading"], "rows": rows, "cols": cols}})


def decoded(coded):
    """A metric's bands, (row, band), and the largest error that 8 bits make."""
    codes, low, high = array(coded["codes"]).astype(float), coded["low"], coded["high"]
    scaled = np.where(codes == 255, np.nan, low + (high - low) * codes / 254)
    step = (high - low) / 254 / 2 + 1e-6
    return (np.expm1(scaled), np.expm1(scaled + step) - np.expm1(scaled)) if coded["log"] else (scaled, step)


@pytest.mark.parametrize("length", [65, 80, 81, 1024, 4096])
@pytest.mark.parametrize("first", [0, 1, 17, 64])
def test_bands_cover_every_position_once(length, first):
    edges = band_edges(length, first)
    assert edges[0] == 0
    assert edges[-1] == length
    assert all(np.diff(edges) > 0)
    assert first in edges
    if length - first <= MOST:
        assert set(np.diff([edge for edge in edges if edge >= first])) == {1}


def test_a_prompt_whose_columns_fit_has_no_bands(long_model):
    assert band_edges(MOST) is None
    with iw.Session(long_model) as session:
        widget = iw.LogitLens(session, PROMPT[:MOST])
        widget.wait(30)
        assert "edges" not in widget._grid
        assert widget._window is None
        assert array(widget._grid["p"]).shape == (5, MOST, 10)


def test_a_band_shows_its_spike_and_of_probabilities_the_mean(widget):
    exact = iw.logit_lens(widget.session, PROMPT, list(UNITS))
    edges = widget._grid["edges"]
    assert set(widget._grid["bands"]) == set(UNITS)
    for name, coded in widget._grid["bands"].items():
        values, error = decoded(coded)
        assert (KEPT[name] == "mean") == ("probability" in name)
        best = {"largest": np.nanmax, "smallest": np.nanmin, "mean": np.nanmean}[KEPT[name]]
        for band, (first, end) in enumerate(itertools.pairwise(edges)):
            spike = best(exact[name].values[:, first:end], axis=1)
            close = np.broadcast_to(error, values.shape)[:, band]
            assert (np.abs(values[:, band] - spike) <= close * 1.01).all(), name
        assert widget._grid["most"][name] == pytest.approx(np.nanmax(np.abs(exact[name].values)), rel=1e-5)


def test_the_first_picture_brings_the_last_band_exactly(widget):
    exact = iw.logit_lens(widget.session, PROMPT, "entropy")
    assert widget._window["cols"] == [144, 150]
    assert np.array_equal(array(widget._window["baseline"]["top"]), exact["top_token"].values[:, 144:])
    assert np.allclose(array(widget._window["baseline"]["metrics"]["entropy"]), exact["entropy"].values[:, 144:])


def test_a_window_is_exact_in_both_runs(widget):
    click(widget, "transplant_cells", source=[2, 100], target=[1, 60])
    widget.wait(30)
    ask(widget, [0, 5], [48, 64])
    patch = tuple(widget.experiments)
    now = iw.logit_lens(widget.session, PROMPT, "rank", interventions=patch)
    before = iw.logit_lens(widget.session, PROMPT, "rank")
    for sent, exact in ((widget._window["now"], now), (widget._window["baseline"], before)):
        assert np.array_equal(array(sent["top"]), exact["top_token"].values[:, 48:64])
        assert np.allclose(array(sent["p"]), exact["top_probability"].values[:, 48:64], atol=1e-6)
        assert np.array_equal(array(sent["metrics"]["rank"]), exact["rank"].values[:, 48:64])
    touched = array(widget._window["touched"])
    assert (touched[2:, 12:] == 1).all()
    assert touched[:, :12].sum() == 0


def test_a_band_shows_its_largest_change_with_its_sign(widget):
    before = iw.logit_lens(widget.session, PROMPT, ["entropy", "rank"])
    click(widget, "transplant_cells", source=[2, 100], target=[1, 60])
    widget.wait(30)
    now = iw.logit_lens(widget.session, PROMPT, ["entropy", "rank"], interventions=tuple(widget.experiments))
    change = {
        "entropy": (now.entropy - before.entropy).values,
        "rank": np.log10((1 + now["rank"]) / (1 + before["rank"])).values,
    }
    edges = widget._now["edges"]
    for name, exact in change.items():
        values, error = decoded(widget._now["changes"][name])
        for band, (first, end) in enumerate(itertools.pairwise(edges)):
            part = exact[:, first:end]
            far = np.take_along_axis(part, np.abs(part).argmax(1)[:, None], 1)[:, 0]
            assert np.abs(np.abs(values[:, band]) - np.abs(far)).max() <= error * 1.01
            sure = np.abs(np.abs(part.max(1)) - np.abs(part.min(1))) > 1e-5
            assert (np.abs(values[:, band] - far)[sure] <= error * 1.01).all()
    reached = array(widget._now["touched"])
    assert (reached[:, :3] == 0).all()
    assert (reached[2:, 3:] == 1).all()


def test_an_experiment_does_not_send_the_baseline_again(widget):
    grid = widget._grid
    click(widget, "transplant_cells", source=[2, 100], target=[1, 60])
    widget.wait(30)
    assert widget._grid is grid
    assert widget._now["reading"] == grid["reading"]


def test_tracked_tokens_come_for_the_columns_in_view(widget):
    ask(widget, [0, 5], [32, 48])
    click(widget, "track", token=17)
    widget.wait(30)
    expected = iw.logit_lens(widget.session, PROMPT, track=[17])
    assert widget._tracks["first"] == 32
    found = array(widget._tracks["probability"])
    assert np.allclose(found, expected["tracked_probability"].values[:, :, 32:48], atol=1e-6)
    ask(widget, [0, 5], [64, 80], number=2)
    assert widget._tracks["first"] == 64
    ask(widget, [3, 4], [80, 96], number=3)
    assert widget._window["rows"] == [3, 4]
    assert widget._tracks["first"] == 64, "one row that is pointed at is no view of columns"


def test_a_window_of_a_reading_that_is_gone_is_not_sent(widget):
    late = {"number": 9, "reading": widget._grid["reading"] - 1, "rows": [0, 5], "cols": [0, 16]}
    before = widget._window
    widget.set_state({"_asked": late})
    assert widget._window is before
    assert widget._status["error"] is None


@pytest.mark.parametrize(
    ("rows", "cols", "says"),
    [([0, 6], [0, 16], "no cells at rows"), ([0, 5], [144, 160], "no cells at rows"), ([2], [0, 16], "a window is")],
)
def test_a_window_that_is_not_there_is_drawn_as_an_error(widget, rows, cols, says):
    ask(widget, rows, cols)
    assert says in widget._status["error"]["text"]


def test_replacing_a_token_keeps_the_view_and_a_shorter_prompt_goes_to_its_end(widget):
    ask(widget, [0, 5], [32, 48])
    click(widget, "replace", position=40, token=7)
    widget.wait(30)
    assert widget._window["cols"] == [32, 48]
    widget.run(PROMPT[:100])
    widget.wait(30)
    ask(widget, [0, 5], [96, 100], number=4)
    widget.run(PROMPT[:90])
    widget.wait(30)
    assert widget._window["cols"] == [80, 90]


def test_first_picture_and_clicks_stay_small():
    with iw.Session(tiny("llama", max_position_embeddings=2048)) as session:
        prompt = random_ids(1024, seed=1)
        widget = iw.LogitLens(session, prompt)
        widget.wait(60)
        size = sum(memoryview(b["codes"]["view"]).nbytes for b in widget._grid["bands"].values())
        assert size == 5 * 5 * 64
        assert array(widget._window["baseline"]["top"]).shape == (5, 16, 10)


def test_a_lens_that_fills_sends_few_overviews_and_only_of_whole_columns(long_model, monkeypatch):
    monkeypatch.setattr("interpwidgets.widgets.running._PROGRESS_SECONDS", 0.0)
    with iw.Session(long_model) as session:
        parts = []
        widget = iw.LogitLens(session, PROMPT)
        widget.wait(30)
        widget.observe(lambda change: change["new"] and parts.append(change["new"]), names="_part")
        widget.run(PROMPT[::-1])
        widget.wait(30)
        assert 1 <= len(parts) <= 16
        known = [(array(part["bands"]["entropy"]["codes"]) < 255).all(0).sum() for part in parts]
        assert known == sorted(known)
        assert all(array(part["bands"]["entropy"]["codes"])[:, 0].max() < 255 for part in parts)
