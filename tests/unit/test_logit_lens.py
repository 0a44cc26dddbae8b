"""LogitLens without a browser: its grid, transplants, replaced and tracked tokens, on a tiny real model."""

from __future__ import annotations

import numpy as np
import pytest

import interpwidgets as iw
from tests.clicks import PROMPT, click
from tests.models import random_ids
from tests.sent import array, under_experiments


def test_parts_of_the_lens_are_the_rows_of_its_grid_each_sent_once(session, monkeypatch):
    monkeypatch.setattr("interpwidgets.widgets.running._PROGRESS_SECONDS", 0)
    prompt = random_ids(60)
    parts = []
    widget = iw.LogitLens(session, PROMPT)
    widget.wait(30)
    widget.observe(lambda change: change["new"] and parts.append(change["new"]), names="_part")
    widget.run(prompt)
    widget.wait(30)
    rows = [range(part["row"], part["row"] + len(array(part["p"]))) for part in parts]
    assert [i for some in reversed(rows) for i in some] == list(range(5))
    assert len({part["reading"] for part in parts}) == 1
    assert np.array_equal(np.concatenate([array(part["p"]) for part in reversed(parts)]), array(widget._grid["p"]))
    assert all(part["rows"] == widget._grid["rows"] for part in parts)
    assert widget._part is None


def test_lens_grid_is_the_methods(session, lens):
    expected = iw.logit_lens(session, PROMPT, ["probability", "rank", "entropy"])
    assert np.array_equal(array(lens._grid["top"]), expected["top_token"])
    for name in ("probability", "rank", "entropy"):
        assert np.allclose(array(lens._grid["metrics"][name]), expected[name], atol=1e-6)
    assert "kl" not in lens._grid["metrics"]
    click(lens, "compute", metric="kl")
    lens.wait(30)
    assert np.allclose(array(lens._grid["metrics"]["kl"]), iw.logit_lens(session, PROMPT, "kl")["kl"], atol=1e-6)


def test_transplant_touches_its_causal_cone_and_nothing_else(session, lens):
    click(lens, "transplant_cells", source=[2, 1], target=[3, 5])
    lens.wait(30)
    move = iw.Patch("resid_post", layer=2, position=5, source=tuple(PROMPT), source_layer=1, source_position=1)
    assert list(session.interventions) == [move]
    touched = array(lens._now["touched"])
    cone = np.zeros_like(touched)
    cone[3, 5] = 1
    cone[4:, 5:] = 1
    assert np.array_equal(touched, cone)
    now = iw.logit_lens(session, PROMPT, interventions=[move])
    assert np.array_equal(under_experiments(lens, "top"), now["top_token"])
    assert np.allclose(under_experiments(lens, "p"), now["top_probability"], atol=1e-6)


def test_what_acts_behind_the_last_block_is_seen_in_the_last_row_where_it_acts(session, lens):
    steer = iw.Scale("ln_final", -1.0, position=5)
    session.interventions.append(steer)
    lens.wait(30)
    touched = array(lens._now["touched"])
    assert np.argwhere(touched).tolist() == [[4, 5]]
    assert lens._now["row"] == 4
    p = session.run(PROMPT, interventions=[steer]).logits.values[5]
    assert array(lens._now["top"])[-1, 5, 0] == p.argmax()


def test_transplants_from_and_to_the_ends_of_the_stack(session, lens):
    lens.transplant((-1, 2), (1, 4))
    lens.transplant((3, 2), (-1, 0))
    lens.wait(30)
    with pytest.raises(ValueError, match="no cell at layer 4"):
        lens.transplant((4, 2), (3, 4))
    plain = session.run(PROMPT, capture=["resid_pre", "resid_post"])
    moved = session.run(PROMPT, ["resid_pre", "resid_post"], list(session.interventions))
    assert np.array_equal(moved["resid_post"].sel(layer=1, position=4), plain["resid_pre"].sel(layer=0, position=2))
    assert np.array_equal(moved["resid_pre"].sel(layer=0, position=0), plain["resid_post"].sel(layer=3, position=2))


def test_every_metric_under_an_experiment(session, lens):
    lens.metric = "kl"
    lens.transplant((1, 1), (2, 5))
    lens.wait(30)
    now = iw.logit_lens(session, PROMPT, ["kl", "entropy"], interventions=list(session.interventions))
    for metric in ("kl", "entropy"):
        assert np.allclose(under_experiments(lens, metric), now[metric], atol=1e-6)


def test_of_a_lens_under_an_experiment_only_rows_travel_that_it_changes(session, lens):
    lens.transplant((1, 1), (2, 5))  # writes over the row of layer 2, below which are those of the embedding, 0 and 1
    lens.wait(30)
    assert array(lens._now["target"])[-1] == array(lens._grid["target"])[-1]  # or the last position had other ranks
    assert lens._now["row"] == 3
    assert array(lens._now["top"]).shape[:2] == (2, len(PROMPT))
    assert array(lens._now["touched"]).shape == (5, len(PROMPT))
    lens.metric = "kl"  # of every row to the last one, which the experiment changes
    lens.wait(30)
    now = iw.logit_lens(session, PROMPT, "kl", interventions=list(session.interventions))
    assert np.allclose(under_experiments(lens, "kl"), now["kl"], atol=1e-6)
    assert lens._now["row"] == 0


def test_replacing_a_token_runs_the_new_prompt(session, lens):
    click(lens, "replace", position=3, token=21)
    lens.wait(30)
    assert [t["id"] for t in lens._prompt["tokens"]] == [*PROMPT[:3], 21, *PROMPT[4:]]
    expected = iw.logit_lens(session, [*PROMPT[:3], 21, *PROMPT[4:]])
    assert np.array_equal(array(lens._grid["top"]), expected["top_token"])
    click(lens, "replace", position=0, text="7, 8")
    lens.wait(30)
    assert [t["id"] for t in lens._prompt["tokens"]][:3] == [7, 8, 17]


def test_tracked_tokens_are_followed_over_the_layers(session, lens):
    click(lens, "track", token=44)
    lens.wait(30)
    expected = iw.logit_lens(session, PROMPT, track=[44])
    assert np.allclose(array(lens._tracks["probability"]), expected["tracked_probability"], atol=1e-6)
    assert np.array_equal(array(lens._tracks["rank"]), expected["tracked_rank"])
    click(lens, "untrack", token=44)
    lens.wait(30)
    assert lens._tracks is None


def test_the_lens_names_the_tokens_that_its_numbers_are_of(session, lens):
    session.interventions.append(iw.Ablate("z", layer=1, head=0, position=6))
    lens.wait(30)
    table, columns = lens.to_csv(), lens._heatmap().columns
    click(lens, "run", prompt=PROMPT[:3])
    with pytest.raises(ValueError, match="out of range"):
        lens.wait(30)
    assert list(lens._heatmap().columns) == list(columns)
    sent = []
    lens.observe(lambda change: sent.append(change["new"]), names="_saved")
    click(lens, "to_csv")
    assert sent[0]["text"] == table
