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
