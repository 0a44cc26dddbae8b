"""Sweeps over many pairs: each pair's own sweep, and statistics that are checked by hand."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest

import interpwidgets as iw
from interpwidgets.methods.pairs import bootstrap_interval, sign_flip_p
from interpwidgets.methods.patching import ZeroGapWarning
from tests.models import tiny

A = (5, 17, 3, 44, 17, 60, 8, 91)
PAIRS = [
    (A, (5, 17, 3, 21, 17, 60, 9, 91), 7, 11),
    iw.Pair((4, 8, 15, 16, 23, 42), (4, 8, 15, 61, 23, 42), 7, 11),
    ((9, 2, 33, 44, 5, 61, 7, 12), (9, 2, 33, 40, 5, 61, 7, 12)),
]


@pytest.fixture(scope="module")
def session():
    with iw.Session(tiny("llama")) as session:
        yield session


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("normalize", [True, False])
def test_each_pair_is_its_own_sweep(session, normalize, direction):
    data = iw.patch_pairs(session, PAIRS, "z", direction=direction, normalize=normalize)
    assert data["effect"].dims == ("pair", "layer", "head")
    for i, pair in enumerate(PAIRS):
        given = pair if isinstance(pair, tuple) else (pair.clean, pair.corrupted, pair.answer, pair.foil)
        raw = iw.patch_sweep(session, given[0], given[1], "z", *given[2:], direction=direction, normalize=False)
        clean, corrupted = raw.attrs["clean"], raw.attrs["corrupted"]
        start, end = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
        expected = (raw.values - start) / (end - start if normalize else 1)
        assert np.abs(data["effect"].values[i] - expected).max() < 1e-4
        assert float(data["gap"][i]) == pytest.approx(clean - corrupted, rel=1e-4)
    assert np.allclose(data["mean"], data["effect"].values.mean(0))


def test_maps_by_position_need_one_length(session):
    with pytest.raises(ValueError, match=r"pairs of the same length, and these have \[6, 8\] tokens"):
        iw.patch_pairs(session, PAIRS, "resid_pre")
    data = iw.patch_pairs(session, [PAIRS[0], PAIRS[2]], "resid_pre")
    assert data["mean"].dims == ("layer", "position")


def test_results_stream_and_are_already_right(session):
    seen, counts = [], []
    final = iw.patch_pairs(session, PAIRS, "z", partial=seen.append, progress=lambda *p: counts.append(p))
    assert counts == [(1, 3), (2, 3), (3, 3)]
    assert [len(d["pair"]) for d in seen] == [1, 2, 3]
    for data in seen:
        chosen = final["effect"].sel(pair=data["pair"])
        assert np.array_equal(data["effect"], chosen)
        assert np.allclose(data["mean"], chosen.mean("pair"))


def test_a_pair_without_a_gap_is_left_out_and_warned_of(session):
    with pytest.warns(ZeroGapWarning, match=r"in pairs \[1\]"):
        data = iw.patch_pairs(session, [PAIRS[0], (A, A, 7, 11)], "z")
    assert np.isnan(data["effect"].values[1]).all()
    assert np.array_equal(data["mean"], data["effect"].values[0])


def test_prompts_of_one_length_share_a_pass(session):
    session._results.clear()
    passes = []
    handle = session.engine.architecture.blocks[0].module.register_forward_pre_hook(
        lambda m, args: passes.append(args[0].shape[:2])
    )
    iw.patch_pairs(session, [PAIRS[0], PAIRS[2]], "z")
    handle.remove()
    assert (3, 8) in passes  # four prompts, of which one has told how much memory a run takes


def test_p_values_by_hand():
    effects = np.array([[1.0, 1.0, -1.0], [2.0, -2.0, -0.5], [3.0, 0.5, -3.0]])
    for column, p in zip(effects.T, sign_flip_p(effects), strict=True):
        means = [abs(np.dot(signs, column)) for signs in product([1, -1], repeat=3)]
        assert p == sum(m >= abs(column.sum()) - 1e-9 for m in means) / 8
    assert sign_flip_p(effects)[0] == 2 / 8
    many = np.random.default_rng(0).normal(0.0, 1.0, (40, 500))
    assert 0.02 < (sign_flip_p(many) < 0.05).mean() < 0.08  # as often as it should be, where nothing is there
    assert sign_flip_p(many + 1.0).max() < 0.01


@pytest.mark.parametrize("n", [3, 20])
def test_what_is_not_finite_has_no_p_value(n):
    effects = np.random.default_rng(2).normal(2.0, 1.0, (n, 3))
    effects[:, 1], effects[1, 2] = np.nan, np.inf
    assert np.isfinite(sign_flip_p(effects)).tolist() == [True, False, False]


def test_cells_that_do_not_exist_have_no_statistics(session):
    data = iw.patch_pairs(session, [PAIRS[0], PAIRS[2]], "pattern", layer=1, head=2)
    ahead = np.triu(np.ones((8, 8), bool), 1)
    for name in ("mean", "low", "high", "p_value"):
        assert (np.isnan(data[name].values) == ahead).all(), name


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    low, high = bootstrap_interval(rng.normal(3.0, 2.0, (60, 400)), 0.9)
    assert 0.85 < ((low < 3.0) & (high > 3.0)).mean() < 0.94
    assert np.allclose(high - low, 2 * 1.645 * 2 / np.sqrt(60), rtol=0.35)
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval(np.ones((3, 2)), 95)


def test_the_statistics_of_a_large_map_hold_little_and_are_those_of_its_parts():
    effects = np.random.default_rng(3).normal(0.3, 1.0, (20, 40, 60))  # all flips would be 192 MB
    tracemalloc.start()
    (low, high), p = bootstrap_interval(effects), sign_flip_p(effects)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000
    assert low.shape == high.shape == p.shape == (40, 60)
    for row in (0, 17, 39):
        assert np.allclose(bootstrap_interval(effects[:, row]), (low[row], high[row]), atol=1e-12)
        assert np.array_equal(sign_flip_p(effects[:, row]), p[row])


def test_no_pairs_are_refused(session):
    with pytest.raises(ValueError, match="pairs is empty"):
        iw.patch_pairs(session, [])
