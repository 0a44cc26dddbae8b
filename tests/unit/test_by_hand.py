"""A model of two blocks that can be computed with pencil and paper, and every number of it written out.

No expected value here comes from the code under test or from torch. The stream has four dimensions, written
(a, b, c, d). The model is a Llama whose norms inside the blocks are taken out (nn.Identity) and whose rotary
embedding is stretched until it turns nothing; the final norm is real, with weight (1, 1, 2, 1): x -> 2 x / |x|, for
RMS is |x| / √4, and then twice the c, so that a norm applied once more would show.

Tokens       A = (2, 0, 0, 0)   B = (0, 2, 0, 0)   C = (0, 0, 2, 0)   D = (0, 0, 0, 3)
Block 0      one key/value head:   k = (a/2, b/2)   v = (2a, 6b)
             two query heads:      q of head 0 = (√2 ln 2 c/2, 0)   q of head 1 = (0, 50 √2 c)
             scores are q·k / √2, so only C asks anything: its head 0 scores A with ln 2 (twice the weight of a
             token that scores 0), its head 1 scores B with 100 (all of the weight); A, B, D attend evenly
             attention adds        z₀ of head 0 to a, 3/2 z₁ of head 0 to d, 1/4 z₁ of head 1 to b
             MLP                   two gated neurons: relu(a)·c, of which 1/4 goes to a; relu(-c)·c, which is 0
Block 1      k = (a, 0)   v = (a, d)   q of head 0 = 0 (attends evenly)   q of head 1 = (50 √2 c, 0): C's head 1 puts
             all of its weight where a is largest, for it scores 100 a
             attention adds        z₁ of head 0 to b, z₀ of head 1 to a
             MLP                   relu(a - b)·c, of which 1/4 goes to a; relu(-c)·c, which is 0
Unembedding  ln 2 times the normed stream for A, B, C, D; 0 for the other four tokens, so that probabilities are
             powers of 2 over their sum: 2^logit / (2^.. + 2^.. + 2^.. + 2^.. + 4), with logits in units of ln 2
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import interpwidgets as iw

A, B, C, D = range(4)
CLEAN, CORRUPTED = (A, B, C), (D, B, C)
LN2, R2 = log(2), sqrt(2)
THIRD = 1 / 3


def model():
    config = LlamaConfig(
        vocab_size=8, hidden_size=4, intermediate_size=2, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=2, max_position_embeddings=16, rms_norm_eps=0.0, hidden_act="relu",
        rope_parameters={"rope_type": "linear", "factor": 1e30, "rope_theta": 1e4}, tie_word_embeddings=False,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    llama = LlamaForCausalLM(config).eval()

    def write(module, *rows):
        with torch.no_grad():
            module.weight.copy_(torch.tensor(rows, dtype=torch.float64))

    # Four more tokens, in no prompt: the session's probe wants to see different ones, and both MLPs at work.
    more = ((2, 2, 0, 0), (0, 2, 2, 0), (40, 0, 2, 0), (2, 0, 2, 0))
    write(llama.model.embed_tokens, (2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 2, 0), (0, 0, 0, 3), *more)
    zero = (0, 0, 0, 0)
    first, second = llama.model.layers
    # Rows are outputs: head 0's two, then head 1's two; columns are inputs: a, b, c, d (for o_proj, z).
    write(first.self_attn.q_proj, (0, 0, R2 * LN2 / 2, 0), zero, zero, (0, 0, 50 * R2, 0))
    write(first.self_attn.k_proj, (1 / 2, 0, 0, 0), (0, 1 / 2, 0, 0))
    write(first.self_attn.v_proj, (2, 0, 0, 0), (0, 6, 0, 0))
    write(first.self_attn.o_proj, (1, 0, 0, 0), (0, 0, 0, 1 / 4), zero, (0, 3 / 2, 0, 0))
    write(first.mlp.gate_proj, (1, 0, 0, 0), (0, 0, -1, 0))
    write(second.self_attn.q_proj, zero, zero, (0, 0, 50 * R2, 0), zero)
    write(second.self_attn.k_proj, (1, 0, 0, 0), zero)
    write(second.self_attn.v_proj, (1, 0, 0, 0), (0, 0, 0, 1))
    write(second.self_attn.o_proj, (0, 0, 1, 0), (0, 1, 0, 0), zero, zero)
    write(second.mlp.gate_proj, (1, -1, 0, 0), (0, 0, -1, 0))
    for block in (first, second):
        write(block.mlp.up_proj, (0, 0, 1, 0), (0, 0, 1, 0))
        write(block.mlp.down_proj, (1 / 4, 0), (0, 1), (0, 0), (0, 0))
        block.input_layernorm = block.post_attention_layernorm = nn.Identity()
    write(llama.model.norm, 1, 1, 2, 1)
    write(llama.lm_head, (LN2, 0, 0, 0), (0, LN2, 0, 0), (0, 0, LN2, 0), (0, 0, 0, LN2), zero, zero, zero, zero)
    return llama


@pytest.fixture(scope="module")
def session():
    with iw.Session(model()) as session:
        yield session


def same(ours, by_hand):
    np.testing.assert_allclose(np.asarray(ours), by_hand, rtol=1e-5, atol=1e-5)


def ends_as(session, final, length, *interventions, prompt=CLEAN):
    """The last position's final stream is `final`, of this length, and so its logits are those by hand."""
    site = iw.Site("resid_post", layer=1, position=2)
    run = session.run(prompt, capture=site, interventions=interventions)
    same(run[site], final)
    same(run.logits[2, :4], [2 * LN2 * w * x / length for w, x in zip((1, 1, 2, 1), final, strict=True)])
    return run


def test_patterns(session):
    pattern = iw.attention_patterns(session, CLEAN)
    # C in block 0: head 0 weighs A, B, C as 2 : 1 : 1 (scores ln 2, 0, 0), head 1 sees B alone.
    same(pattern.sel(layer=0, head=0), [[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 2, 1 / 4, 1 / 4]])
    same(pattern.sel(layer=0, head=1), [[1, 0, 0], [1 / 2, 1 / 2, 0], [0, 1, 0]])
    # In block 1, a is 6, 2, 3 at the three positions (below): C's head 1 sees the first alone.
    same(pattern.sel(layer=1, head=0), [[1, 0, 0], [1 / 2, 1 / 2, 0], [THIRD, THIRD, THIRD]])
    same(pattern.sel(layer=1, head=1), [[1, 0, 0], [1 / 2, 1 / 2, 0], [1, 0, 0]])
    # Without an A, nothing has an a: C's head 0 in block 0 and head 1 in block 1 attend evenly.
    corrupted = iw.attention_patterns(session, CORRUPTED)
    same(corrupted.sel(layer=0, head=0, query=2), [THIRD, THIRD, THIRD])
    same(corrupted.sel(layer=0, head=1, query=2), [0, 1, 0])
    same(corrupted.sel(layer=1, head=1, query=2), [THIRD, THIRD, THIRD])


def test_inside_block_0(session):
    sites = ["q", "k", "v", "scores", "z", "result", "attn_out", "resid_mid", "mlp_pre", "mlp_post", "mlp_out"]
    run = session.run(CLEAN, capture=sites)
    block = {site: run[site].sel(layer=0) for site in sites}
    same(block["q"].sel(position=2), [[R2 * LN2, 0], [0, 100 * R2]])
    same(block["k"], [[[1, 0]], [[0, 1]], [[0, 0]]])  # one key/value head for two query heads
    same(block["v"], [[[4, 0]], [[0, 12]], [[0, 0]]])
    same(block["scores"].sel(query=2), [[LN2, 0, 0], [0, 100, 0]])
    # z = weights · values. At B both heads: 1/2 (4, 0) + 1/2 (0, 12) = (2, 6).
    # At C head 0: 1/2 (4, 0) + 1/4 (0, 12) + 1/4 (0, 0) = (2, 3); head 1: (0, 12).
    same(block["z"], [[[4, 0], [4, 0]], [[2, 6], [2, 6]], [[2, 3], [0, 12]]])
    # Head 0 adds (z₀, 0, 0, 3/2 z₁), head 1 adds (0, z₁/4, 0, 0).
    same(block["result"].sel(position=0), [[4, 0, 0, 0], [0, 0, 0, 0]])
    same(block["result"].sel(position=1), [[2, 0, 0, 9], [0, 1.5, 0, 0]])
    same(block["result"].sel(position=2), [[2, 0, 0, 4.5], [0, 3, 0, 0]])
    same(block["attn_out"], [[4, 0, 0, 0], [2, 1.5, 0, 9], [2, 3, 0, 4.5]])
    same(block["resid_mid"], [[6, 0, 0, 0], [2, 3.5, 0, 9], [2, 3, 2, 4.5]])
    # Gates a and -c; up is c for both: at C relu(2)·2 = 4 and relu(-2)·2 = 0.
    same(block["mlp_pre"], [[6, 0], [2, 0], [2, -2]])
    same(block["mlp_post"], [[0, 0], [0, 0], [4, 0]])
    same(block["mlp_out"], [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])


def test_inside_block_1(session):
    sites = ["resid_pre", "v", "z", "attn_out", "resid_mid", "mlp_pre", "mlp_out", "resid_post"]
    run = session.run(CLEAN, capture=sites)
    block = {site: run[site].sel(layer=1) for site in sites}
    same(block["resid_pre"], [[6, 0, 0, 0], [2, 3.5, 0, 9], [3, 3, 2, 4.5]])
    same(block["v"], [[[6, 0]], [[2, 9]], [[3, 4.5]]])
    # Even attention of head 0 at C: a is (6 + 2 + 3)/3 = 11/3, d is (0 + 9 + 4.5)/3 = 4.5. Head 1 reads (6, 0).
    same(block["z"], [[[6, 0], [6, 0]], [[4, 4.5], [4, 4.5]], [[11 / 3, 4.5], [6, 0]]])
    same(block["attn_out"], [[6, 0, 0, 0], [4, 4.5, 0, 0], [6, 4.5, 0, 0]])
    same(block["resid_mid"], [[12, 0, 0, 0], [6, 8, 0, 9], [9, 7.5, 2, 4.5]])
    # Gates a - b and -c: 12 - 0, 6 - 8, 9 - 7.5. At C relu(1.5)·2 = 3, a quarter of it is 0.75.
    same(block["mlp_pre"], [[12, 0], [-2, 0], [1.5, -2]])
    same(block["mlp_out"], [[0, 0, 0, 0], [0, 0, 0, 0], [0.75, 0, 0, 0]])
    same(block["resid_post"], [[12, 0, 0, 0], [6, 8, 0, 9], [9.75, 7.5, 2, 4.5]])


# Logits in units of ln 2 are 2 x / |x|, each vector by its own length, and twice that for C. A single entry, whatever
# its size, gives 2 (4 if it is c);
# (2, 3.5, 0, 9) has length √97.25, (3, 3, 2, 4.5) has √42.25 = 6.5, (6, 8, 0, 9) has √181,
# (9.75, 7.5, 2, 4.5) has √175.5625 = 13.25.
LENS = {
    -1: [(2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 4, 0)],
    0: [(2, 0, 0, 0), (4 / sqrt(97.25), 7 / sqrt(97.25), 0, 18 / sqrt(97.25)), (12 / 13, 12 / 13, 16 / 13, 18 / 13)],
    1: [(2, 0, 0, 0), (12 / sqrt(181), 16 / sqrt(181), 0, 18 / sqrt(181)), (78 / 53, 60 / 53, 32 / 53, 36 / 53)],
}


def test_logit_lens(session):
    metrics = ["probability", "rank", "cross_entropy", "entropy", "kl"]
    lens = iw.logit_lens(session, CLEAN, metrics, top_k=1, track=[A, B, C, D])
    assert lens.top_token.values[..., 0].tolist() == [[A, B, C], [A, D, D], [A, D, A]]
    for layer, row in LENS.items():
        for position, logits in enumerate(row):
            total = sum(2**x for x in logits) + 4
            by_hand = [2**x / total for x in logits]
            same(lens.tracked_probability.sel(layer=layer, position=position), by_hand)
    # A single entry: 2^2 / (2^2 + 7) = 4/11 for its token and 1/11 for each of the seven others.
    same(lens.probability.sel(position=0), [4 / 11, 4 / 11, 4 / 11])
    # Targets: B after A, C after B, and at the end the model's own answer, A. Ranks count from 0, and a tie does not
    # count against the target; A and B tie at the end of block 0 but for rounding.
    assert lens.target.values.tolist() == [B, C, A]
    assert lens["rank"].values[:, :2].tolist() == [[1, 1], [1, 3], [1, 3]]
    assert lens["rank"].values[[0, 2], 2].tolist() == [1, 0]
    same(lens.cross_entropy.sel(position=0), [log(11), log(11), log(11)])
    # -4/11 ln(4/11) - 7 · 1/11 ln(1/11) = ln 11 - 8/11 ln 2
    same(lens.entropy.sel(position=0), [log(11) - 8 / 11 * LN2] * 3)
    same(lens.kl.sel(position=0), [0, 0, 0])


def test_clean_and_corrupted_runs_end_as_computed(session):
    # CLEAN: see above. CORRUPTED: D has neither key nor value, so that
    #   block 0 leaves (0, 0, 0, 3), (0, 3.5, 0, 9), and at C: head 0 reads (0, 12/3), head 1 (0, 12): (0, 3, 2, 6);
    #   block 1 adds to b the mean of d, (3 + 9 + 6)/3 = 6, and to a the mean of a, 0; relu(0 - 9) = 0.
    ends_as(session, (9.75, 7.5, 2, 4.5), 13.25)
    ends_as(session, (0, 9, 2, 6), 11, prompt=CORRUPTED)


# The metric is logit A - logit B in units of ln 2: clean 2 (9.75 - 7.5)/13.25 = 18/53, corrupted 2 (0 - 9)/11 = -18/11,
# a gap of 18/53 + 18/11 = 1152/583.
CLEAN_DIFFERENCE, CORRUPTED_DIFFERENCE, GAP = 18 / 53, -18 / 11, 1152 / 583

# Clean resid_pre written into the corrupted run, and how its last stream ends.
DENOISED = [
    [CLEAN_DIFFERENCE, CORRUPTED_DIFFERENCE, CORRUPTED_DIFFERENCE],  # D becomes A; B and C are the same in both
    [
        # (6, 0, 0, 0) at 0: d's mean is (0 + 9 + 6)/3 = 5, head 1 finds a = 6 there: (6, 8, 2, 6), length √140.
        2 * (6 - 8) / sqrt(140),
        # (2, 3.5, 0, 9) at 1: d's mean is 6, head 1 finds a = 2 there: (2, 9, 2, 6), length √125.
        2 * (2 - 9) / sqrt(125),
        # (3, 3, 2, 4.5) at 2: d's mean is (3 + 9 + 4.5)/3 = 5.5, head 1 finds a = 3: (6, 8.5, 2, 4.5), length √132.5.
        2 * (6 - 8.5) / sqrt(132.5),
    ],
]
# Corrupted resid_pre written into the clean run.
NOISED = [
    [CORRUPTED_DIFFERENCE, CLEAN_DIFFERENCE, CLEAN_DIFFERENCE],
    [
        # (0, 0, 0, 3) at 0: d's mean is (3 + 9 + 4.5)/3 = 5.5, the largest a left is C's own 3: (6, 8.5, 2, 4.5).
        2 * (6 - 8.5) / sqrt(132.5),
        # (0, 3.5, 0, 9) at 1: C reads d = 9 there as before, and a at 0: nothing changes at the end.
        CLEAN_DIFFERENCE,
        # (0, 3, 2, 6) at 2: d's mean is (0 + 9 + 6)/3 = 5, head 1 finds 6 at 0: (6, 8, 2, 6).
        2 * (6 - 8) / sqrt(140),
    ],
]


@pytest.mark.parametrize(("direction", "by_hand"), [("denoise", DENOISED), ("noise", NOISED)])
def test_patching_the_stream(session, direction, by_hand):
    task = (session, CLEAN, CORRUPTED, "resid_pre", A, B)
    raw = iw.patch_sweep(*task, direction=direction, normalize=False)
    same(raw, LN2 * np.array(by_hand))
    # Normalised, 0 is the corrupted run and 1 the clean one in either direction.
    normalised = iw.patch_sweep(*task, direction=direction)
    same(normalised, (np.array(by_hand) + 18 / 11) * 583 / 1152)


def test_patching_heads(session):
    task = (session, CLEAN, CORRUPTED, "z", A, B)
    by_hand = [
        # Block 0, head 0 (clean z: (4, 0), (2, 6), (2, 3)) makes a = 4, 2, 2 + 1 (from the MLP) and d = 3, 9, 4.5:
        # mean of d 5.5, largest a 4 at 0: (3 + 4, 3 + 5.5, 2, 4.5), length √145.5.
        # Head 1 adds 0, 1.5 and 3 to b in both runs: nothing changes.
        [2 * (7 - 8.5) / sqrt(145.5), CORRUPTED_DIFFERENCE],
        # Block 1, head 0 adds 4.5 to b instead of 6: (0, 7.5, 2, 6), length √96.25.
        # Head 1 adds 6 to a instead of 0: (6, 9, 2, 6), length √157.
        [2 * (0 - 7.5) / sqrt(96.25), 2 * (6 - 9) / sqrt(157)],
    ]
    same(iw.patch_sweep(*task, normalize=False), LN2 * np.array(by_hand))
    by_position = [
        # Head 0 of block 0. At 0: (4, 0, 0, 3), so head 1 of block 1 finds a = 4: (4, 9, 2, 6), length √137.
        # At 1 and 2: the streams after block 0 are then those of the clean run there, as above.
        [2 * (4 - 9) / sqrt(137), 2 * (2 - 9) / sqrt(125), 2 * (6 - 8.5) / sqrt(132.5)],
        [CORRUPTED_DIFFERENCE] * 3,
    ]
    same(iw.patch_sweep(*task, layer=0, normalize=False), LN2 * np.array(by_position))


def test_cutting_an_edge(session):
    # C's head 0 in block 0 loses B. Renormalised, A and C keep 2 : 1, so z = 2/3 (4, 0) and the block leaves
    # a = 8/3 + 1/4 (8/3 · 2) = 4, d = 0: (4, 3, 2, 0). Block 1: d's mean is (0 + 9 + 0)/3 = 3, a gains 6:
    # (10, 6, 2, 0), and the MLP 1/4 (4 · 2) = 2.
    edge = {"layer": 0, "head": 0, "query": 2, "key": 1}
    row = iw.Site("pattern", layer=0, head=0, position=2)
    cut = iw.CutEdge(**edge)
    same(session.run(CLEAN, capture=row, interventions=[cut])[row], [2 / 3, 0, 1 / 3])
    ends_as(session, (12, 6, 2, 0), sqrt(184), cut)
    # Not renormalised, A keeps 1/2: z = (2, 0), a = 2 + 1/4 (2 · 2) = 3: (3, 3, 2, 0). Block 1: (9, 6, 2, 0), and
    # 1/4 (3 · 2) = 1.5 from the MLP.
    kept = iw.CutEdge(**edge, renormalize=False)
    same(session.run(CLEAN, capture=row, interventions=[kept])[row], [1 / 2, 0, 1 / 4])
    ends_as(session, (10.5, 6, 2, 0), sqrt(150.25), kept)


def test_cutting_the_edge_that_has_all_the_weight(session):
    # C's head 1 in block 1 loses position 0. Renormalised, it reads the next largest a, its own 3:
    # (6, 7.5, 2, 4.5), where relu(6 - 7.5) = 0. Not renormalised, it reads nothing: (3, 7.5, 2, 4.5).
    edge = {"layer": 1, "head": 1, "query": 2, "key": 0}
    ends_as(session, (6, 7.5, 2, 4.5), sqrt(116.5), iw.CutEdge(**edge))
    ends_as(session, (3, 7.5, 2, 4.5), sqrt(89.5), iw.CutEdge(**edge, renormalize=False))


def test_ablating_a_head(session):
    # Zero: head 1 of block 1 adds nothing to a: (3, 7.5, 2, 4.5).
    ends_as(session, (3, 7.5, 2, 4.5), sqrt(89.5), iw.Ablate("z", layer=1, head=1))
    # Mean: head 0 of block 0 has z (4, 0), (2, 6), (2, 3), whose mean is (8/3, 3). At C: a = 8/3 + 4/3 = 4, d = 4.5;
    # block 1: (4 + 6, 3 + 4.5, 2, 4.5), and 1/4 (2.5 · 2) = 1.25 from the MLP.
    z = iw.Site("z", layer=0, head=0, position=2)
    mean = iw.Ablate("z", layer=0, head=0, position=2, how="mean")
    same(session.run(CLEAN, capture=z, interventions=[mean])[z], [8 / 3, 3])
    ends_as(session, (11.25, 7.5, 2, 4.5), sqrt(207.0625), mean)


def test_steering_the_stream(session):
    # (3, 3, 2, 4.5) + 1.5 (0, 0, 0, 1) = (3, 3, 2, 6) enters block 1 at C: d's mean is (0 + 9 + 6)/3 = 5, a gains 6:
    # (9, 8, 2, 6), and 1/4 (1 · 2) = 0.5 from the MLP.
    stream = iw.Site("resid_pre", layer=1, position=2)
    steer = iw.Steer("resid_pre", [0, 0, 0, 1], layer=1, position=2, strength=1.5)
    same(session.run(CLEAN, capture=stream, interventions=[steer])[stream], [3, 3, 2, 6])
    ends_as(session, (9.5, 8, 2, 6), sqrt(194.25), steer)


def test_scaling(session):
    # The last MLP adds -2 · 0.75 instead of 0.75: A and B come out equal.
    ends_as(session, (7.5, 7.5, 2, 4.5), sqrt(136.75), iw.Scale("mlp_out", -2.0, layer=1, position=2))
    # Half of head 0 in block 0 at C: z = (1, 1.5) gives a = 1 + 1/4 (1 · 2) = 1.5, d = 2.25: (1.5, 3, 2, 2.25).
    # Block 1: d's mean is (0 + 9 + 2.25)/3 = 3.75: (7.5, 6.75, 2, 2.25), and 1/4 (0.75 · 2) = 0.375 from the MLP.
    half = iw.Scale("z", 0.5, layer=0, head=0, position=2)
    ends_as(session, (7.875, 6.75, 2, 2.25), sqrt(116.640625), half)


def test_interventions_together(session):
    # Head 1 of block 1 ablated leaves (3, 7.5, 2, 4.5); then 5 (1, 0, 0, 0) is added to what the MLP adds: 0.
    steer = iw.Steer("mlp_out", [1, 0, 0, 0], layer=1, position=2, strength=5)
    ends_as(session, (8, 7.5, 2, 4.5), sqrt(144.5), steer, iw.Ablate("z", layer=1, head=1))
