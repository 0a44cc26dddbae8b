"""AttentionPattern without a browser: patterns, thumbnails, ablated heads and cut edges, on a tiny real model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interpwidgets as iw
from tests.clicks import PROMPT, click
from tests.models import random_ids
from tests.sent import array, head, thumbnails


def test_detail_is_the_selected_heads_pattern(session, attention):
    expected = iw.attention_patterns(session, PROMPT)
    assert np.array_equal(head(attention), expected.sel(layer=1, head=2))
    click(attention, "select", layer=3, head=1)
    assert (attention.layer, attention.head) == (3, 1)
    assert np.array_equal(head(attention), expected.sel(layer=3, head=1))


def test_overview_holds_every_heads_pattern_in_bytes(session, attention):
    expected = iw.attention_patterns(session, PROMPT).values
    assert np.abs(thumbnails(attention) / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_thumbnails_of_a_long_prompt_lose_no_spike(session):
    prompt = random_ids(60)
    widget = iw.AttentionPattern(session, prompt)
    widget.wait(30)
    edges = widget._baseline_overview["edges"]
    small = thumbnails(widget)
    pattern = iw.attention_patterns(session, prompt).values
    assert edges[:2] == [0, 1]
    assert edges[-1] == 60
    assert small.shape[-1] == len(edges) - 1 <= 32
    assert np.abs(small.max((2, 3)) / 255 - pattern.max((2, 3))).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(small[..., 0], np.rint(255 * np.maximum.reduceat(pattern[..., 0], edges[:-1], axis=2)))


def test_ablating_by_click_equals_ablating_in_python(session, attention):
    number = click(attention, "ablate", layer=1, head=2, how="mean")
    attention.wait(30)
    assert list(session.interventions) == [iw.Ablate("z", layer=1, head=2, how="mean")]
    assert attention._status["id"] == attention._overview["id"] == number
    logits = session.run(PROMPT, interventions=[iw.Ablate("z", layer=1, head=2, how="mean")]).logits.values[-1]
    probabilities = torch.from_numpy(logits).softmax(-1)
    for row in attention._predictions["rows"]:
        assert row["now"] == pytest.approx(float(probabilities[row["id"]]), abs=1e-6)
    changed = array(attention._overview["changed"])
    assert (changed[:2] == 0).all()
    assert (changed[2:] > 0).all()
    click(attention, "ablate", layer=1, head=2, how="mean")
    attention.wait(30)
    assert len(session.interventions) == 0
    assert attention._overview["now"] is None


def test_cutting_an_edge_and_undoing_it(session, attention):
    click(attention, "cut", layer=1, head=2, query=6, key=3, renormalize=False)
    attention.wait(30)
    assert list(session.interventions) == [iw.CutEdge(layer=1, head=2, query=6, key=3, renormalize=False)]
    assert head(attention)[6, 3] == 0
    assert attention._overview["cut"] == [[1, 2, 6, 3]]
    click(attention, "undo")
    attention.wait(30)
    assert head(attention)[6, 3] > 0
    assert attention._history == {"undo": False, "redo": True}


@pytest.mark.parametrize(
    ("op", "place"), [("ablate", {"layer": 1, "head": 2}), ("cut", {"layer": 1, "head": 2, "query": 6, "key": 3})]
)
def test_a_click_switches_on_again_what_is_there_switched_off(session, attention, op, place):
    click(attention, op, **place)
    session.interventions.rename(0, "mine")
    session.interventions.toggle(0)
    attention.wait(30)
    assert attention._overview["ablated"] == attention._overview["cut"] == []
    click(attention, op, **place)
    attention.wait(30)
    assert [(e.name, e.on) for e in session.interventions.entries] == [("mine", True)]
    click(attention, op, **place)
    assert len(session.interventions) == 0


def test_a_head_that_is_ablated_at_one_position_or_in_one_entry_is_not_said_to_be_ablated(session, attention):
    parts = [iw.Ablate("z", layer=1, head=2, position=3), iw.Ablate("z", layer=1, head=2, entry=0)]
    session.interventions.extend(parts)
    attention.wait(30)
    assert attention._overview["ablated"] == []
    click(attention, "ablate", layer=1, head=2)
    attention.wait(30)
    assert attention._overview["ablated"] == [[1, 2, "zero"]]
    assert list(session.interventions) == [*parts, iw.Ablate("z", layer=1, head=2)]
    click(attention, "ablate", layer=1, head=2)
    assert list(session.interventions) == parts


def test_an_ablation_to_the_mean_of_other_prompts_is_not_what_a_click_makes(attention):
    assert list(attention._requests_for(iw.Ablate("z", layer=1, head=2, how="mean")))
    assert not list(attention._requests_for(iw.Ablate("z", layer=1, head=2, how="mean", reference=[5, 17, 3])))
