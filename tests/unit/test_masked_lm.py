"""Masked language models: both directions are read, the answer stands at the mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

import interpwidgets as iw
from tests.models import tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level, word_piece

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "bert": {},
    "roberta": {},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    "modernbert": {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "local_attention": 4},
    "electra": {"embedding_size": 16},
}
CLEAN, CORRUPTED = "The capital of France is [MASK].", "The capital of cat is [MASK]."
MASK = 6


def masked(family: str, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **FAMILIES[family], **changes})
    model = AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0) if weight.dim() > 1 else weight.add_(torch.randn_like(weight) * 0.1)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def session(request):
    with iw.Session(masked(request.param), word_piece()) as session:
        yield session


@pytest.fixture(scope="module")
def bert():
    with iw.Session(masked("bert"), word_piece()) as session:
        yield session


def plain(model, ids, **arguments):
    with torch.no_grad():
        return model(torch.tensor([ids]), **arguments)


def test_the_session_knows_that_both_directions_are_read(session):
    assert not session.causal
    assert session.checked.ok


def test_patterns_and_logits_are_hugging_faces(session):
    run = session.run(CLEAN, capture=["pattern", "resid_post"])
    twin = masked(session.model.config.model_type, attn_implementation="eager")
    theirs = plain(twin, run.tokens.ids, output_attentions=True, output_hidden_states=True)
    np.testing.assert_allclose(run.logits, theirs.logits[0], atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(run["pattern"], torch.cat(theirs.attentions), atol=2e-6)
    assert run["pattern"].values[..., 1, 2].all(), "queries see later keys"
    np.testing.assert_allclose(run["resid_post"][0], theirs.hidden_states[1][0], atol=1e-4, rtol=1e-5)


def test_the_answer_is_read_at_the_first_mask(session):
    run = session.run(CLEAN)
    assert run.tokens.strings[MASK] == "[MASK]"
    assert run.answer_position == MASK
    np.testing.assert_array_equal(run.prediction, run.logits[MASK])
    assert session.answer_position(session.tokenize("the [MASK] sat on the [MASK]")) == 2


def test_a_prompt_that_masks_nothing_has_no_answer(bert):
    run = bert.run("the cat sat")
    assert run.answer_position is None
    with pytest.raises(ValueError, match="predicts what is masked: put"):
        _ = run.prediction
    with pytest.raises(ValueError, match="predicts what is masked: put"):
        iw.patch_sweep(bert, "the cat sat", "the dog sat")


def test_masks_at_different_positions_are_shown(bert):
    with pytest.raises(
        ValueError, match=r"masked at position 2, while the corrupted prompt masks position 1 first(?s:.*)\[MASK\]"
    ):
        iw.patch_sweep(bert, "the [MASK] sat", "[MASK] dog sat", answer="cat", foil="dog")


def test_the_lens_ends_in_the_models_own_prediction_at_every_position(session):
    tokens = session.tokenize(CLEAN)
    log_p = plain(session.model, tokens.ids).logits[0].double().log_softmax(-1).numpy()
    lens = iw.logit_lens(session, CLEAN, metric=["rank", "cross_entropy"], top_k=40).isel(layer=-1)
    np.testing.assert_array_equal(lens.top_token[:, 0], log_p.argmax(-1))
    own = [int(log_p[MASK].argmax()) if i == MASK else token for i, token in enumerate(tokens.ids)]
    np.testing.assert_array_equal(lens.target, own)
    expected = [-log_p[i, token] for i, token in enumerate(own)]
    expected[MASK] = np.nan
    np.testing.assert_allclose(lens.cross_entropy, expected, rtol=1e-4)
    assert lens["rank"][MASK] == 0


def test_the_lens_goes_through_the_heads_transform(bert):
    """A row in the middle: the MLM head (dense, GELU, norm, decoder) of Hugging Face, on its hidden state."""
    tokens = bert.tokenize(CLEAN)
    hidden = plain(bert.model, tokens.ids, output_hidden_states=True).hidden_states[2]
    with torch.no_grad():
        expected = bert.model.cls(hidden)[0].softmax(-1).max(-1).values
    lens = iw.logit_lens(bert, CLEAN).sel(layer=1)
    np.testing.assert_allclose(lens.top_probability[:, 0], expected, rtol=1e-4)


def test_the_sweep_is_what_plain_hooks_give_cell_by_cell(bert):
    """Positions before the first differing token matter too: later layers there have read it."""
    clean, corrupted = bert.tokenize(CLEAN), bert.tokenize(CORRUPTED)
    layers = bert.model.bert.encoder.layer
    hidden = plain(bert.model, clean.ids, output_hidden_states=True).hidden_states
    answer, foil = bert.token_id("paris"), bert.token_id("rome")
    expected = np.zeros((3, len(clean)))
    for layer in range(3):
        for position in range(len(clean)):

            def put(module, args, kwargs, layer=layer, position=position):
                stream = args[0].clone()
                stream[:, position] = hidden[layer][:, position]
                return (stream, *args[1:]), kwargs

            handle = layers[layer].register_forward_pre_hook(put, with_kwargs=True)
            logits = plain(bert.model, corrupted.ids).logits[0, MASK]
            handle.remove()
            expected[layer, position] = logits[answer] - logits[foil]
    swept = iw.patch_sweep(bert, CLEAN, CORRUPTED, answer="paris", foil="rome", normalize=False)
    np.testing.assert_allclose(swept, expected, atol=1e-4)
    assert np.ptp(swept.sel(layer=2).values[:4]) > 0


def test_the_answer_may_be_read_at_any_position(bert):
    swept = iw.patch_sweep(bert, CLEAN, CORRUPTED, answer="paris", foil="rome", normalize=False, answer_position=-1)
    logits = plain(bert.model, bert.tokenize(CLEAN).ids).logits[0, -1]
    difference = float(logits[bert.token_id("paris")] - logits[bert.token_id("rome")])
    assert swept.attrs["clean"] == pytest.approx(difference, rel=1e-4)


def test_an_edge_to_a_later_key_can_be_cut(bert):
    before = bert.run(CLEAN, capture="pattern")["pattern"].values[1, 2]
    cut = iw.CutEdge(layer=1, head=2, query=1, key=4)
    after = bert.run(CLEAN, capture="pattern", interventions=[cut])["pattern"].values[1, 2]
    expected = before.copy()
    expected[1, 4] = 0
    expected[1] /= expected[1].sum()
    np.testing.assert_allclose(after, expected, atol=1e-6)
    widget = iw.AttentionPattern(bert, CLEAN, layer=1, head=2)
    widget.cut(1, 2, query=1, key=4)
    widget.wait()
    assert list(widget.experiments) == [cut]
    widget.experiments.clear()
    widget.close()


def test_a_masked_language_model_does_not_continue_a_prompt(bert):
    with pytest.raises(ValueError, match="fills in masked tokens and cannot continue a prompt"):
        bert.generate(CLEAN)


def test_a_replaced_token_leaves_text_to_edit(bert):
    tokens = bert.tokenize(CLEAN)
    ids = [*tokens.ids[:4], bert.token_id("rome"), *tokens.ids[5:]]
    replaced = bert.tokenize_ids(ids)
    assert replaced.ids == tuple(ids)
    assert bert.tokenize(replaced.text).ids == tuple(ids)


def test_a_continuation_is_typed_as_it_is_shown_and_other_text_with_its_mark_is_text(bert):
    continuation = bert.tokenizer.convert_tokens_to_ids("##ing")
    lens = iw.LogitLens(bert, "the cats sat", linked=False)
    at = [token["text"] for token in lens._prompt["tokens"]].index("##s")
    lens.replace(at, text="##ing")
    lens.wait(30)
    assert [token["text"] for token in lens._prompt["tokens"]] == ["[CLS]", "the", "cat", "##ing", "sat", "[SEP]"]
    assert lens._prompt["tokens"][at]["id"] == continuation == bert.token_id("##ing")
    unknown = bert.tokenizer.unk_token_id
    assert bert.text_ids("##ed") == bert.text_ids("##s ##s")[:3] == [unknown] * 3  # two marks and a word
    assert bert.text_ids("cats") == bert.text_ids("cat") + bert.text_ids("##s")


@pytest.mark.parametrize("add_bos", [True, False])
def test_the_mark_of_a_continuation_is_text_where_tokens_are_bytes(add_bos):
    with iw.Session(tiny("llama", vocab_size=VOCABULARY), byte_level(add_bos=add_bos)) as session:
        assert session.text_ids("##s") == session.tokenizer.convert_tokens_to_ids(["#", "#", "s"])
        with pytest.raises(ValueError, match="'##s' is 3 tokens"):
            session.token_id("##s")


def test_pictures_show_the_whole_matrix(bert):
    widget = iw.AttentionPattern(bert, CLEAN)
    widget.wait()
    assert np.isfinite(np.array(widget.figure().data[0].z, float)).all()
    assert [row["text"] for row in widget._predictions["rows"]]
    assert widget._prompt["answer_position"] == MASK
    widget.run("the cat sat")
    widget.wait()
    assert widget._predictions["rows"] == []
    widget.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_load_takes_an_encoder_with_its_head(tmp_path, family):
    model = masked(family)
    model.save_pretrained(tmp_path)
    word_piece().save_pretrained(tmp_path)
    with iw.load(str(tmp_path)) as session:
        assert type(session.model) is type(model)
        assert not session.causal
        ids = session.tokenize(CLEAN).ids
        np.testing.assert_array_equal(session.run(CLEAN).logits, plain(model, ids).logits[0])


def test_load_refuses_an_encoder_whose_head_is_not_in_the_file(tmp_path):
    masked("bert").bert.save_pretrained(tmp_path)
    word_piece().save_pretrained(tmp_path)
    with pytest.raises(
        iw.UnsupportedModel,
        match=r"without a language-model head: 'cls.predictions.bias'(?s:.*)attention patterns alone",
    ):
        iw.load(str(tmp_path))


def test_load_takes_the_decoder_of_a_family_that_has_both(tmp_path):
    config = AutoConfig.for_model("bert", **SIZES, is_decoder=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    word_piece().save_pretrained(tmp_path)
    with iw.load(str(tmp_path)) as session:
        assert session.causal
