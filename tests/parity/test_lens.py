"""TransformerLens' logit lens, direct unembedding of its accumulated stream, and its head detectors' scores."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from transformer_lens import head_detector
from transformer_lens.tools.analysis import logit_lens

import interpwidgets as iw
from tests.parity.bridge import Pair, assert_same


def assert_lenses_agree(pair: Pair) -> None:
    final = int(pair.logits[-1].argmax())
    targets = torch.tensor([[*pair.clean[1:], final]])
    ask = partial(logit_lens, pair.bridge, cache=pair.cache, positions=None, return_type="probs")
    with torch.no_grad():
        their_top, their_target = ask(top_k=5).readout, ask(targets=targets).readout
    ours = iw.logit_lens(pair.session, pair.clean, ["rank", "cross_entropy", "entropy"], top_k=5)
    assert_same(ours.top_probability, their_top.values[:, 0])
    assert np.abs(ours.entropy.values - their_top.entropy[:, 0].numpy()).max() < 1e-4
    at_target = np.exp(-ours.cross_entropy.values[:, :-1])
    assert np.abs(at_target - their_target.values[:, 0, :-1, 0].numpy()).max() < 1e-5
    # Among 49152 tokens, rounding can swap neighbours far down the list.
    ranks = their_target.target_ranks[:, 0, :, 0].numpy()
    assert (np.abs(ours["rank"].values - ranks) <= 1e-3 * ranks).all()
    assert ours["rank"].values[-1, -1] == ranks[-1, -1] == 0


def test_lenses_are_equal_and_ranks_count_from_0_in_both(small):
    assert_lenses_agree(small)


def test_lenses_of_the_demo_model_are_equal(demo):
    assert_lenses_agree(demo)


def test_layers_are_those_of_their_accumulated_stream(small):
    # Their stack counts streams from 0 ("0_pre"); our layer -1 is that embedding, our layer l is resid_post of block
    # l, their "l+1_pre". Both recompute the norm's statistics for each vector.
    stack, labels = small.cache.accumulated_resid(apply_ln=True, return_labels=True)
    assert labels == ["0_pre", "1_pre", "2_pre", "3_pre", "final_post"]
    lens = iw.logit_lens(small.session, small.clean, track=range(97))
    assert lens.layer.values.tolist() == [-1, 0, 1, 2, 3]
    with torch.no_grad():
        logits = small.bridge.unembed(stack[:, 0])  # (layer, position, token)
    if small.family == "gemma2":  # whose model caps its logits after the unembedding
        cap = small.session.model.config.final_logit_softcapping
        logits = torch.tanh(logits / cap) * cap
    assert_same(lens.tracked_probability.transpose("layer", "position", "token"), logits.softmax(-1))


DETECTORS = {
    "previous token": head_detector.get_previous_token_head_detection_pattern,
    "duplicate token": head_detector.get_duplicate_token_head_detection_pattern,
    "induction": head_detector.get_induction_head_detection_pattern,
}


@pytest.mark.parametrize("kind", DETECTORS)
def test_our_patterns_give_their_head_detectors_scores(small, kind):
    assert_scores_agree(small, kind)


@pytest.mark.parametrize("kind", DETECTORS)
def test_our_patterns_give_their_scores_on_the_demo_model(demo, kind):
    assert_scores_agree(demo, kind)


def assert_scores_agree(pair: Pair, kind: str) -> None:
    # "mul": the share of a head's attention that lies on the detector's entries; "abs": 1 - their mean distance.
    mask = DETECTORS[kind](torch.tensor([pair.clean]))
    assert mask.sum() > 0
    patterns = iw.attention_patterns(pair.session, pair.clean)
    where = mask.numpy()
    for excluding in (False, True):
        score = partial(
            head_detector.compute_head_attention_similarity_score,
            detection_pattern=mask, exclude_bos=excluding, exclude_current_token=excluding,
        )  # fmt: skip
        for layer, head in np.ndindex(patterns.shape[:2]):
            theirs = pair.cache["pattern", layer][0, head]
            ours = patterns.values[layer, head].copy()
            difference = np.abs(ours - where)
            if excluding:
                for matrix in (ours, difference):
                    matrix[:, 0] = 0
                    np.fill_diagonal(matrix, 0)
            assert (ours * where).sum() / ours.sum() == pytest.approx(score(theirs, error_measure="mul"), abs=1e-5)
            by_distance = 1 - difference.sum(-1).mean()
            assert by_distance == pytest.approx(score(theirs, error_measure="abs"), abs=6e-4)  # theirs is rounded
