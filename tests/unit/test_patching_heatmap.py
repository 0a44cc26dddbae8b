"""PatchingHeatmap without a browser: its map, clicked cells, a layer's heads, on a tiny real model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interpwidgets as iw
from tests.clicks import CORRUPTED, PROMPT, click
from tests.models import tiny
from tests.sent import array


@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "z", "k"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_heatmap_is_the_sweep(session, heatmap, site, direction):
    click(heatmap, "set", site=site, direction=direction, answer=44, foil=60)
    heatmap.wait(30)
    expected = iw.patch_sweep(session, PROMPT, CORRUPTED, site, 44, 60, direction=direction, normalize=False)
    assert np.allclose(array(heatmap._sweep["values"]), expected, atol=1e-5)
    assert heatmap._sweep["baseline"] == pytest.approx(
        expected.attrs["corrupted" if direction == "denoise" else "clean"]
    )


def test_a_clicked_cell_is_its_heatmap_value_and_cells_can_be_joined(session, heatmap):
    cells = [{"site": "resid_pre", "layer": 2, "head": None, "position": 3}]
    click(heatmap, "patch", cells=cells)
    heatmap.wait(30)
    assert heatmap._patched["value"] == pytest.approx(float(array(heatmap._sweep["values"])[2, 3]), abs=1e-5)
    cells.append({"site": "z", "layer": 3, "head": 1, "position": None})
    click(heatmap, "patch", cells=cells)
    heatmap.wait(30)
    joint = [
        iw.Patch("resid_pre", layer=2, position=3, source=PROMPT),
        iw.Patch("z", layer=3, head=1, source=PROMPT),
    ]
    probabilities = torch.from_numpy(session.run(CORRUPTED, interventions=joint).logits.values[-1]).softmax(-1)
    for row in heatmap._patched["rows"]:
        assert row["patched"] == pytest.approx(float(probabilities[row["id"]]), abs=1e-6)
    click(heatmap, "patch", cells=[])
    assert heatmap._patched is None


def test_drilling_down_shows_heads_by_position(session, heatmap):
    click(heatmap, "drill", layer=2)
    heatmap.wait(30)
    expected = iw.patch_sweep(session, PROMPT, CORRUPTED, "z", normalize=False, layer=2)
    assert heatmap._drill["dims"] == ["head", "position"]
    assert np.allclose(array(heatmap._drill["values"]), expected, atol=1e-5)
    click(heatmap, "drill", layer=None)
    assert heatmap._drill is None


def test_prompts_of_different_length_are_drawn_aligned(heatmap):
    before = heatmap._sweep
    click(heatmap, "run", clean="5, 17, 3", corrupted="5, 17")
    assert "clean has 3, corrupted has 2" in heatmap._status["error"]["text"]
    assert heatmap._sweep is before


def test_a_parallel_architecture_offers_no_resid_mid():
    with iw.Session(tiny("phi")) as session:
        widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED)
        widget.wait(30)
        assert "resid_mid" not in widget._sites
        click(widget, "set", site="resid_mid")
        assert "cannot be patched here" in widget._status["error"]["text"]


def test_a_patch_that_is_let_go_of_while_it_runs_does_not_come_back(session, heatmap):
    heatmap.patch([{"site": "resid_pre", "layer": 1, "head": None, "position": 3}])
    heatmap.patch([])
    session.run(PROMPT)
    heatmap.refresh()
    heatmap.wait(30)
    assert heatmap._patched is None
