"""TransformerLens' get_act_patch_* on the same weights give our sweeps' heatmaps, one forward pass a cell."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens import patching

import interpwidgets as iw
from interpwidgets.engine.metrics import LogitDifference
from tests.parity.bridge import Pair, assert_same

RESIDUAL = {
    "resid_pre": patching.get_act_patch_resid_pre,
    "resid_mid": patching.get_act_patch_resid_mid,
    "attn_out": patching.get_act_patch_attn_out,
    "mlp_out": patching.get_act_patch_mlp_out,
}
HEADS = {
    "z": patching.get_act_patch_attn_head_out_all_pos,
    "q": patching.get_act_patch_attn_head_q_all_pos,
    "k": patching.get_act_patch_attn_head_k_all_pos,
    "v": patching.get_act_patch_attn_head_v_all_pos,
}
BY_POSITION = {
    "z": patching.get_act_patch_attn_head_out_by_pos,
    "q": patching.get_act_patch_attn_head_q_by_pos,
    "k": patching.get_act_patch_attn_head_k_by_pos,
    "v": patching.get_act_patch_attn_head_v_by_pos,
}
SWEEPS = RESIDUAL | HEADS
LAYERS = 4


def assert_same_map(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert_same(ours, theirs)
    assert np.ptp(theirs) > 0.01 * np.abs(theirs).max()  # the oracle is not flat


def patch_rows(pair: Pair, rows: list[iw.Patch]) -> np.ndarray:
    """The logit difference of one patch a row, in one pass: what has no heatmap of its own in `patch_sweep`."""
    measure = LogitDifference(pair.answer, pair.foil)
    return pair.session.sweep(pair.corrupted, [[row] for row in rows], measure).values


@pytest.mark.parametrize("site", SWEEPS)
def test_whole_sweeps_are_equal(small, site):
    if site == "resid_mid" and small.family == "gpt_neox":
        pytest.skip("a parallel block has no resid_mid, in either tool")
    assert_same_map(small.our_sweep(site), small.their_sweep(SWEEPS[site]))


def test_block_every_is_three_of_our_sweeps(small):
    theirs = small.their_sweep(patching.get_act_patch_block_every)  # (patch type, layer, position)
    assert_same_map(np.stack([small.our_sweep(site) for site in ("resid_pre", "attn_out", "mlp_out")]), theirs)


def test_heads_by_position_are_our_sweeps_of_a_layer(small):
    for site, function in BY_POSITION.items():
        theirs = small.their_sweep(function)  # (layer, position, head)
        ours = [small.our_sweep(site, layer=layer).T for layer in range(LAYERS)]
        assert_same_map(np.stack(ours), theirs)


def test_patterns_are_patched_alike(small):
    heads = small.bridge.cfg.n_heads
    every = [(layer, head) for layer in range(LAYERS) for head in range(heads)]
    rows = [iw.Patch("pattern", layer=layer, head=head, source=small.clean) for layer, head in every]
    theirs = small.their_sweep(patching.get_act_patch_attn_head_pattern_all_pos)
    assert_same_map(patch_rows(small, rows).reshape(LAYERS, heads), theirs)


def test_patterns_by_query_are_patched_alike(small):
    theirs = small.their_sweep(patching.get_act_patch_attn_head_pattern_by_pos)  # (layer, head, query)
    rows = [
        iw.Patch("pattern", layer=layer, head=head, position=query, source=small.clean)
        for layer, head, query in np.ndindex(theirs.shape)
    ]
    assert_same_map(patch_rows(small, rows).reshape(theirs.shape), theirs)


def test_single_entries_of_patterns_are_patched_alike(small):
    # Addressed by an array: the corrupted run's row with the clean run's weight at one key.
    cells = [(layer, head, 7, key) for layer in range(LAYERS) for head in (0, 3) for key in (2, 3, 6, 7)]
    chosen = pd.DataFrame(cells, columns=["layer", "head_index", "dest_pos", "src_pos"])
    function = partial(patching.get_act_patch_attn_head_pattern_dest_src_pos, index_axis_names=None)
    theirs = small.their_sweep(function, index_df=chosen)
    clean, corrupted = (iw.attention_patterns(small.session, p).values for p in (small.clean, small.corrupted))
    rows = []
    for layer, head, query, key in cells:
        row = corrupted[layer, head, query].copy()
        row[key] = clean[layer, head, query, key]
        rows.append(iw.Patch("pattern", layer=layer, head=head, position=query, source=row[None]))
    assert_same_map(patch_rows(small, rows), theirs)


def test_key_value_heads_without_a_counterpart_are_padded_by_them_and_absent_in_ours(small):
    cfg = small.bridge.cfg
    kv_heads = cfg.n_key_value_heads or cfg.n_heads
    theirs = small.their_sweep(patching.get_act_patch_attn_head_all_pos_every)  # (z q k v pattern, layer, head)
    for i, site in enumerate(HEADS):
        ours = small.our_sweep(site)
        assert ours.shape == (LAYERS, kv_heads if site in ("k", "v") else cfg.n_heads)
        assert_same(ours, theirs[i, :, : ours.shape[1]])
        assert (theirs[i, :, ours.shape[1] :] == 0).all()


def test_normalised_scores_are_theirs_moved_and_scaled(small):
    # TransformerLens gives the metric itself; ours, by default, is 0 at its corrupted and 1 at its clean run.
    raw = small.their_sweep(patching.get_act_patch_resid_pre)
    with torch.no_grad():
        ends = [float(small.difference(small.bridge(torch.tensor([p])))) for p in (small.clean, small.corrupted)]
    ours = iw.patch_sweep(small.session, small.clean, small.corrupted, "resid_pre", small.answer, small.foil)
    assert_same(ours, (raw - ends[1]) / (ends[0] - ends[1]))


def test_noising_is_theirs_with_the_prompts_exchanged(small):
    clean = torch.tensor([small.clean])
    with torch.no_grad():
        _, corrupted_cache = small.bridge.run_with_cache(torch.tensor([small.corrupted]))
        for site in ("resid_pre", "z"):
            theirs = SWEEPS[site](small.bridge, clean, corrupted_cache, small.difference).numpy()
            assert_same_map(small.our_sweep(site, direction="noise"), theirs)


@pytest.mark.parametrize("site", SWEEPS)
def test_chosen_cells_of_the_demo_model_are_equal(demo, site):
    # Position 2 is the same in both prompts, 10 is the name that differs, 14 the last.
    inner = ("pos", (2, 10, 11, 14)) if site in RESIDUAL else ("head", (0, 2))
    cells = [(layer, i) for layer in (0, 10, 20, 29) for i in inner[1]]
    chosen = pd.DataFrame(cells, columns=["layer", inner[0]])
    theirs = demo.their_sweep(partial(SWEEPS[site], index_axis_names=None), index_df=chosen)
    ours = demo.our_sweep(site)
    assert_same([ours[cell] for cell in cells], theirs)


@pytest.mark.parametrize("site", BY_POSITION)
def test_chosen_heads_and_positions_of_the_demo_model_are_equal(demo, site):
    layer = 20
    cells = [(layer, position, head) for position in (10, 14) for head in (0, 2)]
    chosen = pd.DataFrame(cells, columns=["layer", "pos", "head"])
    theirs = demo.their_sweep(partial(BY_POSITION[site], index_axis_names=None), index_df=chosen)
    ours = demo.our_sweep(site, layer=layer)
    assert_same([ours[head, position] for _, position, head in cells], theirs)


def test_chosen_patterns_of_the_demo_model_are_equal(demo):
    cells = [(layer, head) for layer in (0, 10, 20, 29) for head in (0, 8)]
    chosen = pd.DataFrame(cells, columns=["layer", "head_index"])
    function = partial(patching.get_act_patch_attn_head_pattern_all_pos, index_axis_names=None)
    rows = [iw.Patch("pattern", layer=layer, head=head, source=demo.clean) for layer, head in cells]
    assert_same(patch_rows(demo, rows), demo.their_sweep(function, index_df=chosen))


def test_key_value_heads_are_swept_one_by_one_in_both(demo):
    # Three query heads share one key/value head: both tools count the latter for k and v.
    theirs = demo.bridge.cfg.n_layers, demo.bridge.cfg.n_key_value_heads
    assert demo.our_sweep("v").shape == theirs == (30, 3)
