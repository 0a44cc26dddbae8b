"""The logit lens against Hugging Face's hidden states, sent through the model's norm and unembedding by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interpwidgets as iw
from interpwidgets.methods.lens import UNITS, lens_run, read_stack
from tests.models import FAMILIES, tiny

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)
NORMS = (
    "transformer.ln_f", "gpt_neox.final_layer_norm", "model.norm", "model.final_layernorm",
    "model.decoder.final_layer_norm",
)  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def session(request):
    with iw.Session(tiny(request.param)) as session:
        yield session


@pytest.fixture(scope="module")
def llama():
    with iw.Session(tiny("llama")) as session:
        yield session


def by_hand(model, prompt=PROMPT):
    """Log-probabilities after the embedding and after every block, (layer, position, token)."""
    modules = dict(model.named_modules())
    norm = next(modules[name] for name in NORMS if name in modules)
    with torch.no_grad():
        out = model(torch.tensor([prompt]), output_hidden_states=True)
        # The last hidden state that Hugging Face gives has been through the norm already.
        streams = [model.get_output_embeddings()(norm(h[0])) for h in out.hidden_states[:-1]]
        cap = getattr(model.config, "final_logit_softcapping", None)
        if cap:
            streams = [torch.tanh(x / cap) * cap for x in streams]
        return torch.stack([*streams, out.logits[0]]).double().log_softmax(-1).numpy()


def targets_of(log_p, prompt=PROMPT):
    return np.array([*prompt[1:], log_p[-1, -1].argmax()])


def rank_of(log_p, token):
    """How many tokens are likelier, by sorting."""
    return int(np.flatnonzero(np.argsort(-log_p, kind="stable") == token)[0])


def test_last_row_is_the_models_own_prediction(session):
    with torch.no_grad():
        p = session.model(torch.tensor([PROMPT])).logits[0].softmax(-1)
    top = p.topk(5)
    lens = iw.logit_lens(session, PROMPT, top_k=5).isel(layer=-1)
    assert np.array_equal(lens.top_token, top.indices)
    assert np.abs(lens.top_probability - top.values.numpy()).max() < 1e-5


@pytest.mark.parametrize("metric", UNITS)
def test_metrics_by_hand(session, metric):
    log_p = by_hand(session.model)
    targets = targets_of(log_p)
    p = np.exp(log_p)
    at_target = np.take_along_axis(log_p, np.broadcast_to(targets, log_p.shape[:2])[..., None], -1)[..., 0]
    expected = {
        "probability": p.max(-1),
        "log_probability": log_p.max(-1),
        "entropy": -(p * log_p).sum(-1),
        "rank": [[rank_of(cell, t) for cell, t in zip(row, targets, strict=True)] for row in log_p],
        "kl": (p[-1] * (log_p[-1] - log_p)).sum(-1),
        "cross_entropy": np.where(np.arange(len(PROMPT)) == len(PROMPT) - 1, np.nan, -at_target),
    }[metric]
    lens = iw.logit_lens(session, PROMPT, metric)
    assert lens[metric].dims == ("layer", "position")
    assert lens[metric].attrs["units"] == UNITS[metric]
    np.testing.assert_allclose(lens[metric].values, expected, rtol=1e-4, atol=2e-5, equal_nan=True)


def test_layers_are_named_from_the_embedding_up(llama):
    lens = iw.logit_lens(llama, PROMPT)
    assert list(lens.layer.values) == [-1, 0, 1, 2, 3]
    with torch.no_grad():
        embedding = llama.model.get_input_embeddings()(torch.tensor(PROMPT))
        p = llama.model.lm_head(llama.model.model.norm(embedding)).softmax(-1)
    assert np.abs(lens.probability.sel(layer=-1).values - p.max(-1).values.numpy()).max() < 1e-5


def test_ranks_count_from_0(session):
    lens = iw.logit_lens(session, PROMPT, "rank")
    assert lens["rank"].values[-1, -1] == 0
    top = lens.top_token.values[..., 0]
    hits = top == lens.target.values
    assert (lens["rank"].values[hits] == 0).all()
    assert (lens["rank"].values[~hits] > 0).all()


def test_targets_are_the_next_tokens_and_then_the_models_own(session):
    lens = iw.logit_lens(session, PROMPT)
    assert np.array_equal(lens.target, targets_of(by_hand(session.model)))


def test_kl_of_the_last_layer_is_zero_and_positive_elsewhere(session):
    kl = iw.logit_lens(session, PROMPT, "kl").kl.values
    assert np.abs(kl[-1]).max() < 1e-6
    assert (kl[:-1] > 1e-4).all()


def test_cross_entropy_has_no_value_at_the_last_position(llama):
    values = iw.logit_lens(llama, PROMPT, "cross_entropy").cross_entropy.values
    assert np.isnan(values[:, -1]).all()
    assert np.isfinite(values[:, :-1]).all()


def test_top_tokens_are_the_likeliest_in_order(session):
    log_p = by_hand(session.model)
    lens = iw.logit_lens(session, PROMPT, top_k=7)
    assert lens.sizes["k"] == 7
    p = np.take_along_axis(np.exp(log_p), lens.top_token.values, -1)
    assert np.abs(lens.top_probability.values - p).max() < 1e-5
    assert np.abs(p - -np.sort(-np.exp(log_p), -1)[..., :7]).max() < 1e-5


def test_more_top_tokens_than_the_vocabulary_gives_all_of_it(llama):
    lens = iw.logit_lens(llama, (5, 17), top_k=1000)
    assert lens.sizes["k"] == 97
    assert np.abs(lens.top_probability.sum("k") - 1).max() < 1e-5


def test_tracked_tokens_have_their_probability_and_rank_everywhere(session):
    log_p = by_hand(session.model)
    lens = iw.logit_lens(session, PROMPT, track=[11, 7])
    assert list(lens.token.values) == [11, 7]
    for token in (11, 7):
        tracked = lens.sel(token=token)
        assert np.abs(tracked.tracked_probability.values - np.exp(log_p[..., token])).max() < 1e-5
        assert [[rank_of(cell, token) for cell in row] for row in log_p] == tracked.tracked_rank.values.tolist()


def test_only_what_was_asked_for_is_given(llama):
    assert set(iw.logit_lens(llama, PROMPT, ["kl", "rank"])) == {"top_token", "top_probability", "target", "kl", "rank"}


def test_a_single_token_is_a_prompt_too(llama):
    lens = iw.logit_lens(llama, (5,), list(UNITS))
    assert lens.sizes["position"] == 1
    assert np.abs(lens.probability.values[:, 0] - np.exp(by_hand(llama.model, (5,))).max(-1)[:, 0]).max() < 1e-5


def test_interventions_act_on_what_is_read(llama):
    cut = iw.Ablate("resid_post", layer=1, position=4)
    before, now = (iw.logit_lens(llama, PROMPT, "entropy", interventions=i).entropy.values for i in ((), [cut]))
    changed = np.abs(now - before) > 1e-6
    assert not changed[:2].any()  # the embedding and block 0
    assert not changed[:, :4].any()
    assert changed[2:, 4].all()
    run = llama.run(PROMPT, capture="resid_post", interventions=[cut])
    with torch.no_grad():
        last = llama.model.lm_head(llama.model.model.norm(torch.tensor(run["resid_post"].values[2])))
    log_p = last.log_softmax(-1)
    assert np.abs(now[3] - -(log_p.exp() * log_p).sum(-1).numpy()).max() < 1e-5


AT_THE_END = [
    iw.Scale("ln_final", 0.0),
    iw.Scale("ln_final", -2.0, position=-1),
    iw.Patch("ln_final", position=[2, 5], source=np.linspace(-1, 1, 32)),
]


@pytest.mark.parametrize("acting", AT_THE_END, ids=str)
def test_the_last_row_is_the_models_own_output_under_what_acts_behind_the_last_block(session, acting):
    def act(module, args):
        x = args[0].clone()
        match acting:
            case iw.Patch():
                x[:, [2, 5]] = torch.tensor(acting.source).to(x)
            case iw.Scale(position=None):
                x *= acting.factor
            case iw.Scale():
                x[:, -1] *= acting.factor
        return (x,)

    handle = session.model.get_output_embeddings().register_forward_pre_hook(act)
    with torch.no_grad():
        log_p = session.model(torch.tensor([PROMPT])).logits[0].double().log_softmax(-1).numpy()
    handle.remove()
    plain, lens = (
        iw.logit_lens(session, PROMPT, ["entropy", "kl", "rank"], top_k=97, track=[7], interventions=acting)
        for acting in ((), [acting])
    )
    last = lens.isel(layer=-1)
    p = np.take_along_axis(np.exp(log_p), last.top_token.values, -1)
    assert np.abs(p - last.top_probability).max() < 1e-5
    assert np.abs(last.entropy + (np.exp(log_p) * log_p).sum(-1)).max() < 1e-4
    assert np.abs(last.tracked_probability - np.exp(log_p)[:, 7]).max() < 1e-5
    assert last.target[-1] == log_p[-1].argmax()
    assert np.abs(last.kl).max() < 1e-5
    before = by_hand(session.model)[1]
    assert np.abs(lens.kl[1] - (np.exp(log_p) * (log_p - before)).sum(-1)).max() < 1e-4
    assert np.array_equal(lens.entropy[:-1], plain.entropy[:-1])


@pytest.mark.parametrize(
    "acting",
    [
        *AT_THE_END,
        iw.Ablate("z", layer=2, head=1, position=5),
        iw.Ablate("resid_post", layer=3, position=7),
        iw.Ablate("embed", position=0),
        iw.Ablate("resid_post", layer=0, position=2),
    ],
)
@pytest.mark.parametrize("metrics", [("probability", "rank"), tuple(UNITS)])
def test_reusing_a_reading_equals_reading_afresh(session, acting, metrics):
    plain = lens_run(session, PROMPT)
    known = plain, read_stack(session, plain, 5, [7], metrics)
    disturbed = lens_run(session, PROMPT, (acting,))
    fresh = read_stack(session, disturbed, 5, [7], metrics)
    reused = read_stack(session, disturbed, 5, [7], metrics, known=known)
    assert set(fresh) == set(reused)
    for name in fresh:
        np.testing.assert_allclose(reused[name].values, fresh[name].values, rtol=1e-4, atol=2e-5, equal_nan=True)
    assert not fresh.top_probability.equals(known[1].top_probability)
    back = read_stack(session, plain, 5, [7], metrics, known=(disturbed, fresh))
    for name in back:
        np.testing.assert_allclose(back[name].values, known[1][name].values, rtol=1e-4, atol=2e-5, equal_nan=True)


def test_a_reading_of_other_tokens_or_metrics_is_not_reused(llama):
    run = lens_run(llama, PROMPT)
    fresh = read_stack(llama, run, 5, [7, 11], ("entropy", "kl"))
    for other in (
        read_stack(llama, run, 5, [11, 7], ("entropy", "kl")),
        read_stack(llama, run, 5, [7, 11], ("entropy",)),
        read_stack(llama, run, 3, [7, 11], ("entropy", "kl")),
    ):
        again = read_stack(llama, run, 5, [7, 11], ("entropy", "kl"), known=(run, other))
        for name in fresh:
            np.testing.assert_allclose(again[name].values, fresh[name].values, rtol=1e-4, atol=2e-5)


def test_a_reading_fills_from_the_last_layer_down():
    long = tuple(range(3, 43))
    with iw.Session(tiny("llama")) as session:
        seen = []
        run = lens_run(session, long)
        final = read_stack(session, run, 5, partial=lambda part: seen.append(part.entropy.values.copy()))
    known = [int(np.isfinite(part).sum()) for part in seen]
    assert known == [64, 128, 192, 200]
    assert np.isfinite(seen[0][-1]).all()
    assert np.isnan(seen[0][0]).all()
    for part in seen:
        filled = np.isfinite(part)
        assert np.array_equal(part[filled], final.entropy.values[filled])


def test_an_unknown_metric_is_refused(llama):
    with pytest.raises(ValueError, match="unknown metric 'perplexity': one of probability, "):
        iw.logit_lens(llama, PROMPT, ["rank", "perplexity"])
