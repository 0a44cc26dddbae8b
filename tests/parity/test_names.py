"""Every TransformerLens name that we understand addresses the same tensor, or the difference is shown."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

import interpwidgets as iw
from interpwidgets.engine.sites import SITES, parse_name
from tests.parity.bridge import Pair, assert_same

LAYER = 1


def names(pair: Pair) -> dict[str, str]:
    """TransformerLens' hooks outside of blocks or in one block that we have a site for -> the site."""
    found = {}
    for hook in pair.cache:
        if hook.startswith("blocks.") and not hook.startswith(f"blocks.{LAYER}."):
            continue
        try:
            found[hook] = parse_name(hook)[0]
        except ValueError:
            continue
    return found


def read(pair: Pair, name: str) -> np.ndarray:
    return pair.session.run(pair.clean, capture=name)[name].values


def theirs(pair: Pair, name: str) -> np.ndarray:
    return pair.cache[name][0].numpy()


def assert_names_agree(pair: Pair) -> None:
    rotary = pair.family != "gpt2"
    compared = set()
    for name, site in names(pair).items():
        if (rotary and name.endswith(("hook_q", "hook_k"))) or site == "scores":
            continue  # shown below
        assert_same(read(pair, name), theirs(pair, name))
        compared.add(site)
    # NeoX' bridge has no hook after rotary, but its scores are compared below.
    without = {"scores"} | ({"q", "k"} if pair.family.startswith("gpt_neox") else set())
    assert compared == {"embed", "ln_final", *pair.session.engine.sites(LAYER)} - without


def test_both_compute_with_the_same_tensors(small):
    ours = {p.data_ptr() for p in small.session.model.parameters()}
    assert ours <= {p.data_ptr() for p in small.bridge.original_model.parameters()}


def test_logits_are_equal(small):
    assert_same(small.session.run(small.clean).logits, small.logits)


def test_logits_of_the_demo_model_are_equal(demo):
    assert_same(demo.session.run(demo.clean).logits, demo.logits)


def test_their_names_capture_their_values(small):
    assert_names_agree(small)


def test_their_names_capture_their_values_in_the_demo_model(demo):
    assert_names_agree(demo)


def test_a_parallel_block_has_no_resid_mid_in_either(small):
    absent = f"blocks.{LAYER}.hook_resid_mid" not in small.cache
    assert absent == (small.family == "gpt_neox") == ("resid_mid" not in small.session.engine.sites(LAYER))


def test_scores_are_equal_where_the_mask_lets_through(small):
    # Masked scores are -inf in ours and in TransformerLens the lowest finite number or -inf, by family.
    name = f"blocks.{LAYER}.attn.hook_attn_scores"
    ours, their_scores = read(small, name), theirs(small, name)
    masked = np.isneginf(ours)
    assert masked.any(axis=(0, 1)).tolist() == [False] + [True] * (len(small.clean) - 1)
    assert_same(ours[~masked], their_scores[~masked])
    assert (their_scores[masked] < -1e30).all()


@pytest.mark.parametrize("site", ["q", "k"])
def test_our_queries_and_keys_are_theirs_after_norm_and_rotary(small, site):
    # hook_q is the projection's output (before QK-norm, in Qwen 3); ours is what enters q·k.
    hook = f"blocks.{LAYER}.attn.hook_{site}"
    if small.family == "gpt2":
        assert_same(read(small, hook), theirs(small, hook))  # positions are learned: nothing is in between
        return
    x = torch.tensor(theirs(small, hook))  # (position, head, d_head)
    model = small.session.model
    if small.family == "qwen3":
        attention = model.model.layers[LAYER].self_attn
        with torch.no_grad():
            x = (attention.q_norm if site == "q" else attention.k_norm)(x)
    assert_same(read(small, site)[LAYER], rotated(model, x))
    assert_same(read(small, hook), rotated(model, x))  # also under their name


def rotated(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Rotary embedding by Hugging Face's own function for this family; of GPT-NeoX's heads, a quarter turns."""
    x = x.transpose(0, 1)[None]  # (1, head, position, d_head)
    cos, sin = model.base_model.rotary_emb(x, torch.arange(x.shape[2])[None])
    turned, _ = sys.modules[type(model).__module__].apply_rotary_pos_emb(x, x, cos, sin)
    return turned[0].transpose(0, 1)


def test_gemmas_sublayers_write_what_leaves_their_post_norms(small):
    # attn_out is added to the stream as it is: after Gemma 2's post-norm, in both tools.
    for site, module in (("attn_out", "attn"), ("mlp_out", "mlp")):
        raw = theirs(small, f"blocks.{LAYER}.{module}.hook_out")
        added = read(small, site)[LAYER]
        if small.family != "gemma2":
            assert_same(added, raw)
            continue
        block = small.session.model.model.layers[LAYER]
        norm = block.post_attention_layernorm if site == "attn_out" else block.post_feedforward_layernorm
        with torch.no_grad():
            assert_same(added, norm(torch.tensor(raw)))
        assert np.abs(added - raw).max() > 0.1


def test_their_normalized_final_stream_is_not_our_ln_final(small):
    # hook_normalized is taken before the norm's weight and bias, ln_final is what enters the unembedding.
    ours = read(small, "ln_final")
    assert np.abs(ours - theirs(small, "ln_final.hook_normalized")).max() > 0.01
    with pytest.raises(ValueError, match=r"unknown site 'ln_final\.hook_normalized'"):
        iw.Site("ln_final.hook_normalized")


def test_shapes_are_theirs_without_the_batch(small):
    length, a = len(small.clean), small.session.engine.architecture
    sizes = {
        "position": length, "query": length, "key": length, "d_model": a.d_model, "d_head": a.d_head[LAYER],
        "d_mlp": a.d_mlp[LAYER],
    }  # fmt: skip
    for name, site in names(small).items():
        info = SITES[site]
        heads = {"query": a.n_heads, "kv": a.n_kv_heads}[info.heads][LAYER] if info.heads else None
        expected = tuple(heads if dim == "head" else sizes[dim] for dim in info.dims)
        assert theirs(small, name).shape == expected == read(small, name).shape
