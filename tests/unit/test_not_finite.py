"""NaN and infinity are never shown: the error says at which site, layer and position they begin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interpwidgets as iw
from interpwidgets.engine.finite import NotFinite
from interpwidgets.methods.predictions import compare_predictions
from interpwidgets.sweeping import NotFiniteWarning
from tests.models import tiny
from tests.unit.test_bad_input import PROMPT, drawn, every_way


def first_bad_module(model, ids):
    """The first module, as it ends, whose output is not finite, without our engine; the deepest of several."""
    bad = []

    def watch(name):
        def hook(module, args, output):
            value = output[0] if isinstance(output, tuple) else output
            if isinstance(value, torch.Tensor) and not value.isfinite().all():
                bad.append((name, int((~value[0].isfinite()).any(-1).nonzero()[0])))

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in model.named_modules() if name]
    with torch.no_grad():
        model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return bad[0] if bad else None


def overflowing(layer=2, **changes):
    """A float16 model whose MLP overflows in this layer where the prompt has token 60, and nowhere else."""
    model = tiny("llama", **changes).half()
    mlp = model.model.layers[layer].mlp
    with torch.no_grad():
        # One coordinate of the stream belongs to token 60: no other writes to it.
        for weight in (model.model.embed_tokens.weight, *(p for n, p in model.named_parameters() if "_proj" in n)):
            if weight.shape[0] == model.config.hidden_size:
                weight[0] = 0
        model.model.embed_tokens.weight[:, 0] = 0
        model.model.embed_tokens.weight[60, 0] = 20
        mlp.up_proj.weight[:, 0] = 1000
        mlp.gate_proj.weight[:, 0] = 1000
    return model


def test_an_overflow_is_named_by_where_it_begins():
    model = overflowing()
    assert first_bad_module(model, PROMPT[:5]) is None
    module, position = first_bad_module(model, PROMPT)
    assert (module, position) == ("model.layers.2.mlp.down_proj", 5)
    with iw.Session(model) as session:
        session.run(PROMPT[:5])
        begins = (
            r"not finite. It begins at 'mlp_post' of layer 2, position 5; half precision overflows easily: load the "
        )
        for ask in every_way(session, PROMPT)[:6]:
            with pytest.raises(NotFinite, match=begins):
                ask()
        assert begins.split(";")[0] in drawn(iw.LogitLens(session, PROMPT[:5]), "run", prompt=str(list(PROMPT))[1:-1])


def test_an_ordinary_run_asks_for_no_second_pass():
    model = tiny("llama")
    with iw.Session(model) as session:
        calls = []
        model.register_forward_hook(lambda *_: calls.append(1))
        session.run(PROMPT)
        assert len(calls) == 1


def test_an_intervention_that_overflows_is_named(session):
    worst = iw.Scale("resid_post", 1e38, layer=1, position=3)
    with pytest.raises(
        NotFinite, match=r"It begins at 'resid_post' of layer 1, position 3, where iw.Scale.*1e.38.* acts"
    ):
        session.run(PROMPT, interventions=[worst, iw.Scale("resid_post", 1e38, layer=1, position=3)])
    assert np.isfinite(session.run(PROMPT).logits).all()


def test_rows_of_a_sweep_that_overflow_are_warned_of_and_the_others_kept(session):
    rows = [[iw.Scale("resid_post", factor, layer=1, position=3)] for factor in (0.5, 1e38, 1e38, 2)]
    with pytest.warns(NotFiniteWarning, match=r"2 of 4 rows have no finite value. Of the first, .* where iw.Scale"):
        values = session.sweep(PROMPT, rows, lambda logits: logits[:, 7]).values
    assert np.isfinite(values).tolist() == [True, False, False, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named_at_load_and_later(value):
    model = tiny("llama")
    with iw.Session(model) as session:
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight[3, 4] = value
        named = "the weight 'model.layers.1.mlp.down_proj.weight' holds values that are not finite"
        with pytest.raises(NotFinite, match=f"It begins at 'mlp_out' of layer 1, position 0: {named}"):
            session.run(PROMPT)
        with pytest.raises(NotFinite, match=named):
            session.check()
    with pytest.raises(NotFinite, match=f"at the output of 'model.layers.1.mlp.down_proj': {named}"):
        iw.Session(model)


def test_a_token_that_the_model_forbids_is_no_fault(session):
    def forbid(module, args, output):
        output[..., 5] = -torch.inf

    session.model.lm_head.register_forward_hook(forbid)
    assert np.isneginf(session.run(PROMPT).logits[-1, 5])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_scores_that_overflow_are_not_shown_as_attention_to_nothing(implementation):
    model = overflowing(layer=1)
    own = model.model.layers[1]
    with torch.no_grad():
        own.mlp.up_proj.weight[:, 0] = own.mlp.gate_proj.weight[:, 0] = 0
        own.self_attn.q_proj.weight[:, 0] = own.self_attn.k_proj.weight[:, 0] = 100
    model.set_attn_implementation(implementation)
    with iw.Session(model) as session:
        assert np.isfinite(iw.attention_patterns(session, PROMPT[:5])).all()
        if implementation == "sdpa":  # the fused kernel has room for scores that float16 has not, and so have we
            assert np.isfinite(iw.attention_patterns(session, PROMPT)).all()
            return
        with pytest.raises(NotFinite, match="It begins at 'pattern' of layer 1, position 5; half precision overflows"):
            iw.attention_patterns(session, PROMPT)
        with pytest.raises(NotFinite, match="It begins at 'z' of layer 1, position 5"):
            session.run(PROMPT)


def test_a_token_that_a_model_forbids_adds_nothing_to_divergence_and_entropy(session):
    def forbid(module, args, output):
        output[..., 13] = -torch.inf
        return output

    corrupted = (*PROMPT[:3], 21, *PROMPT[4:])
    handle = session.model.lm_head.register_forward_hook(forbid)
    with torch.no_grad():
        logits = session.model(torch.tensor([PROMPT, corrupted])).logits[:, -1].double()
    allowed = [token for token in range(97) if token != 13]
    clean, other = logits[:, allowed].log_softmax(-1).numpy()
    divergence = (np.exp(clean) * (clean - other)).sum()
    swept = iw.patch_sweep(session, PROMPT, corrupted, metric="kl", normalize=False)
    assert swept.attrs["corrupted"] == pytest.approx(divergence, abs=1e-5)
    assert swept.values[0, 0] == pytest.approx(divergence, abs=1e-5)
    assert np.isfinite(swept).all()
    assert np.isfinite(iw.attribution_sweep(session, PROMPT, corrupted, metric="kl")).all()
    lens = iw.logit_lens(session, PROMPT, ["entropy", "kl"])
    assert lens.entropy[-1, -1] == pytest.approx(-(np.exp(clean) * clean).sum(), abs=1e-5)
    assert np.isfinite(lens.kl).all()
    _, kl = compare_predictions(session, {"clean": session.run(PROMPT), "corrupted": session.run(corrupted)})
    assert kl["corrupted"] == pytest.approx(divergence, abs=1e-5)
    handle.remove()


def test_a_metric_without_a_value_is_warned_of(session):
    with pytest.warns(NotFiniteWarning, match="metric of 1 of 2 rows is NaN, though the first one's logits are finite"):
        session.sweep(PROMPT, [[], [iw.Scale("resid_post", 2.0, layer=3)]], some_nan)


def some_nan(logits):
    return torch.where(torch.arange(len(logits)) == len(logits) - 1, torch.nan, logits[:, 7])
