"""Bad input gets a clear answer: what was given, what would be right, in Python and drawn in the widgets."""

from __future__ import annotations

import gc
import re
import warnings

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Model

import interpwidgets as iw
from interpwidgets.engine.limits import Context, ContextWarning
from interpwidgets.engine.ready import TokenizerWarning
from interpwidgets.methods.patching import TokenWarning, ZeroGapWarning
from tests.clicks import click
from tests.models import FAMILIES, tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)
CORRUPTED = (5, 17, 3, 21, 17, 60, 9, 91)
LONG = tuple(range(5, 75))  # six tokens more than the tiny models' 64 positions


@pytest.fixture
def learned():
    """GPT-2 learns a vector for each of 64 positions."""
    with iw.Session(tiny("gpt2")) as session:
        yield session


@pytest.fixture
def text():
    with iw.Session(tiny("llama", vocab_size=VOCABULARY), byte_level(add_bos=False)) as session:
        yield session


def every_way(session, prompt):
    """Each way in which a prompt is run."""
    return [
        lambda: session.run(prompt),
        lambda: session.generate(prompt, 1),
        lambda: session.sweep(prompt, [[iw.Ablate("z", layer=0, head=0)]], lambda x: x[:, 0]),
        lambda: iw.attention_patterns(session, prompt),
        lambda: iw.logit_lens(session, prompt),
        lambda: iw.patch_sweep(session, prompt, prompt),
        lambda: iw.AttentionPattern(session, prompt),
        lambda: iw.LogitLens(session, prompt),
        lambda: iw.PatchingHeatmap(session, clean=prompt, corrupted=prompt),
    ]


def drawn(widget, op, **arguments):
    """The text of the error that a click draws; the picture must stay."""
    for ticket in list(widget._tickets.values()):
        assert ticket.wait(30)
    with widget.session.publishing:  # a job counts as ended while it hands its results over
        before = {name: getattr(widget, name) for name in ("_overview", "_grid", "_sweep") if hasattr(widget, name)}
    click(widget, op, **arguments)
    for ticket in list(widget._tickets.values()):
        assert ticket.wait(30)
    with widget.session.publishing:
        assert widget._status["state"] == "error"
        for name, shown in before.items():
            assert getattr(widget, name) is shown
        return widget._status["error"]["text"]


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [(), [], np.array([], int)])
def test_an_empty_prompt_is_refused_everywhere(session, prompt):
    for ask in every_way(session, prompt):
        with pytest.raises(ValueError, match="prompt is empty: at least one token is needed"):
            ask()


def test_empty_text_is_refused_and_drawn(text):
    for ask in every_way(text, ""):
        with pytest.raises(ValueError, match="prompt is empty: at least one token is needed, got ''"):
            ask()
    assert "prompt is empty" in drawn(iw.AttentionPattern(text, "the"), "run", prompt="")
    assert "prompt is empty" in drawn(iw.LogitLens(text, "the"), "run", prompt="")
    assert "prompt is empty" in drawn(
        iw.PatchingHeatmap(text, clean="the", corrupted="a"), "run", clean="", corrupted=""
    )


@pytest.mark.parametrize("prompt", [None, 5, {"input_ids": [1]}, [0.5], b"the", object()])
def test_what_is_no_prompt_is_refused(session, prompt):
    with pytest.raises(TypeError, match="a prompt is text or a sequence of token ids, got"):
        session.run(prompt)


def test_a_prompt_that_is_no_prompt_is_quoted_in_short(session):
    with pytest.raises(TypeError) as error:
        session.run({"text": "x" * 10_000})
    assert len(str(error.value)) < 300


def test_more_tokens_than_positions_are_refused_everywhere(learned):
    for ask in every_way(learned, LONG):
        with pytest.raises(ValueError, match="has 70 tokens: 6 more than the 64 positions that this model has"):
            ask()
    long = ", ".join(map(str, LONG))
    assert "6 more than the 64" in drawn(iw.LogitLens(learned, PROMPT), "run", prompt=long)


def test_what_would_be_generated_counts_too(learned):
    assert len(learned.generate(LONG[:60], 5)) == 65  # the last token is given out and never read
    with pytest.raises(ValueError, match="60 tokens of prompt and 6 to generate take 65 positions: 1 more than the 64"):
        learned.generate(LONG[:60], 6)


@pytest.mark.parametrize("number", [0, -1, 2.5, None])
def test_a_number_of_new_tokens_must_be_positive(session, number):
    with pytest.raises(ValueError, match=r"max_new_tokens=.*: a positive number is needed"):
        session.generate(PROMPT, number)


def test_more_tokens_than_were_trained_on_run_with_a_warning(session):
    with pytest.warns(ContextWarning, match="has 70 tokens: 6 more than the 64 that the model was trained on"):
        run = session.run(LONG)
    with torch.no_grad():
        plain = session.model(torch.tensor([LONG])).logits[0]
    assert np.allclose(run.logits, plain, atol=1e-5)
    with pytest.warns(ContextWarning):
        widget = iw.AttentionPattern(session, LONG)
    assert widget._prompt["bos"] == "ids as given · 6 more than the 64 that the model was trained on"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_refused_only_where_the_model_itself_cannot_run_it(family):
    model = tiny(family)
    with torch.no_grad():
        try:
            model(torch.tensor([LONG]))
            runs = True
        except (IndexError, RuntimeError):
            runs = False
    with iw.Session(model) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", ContextWarning)
        if runs:
            session.run(LONG)
        else:
            with pytest.raises(ValueError, match="6 more than the 64 positions"):
                session.run(LONG)


_SIZES = {
    "vocab_size": 97, "hidden_size": 32, "n_embd": 32, "d_model": 32, "num_hidden_layers": 2, "num_layers": 2,
    "n_layer": 2, "num_attention_heads": 4, "attention_heads": 4, "num_heads": 4, "n_head": 4, "intermediate_size": 48,
    "ffn_dim": 48, "dff": 48, "n_positions": 64, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {}),  # learned vectors
        ("opt", {}),  # two rows more than positions
        ("roberta", {"is_decoder": True}),  # counts from the row after that of padding
        ("gptj", {"rotary_dim": 4}),  # a stored table of rotations
        ("codegen", {"rotary_dim": 4, "n_head": 4}),
        ("gpt_neo", {"attention_types": [[["global", "local"], 1]]}),  # stored masks
        ("ctrl", {}),  # a stored table of sinusoids
        ("xglm", {}),  # a table of sinusoids that makes itself longer
        ("llama", {"num_key_value_heads": 2}),  # rotations computed as needed
        ("bloom", {}),  # ALiBi: says nothing of a length
    ],
)
def test_the_positions_that_a_model_has_are_those_it_runs(family, changes):
    config = AutoConfig.for_model(family)
    known = {k: v for k, v in _SIZES.items() if hasattr(config, k)}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(known | changes))).eval()
    context = Context.of(model)

    def runs(length):
        try:
            with torch.no_grad():
                model(torch.full((1, length), 5), use_cache=False)
        except (IndexError, RuntimeError):
            return False
        return True

    length = context.positions or 64
    assert runs(length)
    assert runs(length + 1) is not context.hard


@pytest.mark.parametrize("wrong", [97, -1, 10**9])
def test_tokens_outside_the_vocabulary_are_refused_everywhere(session, wrong):
    for ask in every_way(session, (5, 17, wrong, 3)):
        with pytest.raises(
            ValueError, match=rf"token id {wrong} is out of range.*97 entries \(ids 0 to 96\).*position 2"
        ):
            ask()
    for ask in (session.token_id, lambda i: iw.logit_lens(session, PROMPT, track=[i])):
        with pytest.raises(ValueError, match=rf"token id {wrong} is out of range: the vocabulary has ids 0 to 96"):
            ask(wrong)
    with pytest.raises(ValueError, match=f"token id {wrong} is out of range"):
        iw.patch_sweep(session, PROMPT, CORRUPTED, answer=wrong)
    assert "out of range" in drawn(iw.LogitLens(session, PROMPT), "track", token=wrong)
    assert "out of range" in drawn(iw.LogitLens(session, PROMPT), "replace", position=2, token=wrong)
    assert "out of range" in drawn(iw.AttentionPattern(session, PROMPT), "run", prompt=f"5, {wrong}")


def test_a_token_that_is_neither_text_nor_id_is_refused(session):
    with pytest.raises(TypeError, match=r"a token is text or an id, got float: 3.5"):
        session.token_id(3.5)


def test_ids_that_are_no_numbers_are_refused_without_a_tokenizer(session):
    lens = iw.LogitLens(session, PROMPT)
    for op, arguments in (("run", {"prompt": "5, x"}), ("replace", {"position": 0, "text": "x"})):
        assert "no tokenizer: type token ids, such as 5, 17, 3; got" in drawn(lens, op, **arguments)
    assert len(drawn(lens, "run", prompt="9" * 10_000)) < 300


def test_a_widget_that_is_refused_leaves_no_complaint_behind(session):
    with warnings.catch_warnings():
        warnings.simplefilter("error", pytest.PytestUnraisableExceptionWarning)
        for make in (iw.AttentionPattern, iw.LogitLens):
            with pytest.raises(ValueError, match="empty"):
                make(session, [])
        gc.collect()


# -- pairs, answers and foils ------------------------------------------------------------------------------------------

APART = """the prompts must have the same number of tokens: clean has 4, corrupted has 3; they differ first at \
position 1, where clean has 'a' and corrupted has '␣the'
the a ␣the s
the — ␣the s
    ^"""


def test_prompts_of_different_length_are_shown_aligned(text):
    clean, corrupted = "thea thes", "the thes"
    with pytest.raises(ValueError, match=f"^{re.escape(APART)}$"):
        iw.patch_sweep(text, clean, corrupted)
    with pytest.raises(ValueError, match="clean has 4, corrupted has 3"):
        iw.PatchingHeatmap(text, clean=clean, corrupted=corrupted)
    widget = iw.PatchingHeatmap(text, clean="the", corrupted="a")
    assert drawn(widget, "run", clean=clean, corrupted=corrupted) == APART


def test_a_prompt_that_begins_the_other_is_said_to_have_ended(text):
    with pytest.raises(ValueError, match="first at position 1, where clean has '␣the' and corrupted has ended"):
        iw.patch_sweep(text, "the the", "the")


def test_an_answer_of_several_tokens_is_offered_its_first(text):
    several = r"the answer ' thes' is 2 tokens, \['␣the', 's'\]: one is needed; its first token is ' the' \(id 261\)"
    for ask in (
        lambda: iw.patch_sweep(text, "the", "a", answer=" thes"),
        lambda: iw.patch_sweep(text, "the", "a", foil=" thes"),
        lambda: iw.logit_lens(text, "the", track=[" thes"]),
        lambda: iw.PatchingHeatmap(text, clean="the", corrupted="a", answer=" thes"),
    ):
        with pytest.raises(ValueError, match=several):
            ask()
    widget = iw.PatchingHeatmap(text, clean="the", corrupted="a")
    assert "its first token is ' the' (id 261)" in drawn(widget, "set", answer=" thes")
    assert "its first token is ' the' (id 261)" in drawn(iw.LogitLens(text, "the"), "track", token=" thes")


def test_a_space_too_many_is_hinted_at(text):
    with pytest.raises(ValueError, match=r"' a' is 2 tokens, .*; 'a', without the space, is one"):
        text.token_id(" a")


def test_a_missing_space_is_hinted_at():
    tokenizer = byte_level(add_bos=False)
    tokenizer.add_tokens([" Mary"])
    with (
        iw.Session(tiny("llama", vocab_size=VOCABULARY), tokenizer) as session,
        pytest.raises(ValueError, match=r"'Mary' is 4 tokens, .*; ' Mary', with a space, is one"),
    ):
        session.token_id("Mary")


def test_a_very_long_answer_is_quoted_in_short(text):
    with pytest.raises(ValueError, match=r"is 10000 tokens, .* and more: one is needed") as error:
        text.token_id("x" * 10_000)
    assert len(str(error.value)) < 300
    with pytest.raises(ValueError, match="the answer is empty"):
        text.token_id("")


def test_an_answer_whose_twin_after_a_space_is_likelier_is_warned_of(text):
    prompts = ("the a", "the s")
    read = sum(text.run(p, capture="ln_final")["ln_final"][-1].values for p in prompts)
    with torch.no_grad():
        text.model.lm_head.weight[text.token_id("the")] = 0
        text.model.lm_head.weight[text.token_id(" the")] = torch.from_numpy(read)
    with pytest.warns(TokenWarning, match=r"answer 'the' has no leading space; '␣the' \(id 261\) is likelier"):
        iw.patch_sweep(text, *prompts, answer="the", foil="s")
    sets = [[iw.Site("z", layer=0)]]
    with pytest.warns(TokenWarning, match=r"answer 'the' has no leading space; .* is likelier in both runs"):
        iw.patch_sets(text, *prompts, sets, answer="the", foil="s")
    with pytest.warns(TokenWarning, match=r"foil 'the' has no leading space; '␣the' \(id 261\) is likelier: is that"):
        iw.ablation_sweep(text, prompts[0], answer="s", foil="the")
    pairs = [(*prompts, answer, "s") for answer in ("the", " the", "the")]
    with pytest.warns(TokenWarning, match=r"in pairs \[0, 2\]: of pair 0, the answer 'the' has no leading") as warned:
        iw.patch_pairs(text, pairs)
    assert [w.category for w in warned] == [TokenWarning]
    widget = iw.PatchingHeatmap(text, clean=prompts[0], corrupted=prompts[1], answer="the", foil="s")
    widget.wait(30)
    assert "'the' has no leading space" in widget._status["message"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iw.patch_sweep(text, *prompts, answer=" the", foil="s")
        iw.patch_sweep(text, *prompts, foil="s")
        iw.patch_sets(text, *prompts, sets, answer=" the", foil="s")
        iw.ablation_sweep(text, prompts[0], answer=" the", foil="s")
        iw.patch_pairs(text, pairs[1:2])
    with torch.no_grad():
        text.model.lm_head.weight[text.token_id(" the")] *= -1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iw.patch_sweep(text, *prompts, answer="the", foil="s")


def test_an_answer_that_is_its_own_foil_is_refused(session):
    with pytest.raises(ValueError, match=r"answer and foil are both '44' .id 44., .* give another foil"):
        iw.patch_sweep(session, PROMPT, CORRUPTED, answer=44, foil=44)
    top = int(session.run(PROMPT).prediction.argmax())
    with pytest.raises(ValueError, match=rf"answer \(the clean run's top prediction\) and foil are both '{top}'"):
        iw.patch_sweep(session, PROMPT, CORRUPTED, foil=top)
    widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED)
    assert "answer and foil are both '44'" in drawn(widget, "set", answer=44, foil=44)
    iw.patch_sweep(session, PROMPT, CORRUPTED, answer=44, foil=44, metric="probability")  # which has no use for a foil


def test_without_a_gap_raw_values_are_given_with_a_warning(session):
    with pytest.warns(ZeroGapWarning, match="score the same .* raw values are given"):
        effect = iw.patch_sweep(session, PROMPT, PROMPT)
    assert not effect.attrs["normalized"]
    assert effect.attrs["units"] == "logits"
    assert np.allclose(effect, effect.attrs["clean"])
    widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=PROMPT)
    widget.wait(30)
    assert widget._sweep["gap_is_zero"]
    assert "the prompts are the same" in widget.static_frame()


# -- names and places --------------------------------------------------------------------------------------------------


def test_a_site_that_the_model_lacks_is_answered_with_those_it_has():
    with iw.Session(tiny("phi")) as session:
        lacks = "layer 0 of this model has no 'resid_mid'; it has resid_pre, q, k, v, scores, pattern, z, "
        for ask in (
            lambda: session.run(PROMPT, capture="resid_mid"),
            lambda: session.run(PROMPT, interventions=[iw.Ablate("resid_mid", layer=0)]),
            lambda: session.generate(PROMPT, 2, [iw.Ablate("resid_mid")]),
            lambda: iw.patch_sweep(session, PROMPT, CORRUPTED, "resid_mid"),
            lambda: iw.logit_lens(session, PROMPT, interventions=[iw.Ablate("resid_mid", layer=0)]),
        ):
            with pytest.raises(ValueError, match=lacks):
                ask()
        with pytest.raises(ValueError, match="'resid_mid' cannot be patched here; this model has resid_pre"):
            iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED, site="resid_mid")
        session.interventions.append(iw.Ablate("resid_mid", layer=0))
        widget = iw.LogitLens(session, PROMPT)
        with pytest.raises(ValueError, match=lacks):
            widget.wait(30)
        assert "has no 'resid_mid'" in widget._status["error"]["text"]


def test_unknown_names_are_answered_with_the_nearest(session):
    for ask, message in (
        (lambda: session.run(PROMPT, capture="resid_prost"), "unknown site 'resid_prost'; did you mean 'resid_post'"),
        (lambda: iw.patch_sweep(session, PROMPT, CORRUPTED, "zz"), "unknown site 'zz'"),
        (lambda: iw.logit_lens(session, PROMPT, "entropie"), "unknown metric 'entropie'; did you mean 'entropy'"),
        (lambda: iw.patch_sweep(session, PROMPT, CORRUPTED, metric="logit-diff"), "did you mean 'logit_diff'"),
        (lambda: iw.patch_sweep(session, PROMPT, CORRUPTED, direction="noising"), "did you mean 'noise'"),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (iw.Ablate("z", layer=4), r"layer 4 is out of range: there are 4 \(layers 0 to 3\)"),
        (iw.Ablate("z", layer=-5), "layer -5 is out of range: there are 4"),
        (iw.Ablate("z", layer=0, head=4), r"head 4 is out of range: there are 4 \(heads 0 to 3\)"),
        (iw.Ablate("k", layer=0, head=2), "key/value head 2 is out of range: there are 2"),
        (iw.Ablate("z", layer=0, position=8), r"position 8 is out of range: there are 8 \(positions 0 to 7\)"),
        (iw.CutEdge(layer=0, head=0, query=8, key=0), "position 8 is out of range"),
        (iw.CutEdge(layer=0, head=0, query=7, key=9), "key 9 is out of range"),
        (
            iw.Ablate("z", layer=0, position=slice(8, 12)),
            r"position slice\(8, 12, None\) addresses nothing: there are 8",
        ),
        (iw.Ablate("z", layer=slice(4, None)), r"layer slice\(4, None, None\) addresses nothing: there are 4"),
        (iw.Ablate("z", layer=0, head=()), r"head \(\) addresses nothing"),
        (iw.Patch("z", layer=0, source=PROMPT, source_layer=1, source_position=8), "source position 8 is out of range"),
    ],
)
def test_a_place_out_of_range_is_answered_with_the_range(session, intervention, message):
    for ask in (
        lambda: session.run(PROMPT, interventions=[intervention]),
        lambda: session.generate(PROMPT, 2, [intervention]),
        lambda: session.sweep(PROMPT, [[intervention]], lambda x: x[:, 0]),
        lambda: iw.attention_patterns(session, PROMPT, [intervention]),
        lambda: iw.patch_sweep(session, PROMPT, CORRUPTED, interventions=(intervention,)),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (iw.Site("z", layer=4), "layer 4 is out of range: there are 4"),
        (iw.Site("z", head=4), "head 4 is out of range: there are 4"),
        (iw.Site("k", head=2), "head 2 is out of range: there are 2"),
        (iw.Site("z", position=(0, 8)), "position 8 is out of range: there are 8"),
        (iw.Site("resid_post", position=slice(9, None)), "addresses nothing: there are 8"),
    ],
)
def test_a_capture_out_of_range_is_answered_with_the_range(session, site, message):
    with pytest.raises(ValueError, match=message):
        session.run(PROMPT, capture=site)


def test_a_sweep_of_a_layer_out_of_range_is_answered_with_the_range(session):
    with pytest.raises(ValueError, match=r"layer 4 is out of range: there are 4 \(layers 0 to 3\)"):
        iw.patch_sweep(session, PROMPT, CORRUPTED, "z", layer=4)
    with pytest.raises(ValueError, match=r"layer=2 shows the heads of a layer .z, q, k, v.; 'resid_pre' has none"):
        iw.patch_sweep(session, PROMPT, CORRUPTED, "resid_pre", layer=2)


def test_neurons_are_listed_where_none_are_chosen(session):
    for count in (20, np.int64(20)):
        with pytest.raises(TypeError, match=r"neurons=20: this map takes a list of neurons; patch_sweep\("):
            iw.ablation_sweep(session, PROMPT, "mlp_post", layer=3, neurons=count)
        with pytest.raises(TypeError, match="neurons=20: this map takes a list"):
            iw.patch_pairs(session, [(PROMPT, CORRUPTED)], "mlp_post", layer=3, neurons=count)
    assert iw.patch_sweep(session, PROMPT, CORRUPTED, "mlp_post", layer=3, neurons=np.int64(4)).shape == (4,)


def test_a_layer_in_the_name_of_a_swept_site_is_not_lost(session):
    named = iw.patch_sweep(session, PROMPT, CORRUPTED, "blocks.2.attn.hook_z")
    assert named.dims == ("head", "position")
    assert np.array_equal(named, iw.patch_sweep(session, PROMPT, CORRUPTED, "z", layer=2))


def test_a_way_to_ablate_that_is_none_restores_nothing(session):
    attention = iw.AttentionPattern(session, PROMPT, linked=False)
    attention.ablate(1, 2)
    assert "how='resample' needs reference=" in drawn(attention, "ablate", layer=1, head=2, how="resample")
    assert len(attention.experiments) == 1


def test_places_out_of_range_are_drawn(session):
    attention, lens = iw.AttentionPattern(session, PROMPT), iw.LogitLens(session, PROMPT)
    heatmap = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED)
    assert "layers 0 to 3, heads 0 to 3" in drawn(attention, "select", layer=0, head=4)
    assert "layers 0 to 3, heads 0 to 3" in drawn(attention, "ablate", layer=-1, head=0)
    assert "there are 8 tokens" in drawn(attention, "cut", layer=0, head=0, query=8, key=0)
    assert "position 8 is out of range" in drawn(lens, "replace", position=8, token=5)
    assert "layers are -1 to 3, positions 0 to 7" in drawn(lens, "transplant_cells", source=[0, 0], target=[5, 0])
    assert "layer 4 is out of range: there are 4" in drawn(heatmap, "drill", layer=4)
    cell = {"site": "resid_pre", "layer": 9, "head": None, "position": 0}
    assert "layer 9 is out of range: there are 4" in drawn(heatmap, "patch", cells=[cell])


def test_what_is_no_intervention_or_capture_is_refused(session):
    ablation = iw.Ablate("z", layer=0, head=0)
    for ask in (session.run, lambda p, interventions: session.generate(p, 1, interventions)):
        with pytest.raises(
            TypeError, match=r"a list of interventions is needed, \[iw.Ablate\('z', layer=0, head=0\)\]"
        ):
            ask(PROMPT, interventions=ablation)
        with pytest.raises(TypeError, match=r"an intervention is needed, such as .* got 'z'"):
            ask(PROMPT, interventions=["z"])
    with pytest.raises(TypeError, match=r"an intervention is needed, such as .* got 'z'"):
        session.sweep(PROMPT, [["z"]], lambda logits: logits[:, 7])
    with pytest.raises(TypeError, match="capture=5: site names or"):
        session.run(PROMPT, capture=5)


def test_an_array_that_does_not_fit_the_positions_is_refused(session):
    three = iw.Patch("resid_pre", layer=0, source=np.ones((3, 32)))
    with pytest.raises(ValueError, match="the array has 3 positions, 8 are addressed"):
        session.run(PROMPT, interventions=[three])


def test_no_reference_and_no_top_tokens_are_refused(session):
    with pytest.raises(ValueError, match="reference= is empty: one prompt or several are needed"):
        iw.Ablate("z", layer=0, how="mean", reference=[])
    with pytest.raises(ValueError, match="top_k=0: a positive number is needed"):
        iw.logit_lens(session, PROMPT, top_k=0)


# -- models and tokenizers ---------------------------------------------------------------------------------------------


def test_a_model_in_training_mode_is_refused_with_the_reason():
    model = tiny("gpt2").train()
    with pytest.raises(ValueError, match=r"has dropout: two runs would differ by chance. Call model.eval\(\) first"):
        iw.Session(model)
    with iw.Session(model.eval()) as session:
        widget = iw.AttentionPattern(session, PROMPT)
        widget.wait(30)
        model.train()
        assert "two runs would differ" in drawn(widget, "run", prompt="5, 17")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gpt2", r"a model is needed, not its name: iw.load\('gpt2'\) loads it"),
        (None, "a Hugging Face language model is needed, .* got NoneType"),
        (torch.nn.Linear(2, 2), "a Hugging Face language model is needed, .* got Linear"),
    ],
)
def test_what_is_no_model_is_refused(model, message):
    with pytest.raises(TypeError, match=message):
        iw.Session(model)


def test_a_model_on_the_meta_device_is_refused():
    with torch.device("meta"):
        model = tiny("llama")
    with pytest.raises(ValueError, match=r"on the meta device: 'model.embed_tokens' has shapes but no values"):
        iw.Session(model)


def test_a_base_model_without_a_head_is_refused():
    with pytest.raises(iw.UnsupportedModel, match="GPT2Model gives no logits: load it with AutoModelForCausalLM"):
        iw.Session(GPT2Model(tiny("gpt2").config).eval())


def test_weights_without_a_head_are_not_given_a_random_one(tmp_path):
    tiny("llama", vocab_size=VOCABULARY).model.save_pretrained(tmp_path)
    byte_level(add_bos=True).save_pretrained(tmp_path)
    with pytest.raises(iw.UnsupportedModel, match=r"without a language-model head: 'lm_head.weight' not among"):
        iw.load(str(tmp_path))


def test_a_head_tied_to_the_embedding_is_not_missing(tmp_path):
    tiny("llama", vocab_size=VOCABULARY, tie_word_embeddings=True).model.save_pretrained(tmp_path)
    byte_level(add_bos=True).save_pretrained(tmp_path)
    with iw.load(str(tmp_path)) as session:
        assert session.checked.ok


def test_what_is_no_tokenizer_is_refused():
    class Processor:
        tokenizer = byte_level(add_bos=False)

    with pytest.raises(TypeError, match=r"a tokenizer is needed, .* got 'gpt2'"):
        iw.Session(tiny("llama"), "gpt2")
    with pytest.raises(TypeError, match=r"give its .tokenizer"):
        iw.Session(tiny("llama"), Processor())


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(
        ValueError, match="has 262 tokens, and the model's vocabulary 97 entries: this is another model's"
    ):
        iw.Session(tiny("llama"), byte_level(add_bos=False))


def test_a_tokenizer_that_is_much_too_small_is_warned_of():
    with (
        pytest.warns(
            TokenizerWarning, match="262 tokens, and the model's vocabulary 1000 entries: is this the model's"
        ),
        iw.Session(tiny("llama", vocab_size=1000), byte_level(add_bos=False)) as session,
    ):
        session.run("the")


def test_tokens_that_were_added_without_making_room_are_refused_when_used():
    tokenizer = byte_level(add_bos=False)
    tokenizer.add_tokens(["<new>"])
    with pytest.warns(TokenizerWarning, match="added from id 262 on are refused; model.resize_token_embeddings"):
        session = iw.Session(tiny("llama", vocab_size=262), tokenizer)
    with session:
        session.run("the")
        with pytest.raises(
            ValueError, match=r"token id 262 is out of range.*position 1 of the prompt.*gives for '<new>'"
        ):
            session.run("the<new>")
