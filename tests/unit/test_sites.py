"""Captured activations against Hugging Face's own outputs, for every family of this release."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import interpwidgets as iw
from interpwidgets.engine.sites import SITES, parse_name
from tests.models import FAMILIES, tiny

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)


@pytest.fixture(scope="module", params=FAMILIES)
def session(request):
    with iw.Session(tiny(request.param)) as session:
        yield session


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a), np.asarray(b)
    return np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1)


def hugging_face(session, **outputs):
    """The model called plainly, with eager attention, as its user would."""
    model = session.model
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return model(torch.tensor([PROMPT]), **outputs)
    finally:
        model.set_attn_implementation(own)


def test_logits_are_those_of_the_plain_model(session):
    plain = hugging_face(session).logits[0]
    assert close(session.run(PROMPT).logits, plain)
    assert close(session.run(PROMPT, capture=["pattern", "z", "result"]).logits, plain)


def test_residual_stream_is_hugging_faces_hidden_states(session):
    hidden = hugging_face(session, output_hidden_states=True).hidden_states
    run = session.run(PROMPT, capture=["resid_pre", "resid_post"])
    for layer in range(4):
        assert close(run["resid_pre"].sel(layer=layer), hidden[layer][0])
    for layer in range(3):  # the last hidden state is normed
        assert close(run["resid_post"].sel(layer=layer), hidden[layer + 1][0])


def test_patterns_are_eager_attentions(session):
    attentions = hugging_face(session, output_attentions=True).attentions
    pattern = iw.attention_patterns(session, PROMPT)
    assert pattern.dims == ("layer", "head", "query", "key")
    assert close(pattern, torch.stack(attentions)[:, 0], 2e-6)
    assert np.allclose(pattern.sum("key"), 1, atol=1e-6)
    assert (np.triu(pattern.values, 1) == 0).all()


def test_sublayers_add_up_to_the_block(session):
    sites = [s for s in ("resid_mid",) if s in session.engine.sites(0)]
    run = session.run(PROMPT, capture=["resid_pre", "attn_out", "mlp_out", "resid_post", *sites])
    assert close(run["resid_pre"] + run["attn_out"] + run["mlp_out"], run["resid_post"])
    if sites:
        assert close(run["resid_pre"] + run["attn_out"], run["resid_mid"])


def test_pattern_times_values_is_z(session):
    run = session.run(PROMPT, capture=["pattern", "v", "z"])
    groups = run["z"].sizes["head"] // run["v"].sizes["head"]
    values = np.repeat(run["v"].values, groups, axis=2)  # (layer, position, head, d_head)
    z = np.einsum("lhqk,lkhd->lqhd", run["pattern"].values, values)
    assert close(z, run["z"])


def test_scores_are_the_pattern_before_softmax(session):
    run = session.run(PROMPT, capture=["scores", "pattern"])
    assert close(torch.tensor(run["scores"].values).softmax(-1), run["pattern"])
    assert np.isneginf(run["scores"].values[..., 0, 1:]).all()


def test_heads_results_add_up_to_the_projections_output(session):
    run = session.run(PROMPT, capture=["z", "result"])
    layer = session.engine.architecture.blocks[2]
    flat = torch.tensor(run["z"].sel(layer=2).values).flatten(1)
    with torch.no_grad():
        whole = layer.projection(flat) - layer.projection(torch.zeros_like(flat))
    assert close(run["result"].sel(layer=2).sum("head"), whole)


def test_mlp_post_through_the_down_projection_is_mlp_out(session):
    run = session.run(PROMPT, capture=["mlp_pre", "mlp_post", "mlp_out"])
    block = session.engine.architecture.blocks[1]
    with torch.no_grad():
        out = block.down(torch.tensor(run["mlp_post"].sel(layer=1).values))
        if block.mlp_out is not block.down and not any(m is block.down for m in block.mlp_out.modules()):
            out = block.mlp_out(out)  # a norm after the MLP, as in Gemma
    assert close(out, run["mlp_out"].sel(layer=1))
    assert run["mlp_pre"].shape == run["mlp_post"].shape


def test_ln_final_through_the_unembedding_is_the_logits(session):
    run = session.run(PROMPT, capture=["ln_final", "embed"])
    with torch.no_grad():
        logits = session.engine.architecture.readout.finish(
            session.model.get_output_embeddings()(torch.tensor(run["ln_final"].values))
        )
        embed = session.model.get_input_embeddings()(torch.tensor(PROMPT))
    assert close(logits, run.logits)
    assert close(embed, run["embed"])


def test_single_heads_positions_and_slices_are_addressable(session):
    whole = session.run(PROMPT, capture=["z", "pattern", "resid_post"])
    heads = [iw.Site("z", layer=2, head=1, position=slice(2, 5)), iw.Site("pattern", layer=3, head=0, position=-1)]
    stream = iw.Site("resid_post", layer=[0, 3], position=[1, 6])
    run = session.run(PROMPT, capture=[*heads, stream])
    assert close(run[heads[0]], whole["z"].sel(layer=2, head=1, position=slice(2, 4)))
    assert run[heads[0]].dims == ("position", "d_head")
    assert list(run[heads[0]].position) == [2, 3, 4]
    assert close(run[heads[1]], whole["pattern"].sel(layer=3, head=0, query=7))
    assert close(run[stream], whole["resid_post"].sel(layer=[0, 3], position=[1, 6]))
    assert close(run["resid_post"], run[stream])


def test_key_value_heads_are_counted_as_they_are(session):
    run = session.run(PROMPT, capture=["q", "k", "v"])
    config = session.model.config
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    family = config.model_type
    if family in ("gpt2", "gpt_neox", "opt"):
        kv_heads = config.num_attention_heads
    assert run["q"].sizes["head"] == config.num_attention_heads
    assert run["k"].sizes["head"] == run["v"].sizes["head"] == kv_heads


def test_plain_calls_and_settings_are_untouched():
    model = tiny("llama")
    before = model(torch.tensor([PROMPT])).logits
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    session = iw.Session(model)
    session.run(PROMPT, capture=["pattern"], interventions=[iw.Ablate("resid_post", layer=1)])
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(model(torch.tensor([PROMPT])).logits, before)
    session.close()
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == hooks
    assert torch.equal(model(torch.tensor([PROMPT])).logits, before)


def test_absent_sites_are_absent_by_name():
    with iw.Session(tiny("phi")) as session, pytest.raises(ValueError, match="has no 'resid_mid'"):
        session.run(PROMPT, capture="resid_mid")


@pytest.mark.parametrize(
    ("spelling", "name", "layer"),
    [
        ("blocks.3.attn.hook_z", "z", 3), ("blocks.11.hook_resid_mid", "resid_mid", 11),
        ("blocks.0.mlp.hook_post", "mlp_post", 0), ("blocks.2.attn.hook_attn_scores", "scores", 2),
        ("hook_embed", "embed", None), ("layers_output[5]", "resid_post", 5), ("attentions_output[1]", "attn_out", 1),
        ("attention_probabilities[2]", "pattern", 2), ("block_input", "resid_pre", None),
        ("head_attention_value_output", "z", None), ("attn_scores", "scores", None), ("pre", "mlp_pre", None),
    ],
)  # fmt: skip
def test_other_spellings_are_understood(spelling, name, layer):
    assert parse_name(spelling) == (name, layer)


def test_every_canonical_name_parses_to_itself():
    assert all(parse_name(name) == (name, None) for name in SITES)


@pytest.mark.parametrize(
    ("spelling", "nearest"),
    [
        ("blocks.1.mlp.hook_out", "blocks.1.hook_mlp_out"), ("blocks.1.attn.hook_out", "blocks.1.hook_attn_out"),
        ("blocks.1.attn.hook_resid_pre", "blocks.1.hook_resid_pre"),
    ],
)  # fmt: skip
def test_a_hook_of_another_module_is_not_taken_for_a_site(spelling, nearest):
    # TransformerLens' mlp.hook_out is the MLP's output before Gemma 2 norms it, which is not what the stream gets.
    with pytest.raises(ValueError, match=f"did you mean '{re.escape(nearest)}'"):
        parse_name(spelling)


def test_a_misspelt_site_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'resid_post'"):
        parse_name("resid_pots")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resid_pre", "head": 1}, "has no heads"),
        ({"name": "embed", "layer": 1}, "exists once"),
        ({"name": "blocks.1.attn.hook_z", "layer": 2}, "already names layer 1"),
    ],
)
def test_addresses_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        iw.Site(**arguments)


def test_out_of_range_names_the_range():
    with iw.Session(tiny("llama")) as session:
        with pytest.raises(ValueError, match="layer 9 is out of range: there are 4"):
            session.run(PROMPT, capture=iw.Site("z", layer=9))
        with pytest.raises(ValueError, match="head 4 is out of range"):
            session.run(PROMPT, capture=iw.Site("z", head=4))
        with pytest.raises(ValueError, match="token id 97 is out of range"):
            session.run((1, 97))


@pytest.mark.parametrize(
    ("site", "axis", "expected"),
    [
        (iw.Site("z", position=slice(-3, None)), "position", [5, 6, 7]),
        (iw.Site("z", position=slice(None, None, -3)), "position", [7, 4, 1]),
        (iw.Site("z", position=(-1, 2)), "position", [7, 2]),
        (iw.Site("z", head=slice(-2, None)), "head", [2, 3]),
        (iw.Site("k", head=-1), "head", 1),
        (iw.Site("pattern", position=slice(-2, None)), "query", [6, 7]),
        (iw.Site("z", layer=slice(-2, None)), "layer", [2, 3]),
    ],
)
def test_what_is_counted_from_the_end_is_labelled_with_its_place(site, axis, expected):
    with iw.Session(tiny("llama")) as session:
        run = session.run(PROMPT, capture=[site])
        whole = session.run(PROMPT, capture=site.name)[site.name]
        assert run[site][axis].values.tolist() == expected
        assert np.array_equal(run[site], whole.sel({axis: expected}))


def test_sublayers_are_found_beside_massive_activations():
    # Some dimensions of a trained stream are thousands of times larger than what a sublayer adds (Sun et al.
    # 2402.17762), so the sum that the next module reads is rounded more coarsely than the sublayer's own output.
    model = tiny("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 5] = 3e4
    with iw.Session(model) as session:
        for layer in range(4):
            assert {"attn_out", "resid_mid", "mlp_out"} <= set(session.engine.sites(layer))
        run = session.run(PROMPT, capture=["resid_pre", "attn_out", "resid_mid"])
        assert close(run["resid_pre"] + run["attn_out"], run["resid_mid"])
