"""Encoders with a decoder: their three attentions against Hugging Face's own, and experiments in each."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    LEDConfig,
    LEDForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

import interpwidgets as iw
from interpwidgets.engine.sites import SITES
from tests.models import ENCODER_DECODERS, encoder_decoder
from tests.sent import head, thumbnails
from tests.tiny_tokenizers import VOCABULARY, byte_level

SOURCE, TARGET = (5, 17, 3, 44, 9), (7, 8, 11)
PROMPT = iw.SourceTarget(SOURCE, TARGET)
STACKS = {"decoder": "", "encoder": "encoder.", "cross": "cross."}


@pytest.fixture(scope="module", params=ENCODER_DECODERS)
def session(request):
    with iw.Session(encoder_decoder(request.param)) as session:
        yield session


@pytest.fixture(scope="module", params=["t5", "bart"])
def one(request):
    with iw.Session(encoder_decoder(request.param)) as session:
        yield session


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1)


def inputs(model, source=SOURCE, target=TARGET):
    start = model.config.decoder_start_token_id
    return {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([(start, *target)])}


def hugging_face(session, **outputs):
    """The model called plainly, with eager attention, as its user would."""
    model = session.model
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return model(**inputs(model), **outputs)
    finally:
        model.set_attn_implementation(own)


def logits(session, prompt=PROMPT, interventions=()):
    return session.run(prompt, interventions=interventions).logits.values


def with_hook(model, module, hook, before=True):
    """Logits of the plain model with one PyTorch hook of the test's."""
    handle = (module.register_forward_pre_hook if before else module.register_forward_hook)(hook)
    try:
        with torch.no_grad():
            return model(**inputs(model)).logits[0].numpy()
    finally:
        handle.remove()


def cross_projection(model, layer):
    """W_O of cross attention, by the families' own names."""
    blocks = model.decoder.block if hasattr(model, "decoder") else model.model.decoder.layers
    return (
        blocks[layer].layer[1].EncDecAttention.o
        if hasattr(blocks[layer], "layer")
        else blocks[layer].encoder_attn.out_proj
    )


def encoder_projection(model, layer):
    blocks = model.encoder.block if hasattr(model, "encoder") else model.model.encoder.layers
    return (
        blocks[layer].layer[0].SelfAttention.o if hasattr(blocks[layer], "layer") else blocks[layer].self_attn.out_proj
    )


def test_logits_are_those_of_the_plain_model(session):
    plain = hugging_face(session).logits[0]
    assert close(logits(session), plain)
    sites = ["pattern", "encoder.pattern", "cross.pattern", "z", "encoder.z", "cross.z", "cross.result"]
    assert close(session.run(PROMPT, capture=sites).logits, plain)


def test_all_three_patterns_are_eager_attentions(session):
    plain = hugging_face(session, output_attentions=True)
    run = session.run(PROMPT, capture=["pattern", "encoder.pattern", "cross.pattern"])
    theirs = {"": plain.decoder_attentions, "encoder.": plain.encoder_attentions, "cross.": plain.cross_attentions}
    for prefix, attentions in theirs.items():
        pattern = run[f"{prefix}pattern"]
        assert pattern.dims == ("layer", "head", "query", "key")
        assert close(pattern, torch.stack(attentions)[:, 0], 2e-6)
        assert np.allclose(pattern.sum("key"), 1, atol=1e-6)
    assert (run["cross.pattern"].sizes["query"], run["cross.pattern"].sizes["key"]) == (len(TARGET) + 1, len(SOURCE))


def test_both_residual_streams_are_hugging_faces_hidden_states(session):
    plain = hugging_face(session, output_hidden_states=True)
    run = session.run(PROMPT, capture=["resid_pre", "encoder.resid_pre"])
    for prefix, hidden in (("", plain.decoder_hidden_states), ("encoder.", plain.encoder_hidden_states)):
        assert close(run[f"{prefix}resid_pre"], torch.stack(hidden[:-1])[:, 0])


def test_sublayers_add_up_to_the_block(session):
    for prefix, parts in {"": ["attn_out", "cross.attn_out", "mlp_out"], "encoder.": ["attn_out", "mlp_out"]}.items():
        names = [part if "." in part else f"{prefix}{part}" for part in parts]
        ends = [f"{prefix}resid_pre", f"{prefix}resid_post"]
        run = session.run(PROMPT, capture=[*ends, *names, f"{prefix}resid_mid", "cross.resid_mid"])
        assert close(run[ends[0]] + run[names[0]], run[f"{prefix}resid_mid"]) or _norms_after_adding(session)
        if not _norms_after_adding(session):
            assert close(run[ends[0]] + sum(run[name] for name in names), run[ends[1]])
            if not prefix:
                assert close(run["resid_mid"] + run["cross.attn_out"], run["cross.resid_mid"])


def _norms_after_adding(session):
    return session.model.config.model_type in ("bart", "marian", "mvp")


def test_heads_results_add_up_to_cross_attention(one):
    run = one.run(PROMPT, capture=["cross.result", "cross.attn_out", "cross.z"])
    for layer in range(one.engine.architecture.n_layers):
        bias = getattr(cross_projection(one.model, layer), "bias", None)
        total = run["cross.result"].sel(layer=layer).sum("head") + (0 if bias is None else bias.detach().numpy())
        assert close(total, run["cross.attn_out"].sel(layer=layer))


def test_pattern_times_values_is_z_in_each_attention(one):
    for prefix in STACKS.values():
        run = one.run(PROMPT, capture=[f"{prefix}pattern", f"{prefix}v", f"{prefix}z"])
        z = np.einsum("lhqk,lkhd->lqhd", run[f"{prefix}pattern"].values, run[f"{prefix}v"].values)
        assert close(z, run[f"{prefix}z"])


def test_embeddings_of_both_texts_are_told_apart(session):
    found = session.run(PROMPT, capture=["embed", "encoder.embed"])
    assert found["embed"].sizes["position"] == len(TARGET) + 1
    assert found["encoder.embed"].sizes["position"] == len(SOURCE)
    weight = session.model.get_input_embeddings().weight[list(SOURCE)].detach().numpy()
    ratio = found["encoder.embed"].values / weight
    assert np.allclose(ratio, ratio[0, 0], rtol=1e-4)  # some scale it by sqrt(d_model)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("renormalize", [True, False])
def test_a_cut_edge_is_a_masked_key(one, stack, renormalize):
    prefix, query, key, head, layer = STACKS[stack], 2, 1, 1, 1
    plain = one.run(PROMPT, capture=[f"{prefix}pattern", f"{prefix}v", f"{prefix}z"])
    cut = iw.CutEdge(layer=layer, head=head, query=query, key=key, renormalize=renormalize, stack=stack)
    run = one.run(PROMPT, capture=[f"{prefix}pattern", f"{prefix}z"], interventions=[cut])
    expected = plain[f"{prefix}pattern"].sel(layer=layer).values.copy()
    expected[head, query, key] = 0
    if renormalize:
        expected[head, query] /= expected[head, query].sum()
    assert close(run[f"{prefix}pattern"].sel(layer=layer), expected)
    z = np.einsum("hqk,khd->qhd", expected, plain[f"{prefix}v"].sel(layer=layer).values)
    assert close(run[f"{prefix}z"].sel(layer=layer), z)
    assert not np.array_equal(run.logits.values, plain.logits.values)
    assert run.idle == ()


@pytest.mark.parametrize(("site", "projection"), [("cross.z", cross_projection), ("encoder.z", encoder_projection)])
def test_an_ablated_head_is_a_zeroed_slice_of_the_projections_input(one, site, projection):
    heads = one.engine.architecture.stack(site).n_heads[1]

    def zero(module, args):
        x = args[0].clone()
        width = x.shape[-1] // heads
        x[..., width : 2 * width] = 0
        return (x,)

    expected = with_hook(one.model, projection(one.model, 1), zero)
    assert close(logits(one, interventions=[iw.Ablate(site, layer=1, head=1)]), expected)
    assert not close(expected, logits(one), 1e-3)


def test_a_source_position_is_patched_where_the_encoder_reads_it(one):
    other = (5, 17, 60, 44, 9)
    encoder = one.model.encoder if hasattr(one.model, "encoder") else one.model.model.encoder
    block = (encoder.block if hasattr(encoder, "block") else encoder.layers)[1]
    with torch.no_grad():
        hidden = encoder(input_ids=torch.tensor([other]), output_hidden_states=True).hidden_states[1]

    def replace(module, args):
        x = args[0].clone()
        x[:, 2] = hidden[:, 2]
        return (x, *args[1:])

    patch = iw.Patch("encoder.resid_pre", layer=1, position=2, source=iw.SourceTarget(other, TARGET))
    assert close(logits(one, interventions=[patch]), with_hook(one.model, block, replace))


def test_generation_is_hugging_faces(session):
    source = torch.tensor([SOURCE])
    theirs = session.model.generate(source, do_sample=False, num_beams=1, max_new_tokens=7)[0].tolist()
    ours = session.generate(SOURCE, 7)
    assert list(ours.ids) == theirs
    assert ours.source.ids == SOURCE


def test_experiments_act_at_every_step_of_a_generation(one):
    experiments = [iw.Scale("cross.z", -9.0), iw.CutEdge(layer=0, head=1, key=2, stack="cross")]
    written = one.generate(SOURCE, 5, experiments).ids
    for step in range(1, len(written) - 1):  # BART's configuration forces the last
        run = one.run(iw.SourceTarget(SOURCE, written[:step]), interventions=experiments)
        assert int(run.prediction.argmax()) == written[step]
    assert written != one.generate(SOURCE, 5).ids


def test_sources_alone_leave_the_decoder_at_its_start(one):
    run = one.run(SOURCE)
    assert run.tokens.ids == (one.model.config.decoder_start_token_id,)
    assert run.tokens.source.ids == SOURCE
    with torch.no_grad():
        assert close(run.logits, one.model(**inputs(one.model, SOURCE, ())).logits[0])
    runs = one.run([SOURCE, PROMPT, [5, 6]])
    assert [len(r.tokens.source) for r in runs] == [5, 5, 2]


def test_a_target_that_begins_with_the_start_token_is_taken_as_it_is(one):
    start = one.model.config.decoder_start_token_id
    assert one.tokenize(iw.SourceTarget(SOURCE, (start, *TARGET))).ids == one.tokenize(PROMPT).ids


def test_text_is_tokenized_as_labels_are():
    tokenizer = byte_level(add_bos=True)
    with iw.Session(encoder_decoder("bart", vocab_size=VOCABULARY), tokenizer) as session:
        tokens = session.tokenize(iw.SourceTarget("the the", "the"))
        assert tokens.source.strings == ("<s>", "the", "␣the")
        assert tokens.strings == ("</s>", "<s>", "the")  # as BART's labels, moved one to the right
        assert (tokens.source.text, tokens.text) == ("the the", "the")
        assert "begins with </s>" in tokens.bos
        assert tokens.given == iw.SourceTarget("the the", "the")
        assert session.run("the the").tokens.strings == ("</s>",)
        spans = session.tokenize(iw.SourceTarget("the", "the</s>"))
        assert spans.strings == ("</s>", "<s>", "the", "</s>")  # what was typed stays
        assert session.tokenize_ids(tokens.ids, tokens.source).given == tokens.given


def test_the_same_target_of_another_source_is_not_answered_from_the_cache(one):
    first = logits(one, iw.SourceTarget((5, 6), TARGET))
    assert not np.array_equal(first, logits(one, iw.SourceTarget((5, 9), TARGET)))


def test_a_session_proves_it(session):
    checked = session.check()
    assert checked.ok
    assert not checked.one_pass
    captured = session.run(PROMPT, capture=["resid_post"])["resid_post"].values[-1]
    assert close(session.engine.readout(torch.from_numpy(captured)).numpy(), hugging_face(session).logits[0])


def test_positions_and_layers_are_those_of_the_stack(one):
    n_encoder = one.engine.architecture.stacks["encoder"].n_layers
    with pytest.raises(ValueError, match=f"layer {n_encoder} is out of range: there are {n_encoder}"):
        one.run(PROMPT, capture=[iw.Site("encoder.z", layer=n_encoder)])
    with pytest.raises(ValueError, match="position 5 is out of range: there are 5"):
        one.run(PROMPT, interventions=[iw.Ablate("cross.k", position=5)])
    with pytest.raises(ValueError, match="position 4 is out of range: there are 4"):
        one.run(PROMPT, interventions=[iw.Ablate("cross.z", position=4)])
    with pytest.raises(ValueError, match="key 5 is out of range: there are 5"):
        one.run(PROMPT, interventions=[iw.CutEdge(layer=0, head=0, query=1, key=5, stack="cross")])
    assert one.run(PROMPT, capture=[iw.Site("cross.k", layer=0, position=4)])


def test_an_encoders_site_in_a_model_without_one_says_so():
    from tests.models import tiny

    with iw.Session(tiny("llama")) as session:
        with pytest.raises(ValueError, match=r"this model has no encoder, and so no 'cross.z'; it has 'z'"):
            session.run((5, 6), capture="cross.z")
        with pytest.raises(TypeError, match="no encoder that reads a source"):
            session.run(PROMPT)


def test_spellings_and_errors_of_stacked_sites():
    assert iw.Site("encoder.blocks.2.attn.hook_z") == iw.Site("encoder.z", layer=2)
    assert iw.Site("cross.attention_probabilities").name == "cross.pattern"
    assert SITES["cross.v"].of_source
    assert not SITES["cross.z"].of_source
    with pytest.raises(ValueError, match=r"unknown site 'cross.mlp_out'.*encoder\.…"):
        iw.Site("cross.mlp_out")
    with pytest.raises(ValueError, match="unknown stack 'crosss'; did you mean 'cross'"):
        iw.CutEdge(layer=0, stack="crosss")


def test_pairs_are_data():
    patch = iw.Patch("cross.z", layer=1, source=iw.SourceTarget("a b", "c"))
    assert repr(patch) == "iw.Patch('cross.z', layer=1, source=iw.SourceTarget('a b', 'c'))"
    assert json.loads(json.dumps(patch.to_json()))["source"] == {"source": "a b", "target": "c"}
    assert eval(repr(patch)) == patch
    cut = iw.CutEdge(layer=1, head=0, query=2, key=3, stack="cross")
    assert eval(repr(cut)) == cut
    assert cut != iw.CutEdge(layer=1, head=0, query=2, key=3)
    assert cut.to_json()["stack"] == "cross"
    mean = iw.Ablate("cross.z", how="mean", reference=[iw.SourceTarget("a", "b"), "c"])
    assert eval(repr(mean)) == mean
    assert json.dumps(mean.to_json())
    assert iw.Ablate("cross.z", how="resample", reference=PROMPT).references() == (PROMPT,)
    with pytest.raises(TypeError, match="source=5: text or token ids are needed"):
        iw.SourceTarget(5)


def test_mean_and_resample_ablation_read_pairs(one):
    other = iw.SourceTarget((60, 8, 91), (3, 4, 5))
    source = one.run(other, capture="cross.z")["cross.z"].sel(layer=1).values
    ablations = {
        "mean": iw.Ablate("cross.z", layer=1, how="mean", reference=other),
        "resample": iw.Ablate("cross.z", layer=1, how="resample", reference=other),
    }
    written = {k: one.run(PROMPT, ["cross.z"], [a])["cross.z"].sel(layer=1).values for k, a in ablations.items()}
    assert close(written["mean"], np.broadcast_to(source.mean(0), source.shape))
    assert close(written["resample"], source)


def test_a_pattern_of_another_sources_length_is_not_patched_in(one):
    patch = iw.Patch("cross.pattern", layer=1, source=iw.SourceTarget((5, 6, 7), TARGET))
    with pytest.raises(ValueError, match="the prompt has 5 tokens and the source prompt 3"):
        one.run(PROMPT, interventions=[patch])


def test_a_bert_pair_works():
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 64}
    config = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**sizes), BertConfig(**sizes))
    config.decoder_start_token_id = 1
    config.pad_token_id = 0
    torch.manual_seed(0)
    model = EncoderDecoderModel(config).eval()
    with iw.Session(model) as session:
        run = session.run(PROMPT, capture=["pattern", "encoder.pattern", "cross.pattern"])
        plain = hugging_face(session, output_attentions=True)
        assert close(run.logits, plain.logits[0])
        assert close(run["cross.pattern"], torch.stack(plain.cross_attentions)[:, 0])
        assert close(run["encoder.pattern"], torch.stack(plain.encoder_attentions)[:, 0])


def test_attention_to_both_texts_at_once_is_refused():
    from transformers import AutoConfig

    from tests.conformance.families import _shrink

    model = AutoModelForSeq2SeqLM.from_config(_shrink(type(AutoConfig.for_model("t5gemma2")), {})).eval()
    with pytest.raises(iw.UnsupportedModel, match="15 keys for 6 positions and 9 of the encoder"):
        iw.Session(model)


def test_an_encoder_that_pads_its_source_is_refused():
    config = LEDConfig(
        vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, attention_window=4,
        max_encoder_position_embeddings=64, max_decoder_position_embeddings=64, decoder_start_token_id=2,
    )  # fmt: skip
    with pytest.raises(iw.UnsupportedModel, match="found in the encoder of LEDForConditionalGeneration"):
        iw.Session(LEDForConditionalGeneration(config).eval())


def test_an_encoder_of_sound_is_refused():
    config = WhisperConfig(
        vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    with pytest.raises(iw.UnsupportedModel, match="reads 'input_features' and no token ids"):
        iw.Session(WhisperForConditionalGeneration(config).eval())


def test_load_opens_a_folder_with_both(tmp_path):
    encoder_decoder("t5", vocab_size=VOCABULARY).save_pretrained(tmp_path)
    byte_level(add_bos=False).save_pretrained(tmp_path)
    with iw.load(str(tmp_path)) as session:
        assert session.engine.has_encoder
        assert session.run(iw.SourceTarget("the", "the")).tokens.strings == ("<pad>", "the")


@pytest.fixture
def widget(one):
    one.interventions.clear()
    shown = iw.AttentionPattern(one, PROMPT, layer=1, head=1, stack="cross")
    shown.wait(30)
    yield shown
    shown.close()
    one.interventions.clear()


def test_each_stack_is_shown_without_another_run(one, widget):
    ran = []
    handle = one.model.register_forward_pre_hook(lambda *_: ran.append(1))
    for stack, prefix in STACKS.items():
        expected = iw.attention_patterns(one, PROMPT, stack=stack)
        ran.clear()
        widget.select(1, 1, stack)
        assert not ran
        assert (widget._overview["stack"], widget._detail["stack"]) == (stack, stack)
        assert close(head(widget), expected.sel(layer=1, head=1))
        assert np.abs(thumbnails(widget) / 255 - expected.values).max() <= 0.5 / 255 + 1e-6
        assert widget._baseline_overview["causal"] == (prefix == "")
        assert [widget._baseline_overview[e][-1] for e in ("edges", "key_edges")] == [
            expected.sizes[d] for d in ("query", "key")
        ]
        assert widget.figure().data[0].z.shape == tuple(expected.sizes[d] for d in ("query", "key"))
    handle.remove()


def test_the_page_chooses_the_stack(one, widget):
    def choose(stack):
        content = {"data": {"method": "update", "state": {"stack": stack}, "buffer_paths": []}}
        widget._handle_msg({"content": content, "buffers": []})

    choose("encoder")
    assert (widget._overview["stack"], widget._detail["stack"]) == ("encoder", "encoder")
    choose("middle")
    assert widget.stack == "encoder"
    assert widget._status["state"] == "error"


def test_clicks_act_in_the_stack_that_is_shown(one, widget):
    widget.cut(1, 1, query=3, key=4)
    widget.ablate(0, 1)
    widget.wait(30)
    acting = [iw.CutEdge(layer=1, head=1, query=3, key=4, stack="cross"), iw.Ablate("cross.z", layer=0, head=1)]
    assert list(one.interventions) == acting
    assert (widget._overview["cut"], widget._overview["ablated"]) == ([[1, 1, 3, 4]], [[0, 1, "zero"]])
    assert [e["label"] for e in widget._experiments] == ["cross L1H1 cut 3 → 4", "cross.z L0H1 → 0"]
    run = one.run(PROMPT, "cross.pattern", acting)
    assert close(head(widget), run["cross.pattern"].sel(layer=1, head=1))
    probability = torch.from_numpy(run.logits.values[-1]).softmax(-1)
    assert all(row["now"] == pytest.approx(float(probability[row["id"]])) for row in widget._predictions["rows"])
    widget.stack = "decoder"
    assert (widget._overview["cut"], widget._overview["ablated"]) == ([], [])
    widget.cut(1, 1, query=3, key=2)
    widget.cut(1, 1, query=3, key=4, stack="cross")  # restores it
    widget.wait(30)
    assert iw.CutEdge(layer=1, head=1, query=3, key=2) in list(one.interventions)
    assert acting[0] not in list(one.interventions)


def test_what_does_not_exist_is_refused_by_its_stack(one, widget):
    with pytest.raises(ValueError, match="no edge from query 3 to key 5: there are 4 queries and 5 keys"):
        widget.cut(1, 1, query=3, key=5)
    with pytest.raises(ValueError, match="keys come before queries, and there are 4 tokens"):
        widget.cut(1, 1, query=1, key=2, stack="decoder")
    n_encoder = one.engine.architecture.stacks["encoder"].n_layers
    with pytest.raises(ValueError, match=f"layer {n_encoder}: its encoder has layers 0 to {n_encoder - 1}"):
        widget.select(n_encoder, 0, "encoder")
    widget.select(2, 3)
    widget.stack = "encoder"
    assert (widget.layer, widget.head) == (
        min(2, n_encoder - 1),
        min(3, one.engine.architecture.stacks["encoder"].n_heads[0] - 1),
    )


def test_an_encoder_that_shows_no_pattern_is_not_offered():
    config = {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    model = AutoModelForSeq2SeqLM.from_config(_long_t5(**config))
    with iw.Session(model.eval()) as session:
        widget = iw.AttentionPattern(session, PROMPT)
        widget.wait(30)
        assert widget._baseline_overview["stacks"] == ["decoder", "cross"]
        with pytest.raises(ValueError, match="shows no attention in stack 'encoder': it has 'decoder', 'cross'"):
            widget.select(0, 0, "encoder")


def _long_t5(**sizes):
    from transformers import LongT5Config

    return LongT5Config(**sizes, decoder_start_token_id=0)


def test_a_model_without_an_encoder_has_one_stack():
    from tests.models import tiny

    with iw.Session(tiny("llama")) as session:
        widget = iw.AttentionPattern(session, [5, 6, 7])
        widget.wait(30)
        assert widget._baseline_overview["stacks"] == ["decoder"]
        with pytest.raises(ValueError, match="shows no attention in stack 'cross'"):
            iw.AttentionPattern(session, [5, 6, 7], stack="cross")


def test_either_text_is_typed_alone(one, widget):
    widget.run({"source": "60, 8"})
    widget.wait(30)
    assert (widget._prompt["source"]["tokens"][0]["id"], len(widget._prompt["tokens"])) == (60, 4)
    widget.run({"target": "3"})
    widget.wait(30)
    assert [t["id"] for t in widget._prompt["tokens"]] == [one.model.config.decoder_start_token_id, 3]
    assert len(widget._prompt["source"]["tokens"]) == 2


def test_code_and_static_frame_are_of_the_stack(one, widget):
    assert "stack" not in widget.code()  # cross attention is what is shown first
    widget.stack = "encoder"
    assert widget.code().endswith("stack='encoder')\nwidget")
    widget.select(1, 1, "cross")
    widget.edge = [0, 4]  # a key that no decoder's own pattern has
    names = {"session": one}
    exec(widget.code(), names)
    rebuilt = names["widget"]
    rebuilt.wait(30)
    assert head(rebuilt).shape == (4, 5)
    assert rebuilt.edge == [0, 4]
    rebuilt.close()
    assert "attention of cross L1H1, query (row) to key (column)" in widget.static_frame()


def test_the_lens_reads_the_decoder(one):
    read = iw.logit_lens(one, PROMPT, metric=["probability", "kl"])
    assert read.sizes["position"] == len(TARGET) + 1
    last = torch.from_numpy(logits(one)).softmax(-1).max(-1).values
    assert close(read["probability"].values[-1], last)
    assert np.abs(read["kl"].values[-1]).max() < 1e-5
    lens = iw.LogitLens(one, PROMPT)
    lens.wait(30)
    lens.replace(2, token=60)
    lens.wait(30)
    assert [t["id"] for t in lens._prompt["tokens"]][1:] == [7, 60, 11]
    assert [t["id"] for t in lens._prompt["source"]["tokens"]] == list(SOURCE)
    with pytest.raises(ValueError, match="the decoder begins with"):
        lens.replace(0, token=60)
    lens.close()


@pytest.mark.filterwarnings("ignore::interpwidgets.session.NoEffectWarning")
@pytest.mark.parametrize("site", ["resid_pre", "z"])
def test_a_sweep_of_the_decoder_is_one_forward_a_cell(one, site):
    clean, corrupted = PROMPT, iw.SourceTarget((5, 17, 60, 44), (7, 8, 12))
    swept = iw.patch_sweep(one, clean, corrupted, site, 3, 9, normalize=False)
    expected = np.empty(swept.shape)
    for layer, other in np.ndindex(*swept.shape):
        where = {"position": other} if site == "resid_pre" else {"head": other}
        out = logits(one, corrupted, [iw.Patch(site, layer=layer, source=clean, **where)])[-1]
        expected[layer, other] = out[3] - out[9]
    assert np.abs(swept.values - expected).max() < 1e-4


def one_by_one(session, prompt, swept, patch):
    """The logit difference of each cell's own forward pass."""
    expected = np.full(swept.shape, np.nan)
    for index in np.ndindex(*swept.shape):
        at = {dim: int(swept[dim][i]) for dim, i in zip(swept.dims, index, strict=True)}
        out = logits(session, prompt, [patch(**at)])[-1]
        expected[index] = out[3] - out[9]
    return expected


@pytest.mark.filterwarnings("ignore::interpwidgets.session.NoEffectWarning")
@pytest.mark.parametrize("site", ["encoder.resid_pre", "encoder.z", "cross.attn_out", "cross.z", "cross.k"])
def test_a_sweep_of_the_encoder_and_of_cross_attention_is_one_forward_a_cell(one, site):
    clean, corrupted = PROMPT, iw.SourceTarget((5, 17, 60, 44, 9), TARGET)
    swept = iw.patch_sweep(one, clean, corrupted, site, 3, 9, normalize=False)
    stack = one.engine.architecture.stack(site)
    assert swept.sizes["layer"] == stack.n_layers
    expected = one_by_one(one, corrupted, swept, lambda **at: iw.Patch(site, source=clean, **at))
    assert np.abs(swept.values - expected).max() < 1e-4
    assert np.ptp(swept.values) > 1e-3
    if site == "encoder.resid_pre":
        assert list(swept["corrupted_token"].values) == ["5", "17", "60", "44", "9"]


@pytest.mark.filterwarnings("ignore::interpwidgets.session.NoEffectWarning")
def test_edges_of_cross_attention_are_ablated_one_by_one(one):
    swept = iw.ablation_sweep(one, PROMPT, "cross.pattern", layer=1, head=1, answer=3, foil=9)
    assert swept.dims == ("query", "key")
    assert swept.shape == (len(TARGET) + 1, len(SOURCE))
    assert list(swept["key_token"].values) == [str(i) for i in SOURCE]
    out = logits(one)[-1]

    def cut(query, key):
        return iw.CutEdge(layer=1, head=1, query=query, key=key, renormalize=False, stack="cross")

    expected = one_by_one(one, PROMPT, swept, cut) - (out[3] - out[9])
    assert np.abs(swept.values - expected).max() < 1e-4


def test_sources_of_another_length_are_compared_by_the_decoders_positions_only(one):
    other = iw.SourceTarget((5, 17, 60, 44), TARGET)
    assert iw.patch_sweep(one, PROMPT, other, "cross.z", 3, 9).dims == ("layer", "head")
    with pytest.raises(
        ValueError, match="the sources must have the same number of tokens: clean has 5, corrupted has 4"
    ):
        iw.patch_sweep(one, PROMPT, other, "encoder.resid_pre", 3, 9)


def test_the_heatmap_says_what_works_instead(one):
    with pytest.raises(ValueError, match=r"iw\.patch_sweep"):
        iw.PatchingHeatmap(one, clean=PROMPT, corrupted=PROMPT)
