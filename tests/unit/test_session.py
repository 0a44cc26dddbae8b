"""A session answers right while its user goes on using the model: weights, hooks, threads, errors, several sessions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

import interpwidgets as iw
from interpwidgets.engine.context import current_pass
from tests.models import tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)
ABLATION = iw.Ablate("resid_post", layer=1, position=3)


@pytest.fixture
def model():
    return tiny("llama")


@pytest.fixture
def session(model):
    with iw.Session(model) as session:
        yield session


def plain(model, prompt=PROMPT):
    """The model's logits as its user gets them, (position, token)."""
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0]


def off_by(run, logits):
    return float(np.abs(run.logits.values - logits.float().numpy()).max() / logits.abs().max())


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def count_forwards(model):
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("prompt", [PROMPT, list(PROMPT), torch.tensor([PROMPT]), np.array(PROMPT)])
def test_ids_in_any_form_without_a_tokenizer(session, prompt):
    run = session.run(prompt)
    assert run.tokens.ids == PROMPT
    assert run.logits.dims == ("position", "token")
    assert off_by(run, plain(session.model)) < 1e-5


def test_a_list_of_prompts_gives_a_list_of_runs(session):
    runs = session.run([[5, 17, 3], (60, 8)], capture="z")
    assert [run["z"].sizes["position"] for run in runs] == [3, 2]
    assert off_by(runs[1], plain(session.model, (60, 8))) < 1e-5


def test_text_without_a_tokenizer_is_refused(session):
    with pytest.raises(TypeError, match="no tokenizer"):
        session.run("the")
    with pytest.raises(TypeError, match="answer as a token id"):
        session.token_id("the")


def test_text_runs_as_the_tokenizer_makes_it():
    with iw.Session(tiny("llama", vocab_size=VOCABULARY), byte_level(add_bos=True)) as session:
        runs = session.run(["the the", "the"])
        assert [run.tokens.strings for run in runs] == [("<s>", "the", "␣the"), ("<s>", "the")]
        assert off_by(runs[0], plain(session.model, runs[0].tokens.ids)) < 1e-5
        session.prepend_bos = False
        assert session.run("the the").tokens.strings == ("the", "␣the")


def test_the_same_ids_from_text_and_as_ids_keep_their_own_tokens():
    with iw.Session(tiny("llama", vocab_size=VOCABULARY), byte_level(add_bos=True)) as session:
        text = session.run("the")
        ids = session.run(text.tokens.ids)
        assert (text.tokens.text, ids.tokens.text) == ("the", None)
        assert np.array_equal(text.logits, ids.logits)


def leave_bos_out(session):
    session.prepend_bos = False


def change_the_tokenizer(session):
    session.tokenizer = byte_level(add_bos=False)


@pytest.mark.parametrize("change", [leave_bos_out, change_the_tokenizer])
def test_a_text_that_an_intervention_names_is_read_anew_when_it_is_read_otherwise(change):
    """Oracle: a session that is given the same prompts as token ids."""
    text, model = "the the the", tiny("llama", vocab_size=VOCABULARY)
    with iw.Session(model, byte_level(add_bos=True)) as session, iw.Session(model) as of_ids:
        longer = session.tokenize(text).ids
        for make in (
            lambda prompt: iw.Ablate("z", layer=1, how="mean", reference=prompt),
            lambda prompt: iw.Patch("resid_pre", layer=2, source=prompt, source_layer=1, source_position=0),
        ):
            session.prepend_bos, session.tokenizer = None, byte_level(add_bos=True)
            before = session.run(PROMPT, interventions=[make(text)])
            assert np.array_equal(before.logits, of_ids.run(PROMPT, interventions=[make(longer)]).logits)
            change(session)
            after = session.run(PROMPT, interventions=[make(text)])
            assert after.interventions == (make(text),)
            assert np.abs(after.logits - before.logits).max() > 1e-3
            assert np.array_equal(after.logits, of_ids.run(PROMPT, interventions=[make(longer[1:])]).logits)


def test_an_answer_of_several_tokens_is_refused_with_a_way_out():
    with iw.Session(tiny("llama", vocab_size=VOCABULARY), byte_level(add_bos=False)) as session:
        assert session.show_token(session.token_id(" the")) == "␣the"
        with pytest.raises(ValueError, match=r"is 2 tokens, \['␣the', 's'\]"):
            session.token_id(" thes")


def test_a_token_is_written_as_the_tokenizer_has_it_if_it_has_it():
    with iw.Session(tiny("llama", vocab_size=VOCABULARY + 5), byte_level(add_bos=False)) as session:
        assert session.token_text(session.token_id(" the")) == "Ġthe"
        assert session.token_text(VOCABULARY + 1) == session.show_token(VOCABULARY + 1) == f"[{VOCABULARY + 1}]"


def test_heads_that_share_keys_and_values_are_counted_apart(session):
    run = session.run(PROMPT, capture=[iw.Site("k", layer=1, head=1), iw.Site("q", layer=1, head=3)])
    assert [site.name for site in run.captured] == ["k", "q"]
    with pytest.raises(ValueError, match="key/value head 2 is out of range: there are 2"):
        session.run(PROMPT, interventions=[iw.Ablate("v", layer=0, head=2)])


def test_a_changed_weight_is_seen_at_once(session):
    before = session.run(PROMPT)
    with torch.no_grad():
        session.model.model.layers[2].mlp.down_proj.weight.mul_(2)
    after = session.run(PROMPT)
    assert off_by(after, plain(session.model)) < 1e-5
    assert np.abs(after.logits - before.logits).max() > 0.1


class TwoAdapters(torch.nn.Module):
    """What PEFT puts in a linear layer's place, with its attributes' names and types."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        self.lora = torch.nn.ModuleDict({n: torch.nn.Linear(32, base_layer.out_features, bias=False) for n in "ab"})
        self._active_adapter = ["a"]
        self.scaling = {"a": 1.0, "b": 1.0}

    def forward(self, x):
        return self.base_layer(x) + sum(self.scaling[n] * self.lora[n](x) for n in self._active_adapter)


def switch(model):
    model.model.layers[1].mlp.up_proj._active_adapter = ["b"]


def switch_in_place(model):
    model.model.layers[1].mlp.up_proj._active_adapter[0] = "b"


def scale(model):
    model.model.layers[1].mlp.up_proj.scaling["a"] = 3.0


@pytest.mark.parametrize("change", [switch, switch_in_place, scale])
def test_another_adapter_or_scale_is_seen_at_once(model, change):
    mlp = model.model.layers[1].mlp
    mlp.up_proj = TwoAdapters(mlp.up_proj)
    with iw.Session(model) as session:
        before = session.run(PROMPT)
        change(model)
        assert off_by(before, plain(model)) > 1e-3
        assert off_by(session.run(PROMPT), plain(model)) < 1e-5


def test_a_changed_config_is_seen_at_once():
    model = tiny("gemma2")
    with iw.Session(model) as session:
        before = session.run(PROMPT)
        model.config.final_logit_softcapping = None
        assert off_by(before, plain(model)) > 1e-3
        assert off_by(session.run(PROMPT), plain(model)) < 1e-5


def test_a_changed_weight_is_seen_by_sweeps(session):
    def sweep():
        return iw.patch_sweep(session, PROMPT, (*PROMPT[:6], 9, 91), "z", 7, 11, normalize=False)

    before = sweep()
    with torch.no_grad():
        session.model.model.layers[0].self_attn.v_proj.weight.mul_(-1)
    assert np.abs(sweep() - before).max() > 0.01


def test_weights_made_in_inference_mode_are_never_answered_from_the_cache():
    with torch.inference_mode():
        model = tiny("llama")
    with iw.Session(model) as session:
        before = session.run(PROMPT)
        with torch.inference_mode():
            model.lm_head.weight.mul_(2)
        assert off_by(session.run(PROMPT), plain(model)) < 1e-5
        assert np.abs(session.run(PROMPT).logits - before.logits).max() > 0.1


def cooler_attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """An attention function of the user's: like sdpa, with scores half as large."""
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling / 2, **kwargs)


AttentionInterface.register("cooler", cooler_attention)
AttentionMaskInterface.register("cooler", sdpa_mask)


def test_a_changed_attention_implementation_is_seen(session):
    before = session.run(PROMPT)
    session.model.set_attn_implementation("cooler")
    after = session.run(PROMPT)
    assert session.model.config._attn_implementation == "cooler"
    assert off_by(after, plain(session.model)) < 1e-5
    assert np.abs(after.logits - before.logits).max() > 0.1
    session.model.set_attn_implementation("eager")
    assert np.abs(session.run(PROMPT).logits - before.logits).max() < 1e-5 * np.abs(before.logits).max()


def test_attention_whose_scores_we_would_show_wrongly_fails_the_check(session):
    session.model.set_attn_implementation("cooler")
    with pytest.raises(iw.UnsupportedModel, match="instrumented logits equal plain logits: off by"):
        session.check()


def test_a_training_step_works_while_a_session_is_open(model):
    alone = tiny("llama")
    with iw.Session(model) as session:
        session.run(PROMPT, interventions=[ABLATION])
        for each in (model, alone):
            optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
            ids = torch.tensor([PROMPT])
            each.train()
            each(ids, labels=ids).loss.backward()
            optimizer.step()
            each.eval()
        grads = [p.grad for p in model.parameters()]
        assert all(torch.equal(a, b.grad) for a, b in zip(grads, alone.parameters(), strict=True))
        assert any(float(g.abs().max()) > 0 for g in grads)
        assert off_by(session.run(PROMPT), plain(alone)) < 1e-5


def test_training_mode_without_dropout_runs(session):
    session.model.train()
    assert off_by(session.run(PROMPT), plain(session.model)) < 1e-5


@pytest.mark.parametrize(
    ("family", "changes"),
    [("gpt2", {}), ("opt", {}), ("llama", {"attention_dropout": 0.5}), ("gemma2", {"attention_dropout": 0.5})],
)
def test_training_mode_with_dropout_is_refused(family, changes):
    model = tiny(family, **changes)
    with iw.Session(model) as session:
        model.train()
        for ask in (session.run, session.generate, lambda p: session.sweep(p, [[ABLATION]], lambda x: x[:, 0])):
            with pytest.raises(ValueError, match="training mode and has dropout"):
                ask(PROMPT)
    with pytest.raises(ValueError, match="training mode and has dropout"):
        iw.Session(model)


def test_the_same_question_is_asked_of_the_model_once(session):
    calls = count_forwards(session.model)
    first = session.run(PROMPT, capture=["z"], interventions=[ABLATION])
    again = session.run(list(PROMPT), capture=["z"], interventions=[iw.Ablate("resid_post", layer=1, position=3)])
    assert len(calls) == 1
    assert np.array_equal(first.logits, again.logits)
    session.run(PROMPT, capture=["z"])
    session.run(PROMPT, capture=["z", "v"])
    assert len(calls) == 3


@pytest.mark.parametrize(
    "part",
    [
        iw.Site("z", layer=2),
        iw.Site("z", layer=(0, 3), head=1),
        iw.Site("z", layer=2, head=(0, 2), position=slice(2, 5)),
        iw.Site("z", layer=1, position=-1),
    ],
)
def test_a_larger_capture_serves_a_part_of_it(part):
    with iw.Session(tiny("llama")) as fresh:
        expected = fresh.run(PROMPT, capture=part)[part]
    with iw.Session(tiny("llama")) as session:
        calls = count_forwards(session.model)
        session.run(PROMPT, capture=["z", "resid_post"])
        run = session.run(PROMPT, capture=part)
        assert len(calls) == 1
        assert run[part].equals(expected)
        assert [site.name for site in run.captured] == ["z"]


def test_a_source_of_every_layer_takes_two_runs_not_one_a_layer(session, model):
    source = (9, *PROMPT[1:])
    patch = iw.Patch("attn_out", source=source)
    calls = count_forwards(model)
    run = session.run(PROMPT, interventions=[patch])
    assert len(calls) == 3  # the first layer's source, all the others', and the patched run
    each = [
        iw.Patch("attn_out", layer=layer, source=session.run(source, capture="attn_out")["attn_out"].values[layer])
        for layer in range(4)
    ]
    assert off_by(run, torch.from_numpy(session.run(PROMPT, interventions=each).logits.values)) == 0


def test_changing_a_result_does_not_change_the_next_one(session):
    first = session.run(PROMPT, capture="z")
    kept = first["z"].values.copy()
    first["z"].values[:] = 0
    first.logits.values[:] = 0
    again = session.run(PROMPT, capture="z")
    assert np.array_equal(again["z"], kept)
    assert off_by(again, plain(session.model)) < 1e-5


def test_the_users_hooks_survive_and_see_no_intervention_in_plain_calls(model):
    seen = []
    early = model.model.layers[2].register_forward_hook(lambda m, a, out: seen.append(out.detach().clone()))
    bare = plain(model)
    with iw.Session(model) as session:
        late = model.model.layers[2].register_forward_hook(lambda m, a, out: seen.append(out.detach().clone()))
        session.run(PROMPT, interventions=[ABLATION])
        del seen[1:]
        assert torch.equal(plain(model), bare)
    assert torch.equal(plain(model), bare)
    assert len(seen) == 5
    assert all(torch.equal(value, seen[0]) for value in seen)
    early.remove()
    late.remove()


@pytest.mark.parametrize("kind", ["after", "before"])
def test_the_users_hook_on_the_unembedding_counts_in_sweeps(session, kind):
    head, other = session.model.lm_head, (*PROMPT[:6], 9, 91)
    if kind == "after":
        head.register_forward_hook(lambda module, args, output: output * 3)
    else:
        head.register_forward_pre_hook(lambda module, args: (args[0] * 3,))
    swept = iw.patch_sweep(session, PROMPT, other, "z", 7, 11, normalize=False)
    one = session.run(other, interventions=[iw.Patch("z", layer=2, head=1, source=PROMPT)]).logits[-1]
    assert float(swept[2, 1]) == pytest.approx(float(one[7] - one[11]), abs=1e-4)


def test_closing_takes_out_our_hooks_only(model):
    model.lm_head.register_forward_hook(lambda *_: None)
    before = hooks(model)
    session = iw.Session(model)
    assert hooks(model) > before
    session.close()
    assert hooks(model) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("layer", [0, 3])
def test_an_error_in_the_middle_leaves_nothing_behind(session, error, layer):
    def fail(*_):
        raise error("stop")

    block = session.model.model.layers[layer]
    for part in (block, block.self_attn.o_proj):
        handle = part.register_forward_hook(fail)
        with pytest.raises(error, match="stop"):
            session.run(PROMPT, capture="pattern", interventions=[ABLATION])
        with pytest.raises(error, match="stop"):
            session.generate(PROMPT, 3)
        handle.remove()
        assert current_pass.get() is None
        assert session.model.config._attn_implementation == "sdpa"
    alone = tiny("llama")
    assert torch.equal(plain(session.model), plain(alone))
    with iw.Session(alone) as fresh:
        expected = fresh.run(PROMPT, capture="pattern", interventions=[ABLATION])
    run = session.run(PROMPT, capture="pattern", interventions=[ABLATION])
    assert np.array_equal(run.logits, expected.logits)
    assert np.array_equal(run["pattern"], expected["pattern"])


def test_two_sessions_share_a_model_and_either_may_close_first(model):
    bare, before = plain(model), hooks(model)
    first, second = iw.Session(model), iw.Session(model)
    expected = first.run(PROMPT, interventions=[ABLATION])
    first.close()
    first.close()
    again = second.run(PROMPT, capture="z", interventions=[ABLATION])
    assert np.array_equal(again.logits, expected.logits)
    assert off_by(again, bare) > 0.01
    second.close()
    assert hooks(model) == before
    with iw.Session(model) as third:
        assert np.array_equal(third.run(PROMPT, interventions=[ABLATION]).logits, expected.logits)


def test_a_closed_session_refuses_instead_of_answering_without_interventions(model):
    session = iw.Session(model)
    session.close()
    asks = (session.run, session.generate, lambda p: session.sweep(p, [[ABLATION]], lambda x: x[:, 0]))
    for ask in (*asks, lambda _: session.check()):
        with pytest.raises(RuntimeError, match="session is closed"):
            ask(PROMPT)


def test_a_model_with_an_open_session_can_be_copied():
    model = tiny("llama")
    with iw.Session(model):
        twin = copy.deepcopy(model)
        ids = torch.tensor([[5, 17, 3]])
        assert torch.equal(twin(ids).logits, model(ids).logits)
