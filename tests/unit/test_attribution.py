"""Attribution patching is exact where the model is linear, and autograd's everywhere; what it cannot do it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import interpwidgets as iw
from interpwidgets.engine.gradient import NoGradient, gradient_bytes
from interpwidgets.engine.memory import NotEnoughMemory
from interpwidgets.methods.attribution import doubt, estimate_grid
from interpwidgets.methods.cells import grid
from interpwidgets.methods.task import patching_task
from tests.models import encoder_decoder, tiny

CLEAN = (5, 17, 3, 44, 17, 60, 8, 91)
CORRUPTED = (5, 17, 3, 21, 17, 60, 9, 91)
RESIDUAL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
HEADS = ("z", "q", "k", "v")
FORMS = [
    *[(site, {}) for site in (*RESIDUAL, *HEADS, "pattern")],
    *[(site, {"by_position": True}) for site in HEADS],
    *[(site, {"layer": 2}) for site in ("z", "k", "pattern", "mlp_post")],
    ("pattern", {"layer": 2, "head": 1}),
    ("mlp_post", {"layer": 1, "neurons": [7, 3]}),
]


def difference(logits):
    return logits[:, 7] - logits[:, 11]


def linear_gpt2():
    """A GPT-2 that is linear in its embedding: no norms, no activation function, every head attends uniformly."""
    model = tiny("gpt2").double()
    for block in model.transformer.h:
        block.ln_1, block.ln_2, block.mlp.act = nn.Identity(), nn.Identity(), nn.Identity()
        with torch.no_grad():
            block.attn.c_attn.weight[:, :64] = 0
            block.attn.c_attn.bias[:64] = 0
    model.transformer.ln_f = nn.Identity()
    return model


def nearby(model, step=1e-4):
    """The token of the corrupted prompt's first difference is the clean one's, a small step away."""
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        torch.manual_seed(3)
        table[21] = table[44] + step * torch.randn_like(table[44])
    return model


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_gradients_of_all_layers_are_autograds_on_the_plain_model(family, frozen):
    model = tiny(family).requires_grad_(False)
    blocks = next(m for m in model.modules() if isinstance(m, nn.ModuleList))
    kept = []

    def keep(module, args, kwargs):
        x = (args[0] if args else kwargs["hidden_states"]).detach().requires_grad_() if not kept else args[0]
        kept.append(x)
        x.retain_grad()
        return (x, *args[1:]), kwargs

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks]
    difference(model(torch.tensor([CORRUPTED])).logits[:, -1]).backward()
    for handle in handles:
        handle.remove()
    model.requires_grad_(not frozen)
    with iw.Session(model) as session:
        found = session.gradients(CORRUPTED, "resid_pre", difference)
        assert list(found) == [0, 1, 2, 3]
        for layer, x in enumerate(kept):
            assert (found[layer] - x.grad[0]).abs().max() <= 1e-5 * x.grad.abs().max()
        assert all(p.grad is None for p in model.parameters())
        prefix = session.prefix(CORRUPTED, 3)
        suffix = session.gradients(CORRUPTED, "resid_pre", difference, prefix=prefix)
        for layer in found:
            assert not suffix[layer][:3].any()
            assert (suffix[layer][3:] - found[layer][3:]).abs().max() <= 1e-5 * found[layer].abs().max()


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("site", [*RESIDUAL, "z", "v"])
def test_a_linear_models_estimates_are_exact(site, direction):
    with iw.Session(linear_gpt2()) as session:
        asked = (session, CLEAN, CORRUPTED, site, 7, 11, "logit_diff", direction)
        for form in [{}, {"by_position": True}] if site in HEADS else [{}]:
            exact, estimate = iw.patch_sweep(*asked, **form), iw.attribution_sweep(*asked, **form)
            assert np.abs(exact).max() > 0.1
            assert np.allclose(estimate, exact, atol=1e-5)
            assert np.allclose(iw.attribution_sweep(*asked, **form, steps=3), exact, atol=1e-5)


@pytest.mark.parametrize(("site", "form"), FORMS, ids=str)
def test_a_small_patch_does_what_is_estimated_on_a_map_of_the_same_axes(site, form):
    with iw.Session(nearby(tiny("llama").double())) as session:
        corrupted = (*CLEAN[:3], 21, *CLEAN[4:])
        for direction in ("denoise", "noise"):
            asked = (session, CLEAN, corrupted, site, 7, 11, "logit_diff", direction)
            exact, estimate = iw.patch_sweep(*asked, **form), iw.attribution_sweep(*asked, **form)
            assert estimate.dims == exact.dims
            for name in exact.coords:
                assert list(estimate[name].values) == list(exact[name].values)
            assert exact.attrs.items() <= estimate.attrs.items()
            assert (estimate.attrs["approximate"], estimate.attrs["steps"]) == (True, 1)
            assert (np.isnan(estimate) == np.isnan(exact)).all()
            assert np.abs(exact).max() > 0
            assert np.abs(estimate - exact).max() <= 0.01 * np.abs(exact).max()


@pytest.mark.parametrize("metric", ["log_probability", "probability", "kl"])
def test_every_metric_is_differentiated(metric):
    # The divergence is of the second order in the step: a smaller one would be lost in float32.
    with iw.Session(nearby(tiny("gpt2").double(), 1e-2 if metric == "kl" else 1e-4)) as session:
        corrupted = (*CLEAN[:3], 21, *CLEAN[4:])
        asked = (session, CLEAN, corrupted, "resid_pre", 7, 11, metric, "denoise", False)
        exact, estimate = iw.patch_sweep(*asked), iw.attribution_sweep(*asked)
        effect = exact - exact.attrs["corrupted"]
        # It has its minimum at the clean run: to go all the way is half of what its slope says.
        share = 2 if metric == "kl" else 1
        assert np.abs(effect).max() > 0
        error = np.abs((estimate - exact.attrs["corrupted"])[0] - share * effect[0])
        assert error.max() <= (0.1 if metric == "kl" else 0.02) * np.abs(effect[0]).max()


def test_one_step_from_where_the_divergence_is_least_is_refused():
    with iw.Session(tiny("llama").double()) as session:
        asked = (session, CLEAN, CORRUPTED, "resid_pre", 7, 11, "kl", "noise", False)
        for acting in ((), (iw.Scale("mlp_out", 0.5, layer=1),)):
            with pytest.raises(NoGradient, match=r"gradient is 0: iw\.attribution_sweep\(\.\.\., steps=8\)"):
                iw.attribution_sweep(*asked, interventions=acting)
        found = iw.attribution_sweep(*asked, steps=64)
        # What is patched into the embedding adds up to the whole way from a divergence of 0.
        assert float(found[0].sum()) == pytest.approx(found.attrs["corrupted"], rel=0.02)


def test_neurons_are_chosen_where_the_divergence_is_least_too():
    with iw.Session(tiny("llama").double()) as session:
        asked = (session, CLEAN, CORRUPTED, "mlp_post", 7, 11)
        exact = iw.patch_sweep(*asked, "kl", "noise", False, layer=1).values  # (neuron,)
        chosen = iw.patch_sweep(*asked, "kl", "noise", layer=1, neurons=12)["neuron"].values
        assert exact[chosen].sum() > 0.5 * np.sort(exact)[-12:].sum()
        of_answer = iw.attribution_sweep(*asked, "log_probability", "noise", False, layer=1)
        largest = np.argsort(-np.abs(of_answer.values - of_answer.attrs["clean"]))[:12]
        assert chosen.tolist() == largest.tolist()


def test_effects_of_inputs_add_up_to_the_gap_as_steps_grow():
    with iw.Session(tiny("gpt2").double()) as session:
        asked = (session, CLEAN, CORRUPTED, "resid_pre", 7, 11)
        sums = [float(iw.attribution_sweep(*asked, steps=steps)[0].sum()) for steps in (1, 8, 64)]
        errors = np.abs(np.array(sums) - 1)
        assert errors[2] < 0.005 < errors[0]
        assert errors[1] < errors[0]


@pytest.mark.parametrize(("site", "steps"), [("encoder.resid_pre", 1), ("cross.k", 1), ("resid_mid", 1), ("z", 4)])
def test_a_model_with_an_encoder_is_estimated_by_positions_of_its_source(site, steps):
    with iw.Session(nearby(encoder_decoder("t5").double())) as session:
        pair = [iw.SourceTarget((5, 9, token, 30, 8), (0, 17, 60)) for token in (44, 21)]
        exact = iw.patch_sweep(session, *pair, site, 7, 11)
        estimate = iw.attribution_sweep(session, *pair, site, 7, 11, steps=steps)
        assert estimate.dims == exact.dims
        assert np.abs(estimate - exact).max() <= 0.01 * np.abs(exact).max()


def test_an_encoders_neurons_are_chosen_by_their_attribution():
    with iw.Session(encoder_decoder("t5").double()) as session:
        asked = session, *[iw.SourceTarget((5, 9, token, 30, 8), (0, 17, 60)) for token in (44, 21)], "encoder.mlp_post"
        effects = iw.attribution_sweep(*asked, 7, 11, layer=1, normalize=False)
        largest = np.argsort(-np.abs(effects.values - effects.attrs["corrupted"]))[:5]
        assert iw.patch_sweep(*asked, 7, 11, layer=1, neurons=5)["neuron"].values.tolist() == largest.tolist()


def test_experiments_act_in_all_runs():
    with iw.Session(linear_gpt2()) as session:
        acting = (iw.Scale("mlp_out", 0.5, layer=1), iw.Ablate("z", layer=2, head=1))
        asked = (session, CLEAN, CORRUPTED, "resid_pre", 7, 11)
        assert np.allclose(
            iw.attribution_sweep(*asked, interventions=acting), iw.patch_sweep(*asked, interventions=acting), atol=1e-5
        )


def test_inference_mode_and_half_precision_are_no_obstacle():
    asked = (CLEAN, CORRUPTED, "resid_pre", 7, 11)
    with iw.Session(tiny("llama")) as session:
        expected = iw.attribution_sweep(session, *asked)
        session._results.clear()
        with torch.inference_mode():
            assert np.allclose(iw.attribution_sweep(session, *asked), expected, atol=1e-6)
            assert torch.is_inference_mode_enabled()
    with iw.Session(tiny("llama").bfloat16()) as session:
        estimate = iw.attribution_sweep(session, *asked)
    assert np.corrcoef(estimate.values.ravel(), expected.values.ravel())[0, 1] > 0.99


def test_weights_made_in_inference_mode_have_no_gradient_and_still_sweep():
    with torch.inference_mode():
        model = tiny("llama")
    with iw.Session(model) as session:
        with pytest.raises(NoGradient, match="Inference tensors"):
            iw.attribution_sweep(session, CLEAN, CORRUPTED, "resid_pre", 7, 11)
        assert np.isfinite(iw.patch_sweep(session, CLEAN, CORRUPTED, "resid_pre", 7, 11)).all()


@pytest.mark.parametrize("site", ["resid_pre", "mlp_out", "z"])
def test_what_integer_weights_cut_off_is_refused_and_not_left_out(site):
    class Quantised(nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    model = tiny("llama")
    for layer in model.model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            old = getattr(layer.mlp, name)
            new = Quantised(old.in_features, old.out_features, bias=False)
            new.weight = old.weight
            setattr(layer.mlp, name, new)
    with iw.Session(model) as session:
        with pytest.raises(NoGradient, match="through mlp_out of layer 1"):
            iw.attribution_sweep(session, CLEAN, CORRUPTED, site, 7, 11)
        assert np.isfinite(iw.patch_sweep(session, CLEAN, CORRUPTED, site, 7, 11)).all()


def test_what_autograd_would_keep_stays_under_the_budget():
    with iw.Session(tiny("llama")) as session:
        session.memory_budget = gradient_bytes(session.engine, len(CLEAN)) // 2
        with pytest.raises(NotEnoughMemory, match="the way back through 8 tokens needs about"):
            session.gradients(CORRUPTED, "resid_pre", difference)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, "5"])
def test_steps_are_a_whole_number(steps):
    with iw.Session(tiny("llama")) as session, pytest.raises(ValueError, match="a whole number of gradients"):
        iw.attribution_sweep(session, CLEAN, CORRUPTED, "resid_pre", 7, 11, steps=steps)


def test_it_is_doubted_where_a_layers_estimates_do_not_add_up():
    with iw.Session(linear_gpt2()) as session:
        task = patching_task(session, CLEAN, CORRUPTED, 7, 11)
        where = grid(session, "resid_pre", task.clean)
        for direction in ("denoise", "noise"):
            estimate = estimate_grid(session, task, where, direction)
            assert doubt(task, where, direction, estimate) == ""
        base = task.clean_value
        estimate[1:3] = base + 0.5 * (estimate[1:3] - base)
        said = "Norms are not linear: estimates in L1 to L2 add up to 0.5 of the gap instead of 1."
        assert doubt(task, where, "noise", estimate) == said
        assert doubt(task, grid(session, "attn_out", task.clean), "noise", estimate) == ""
        assert doubt(task, grid(session, "mlp_out", task.clean), "noise", estimate).startswith("MLP 0")
        assert "saturated" in doubt(task, grid(session, "q", task.clean), "noise", estimate)


def test_the_most_important_rows_come_first_and_cost_no_more():
    with iw.Session(tiny("llama")) as session:
        rows = [[iw.Patch("resid_pre", layer=i, position=p, source=CLEAN)] for i in range(4) for p in range(3, 8)]
        session.memory_budget = 60_000
        seen = []
        important = np.random.default_rng(0).permutation(len(rows)).astype(float)
        plain = session.sweep(CORRUPTED, rows, difference)
        ordered = session.sweep(
            CORRUPTED, rows, difference, priority=important, partial=lambda v: seen.append(np.isfinite(v))
        )
        assert np.allclose(plain.values, ordered.values, atol=1e-5)
        assert len(seen) > 2
        first = seen[0]
        assert important[first].min() > important[~first].max()
        with pytest.raises(ValueError, match="priority has 1 numbers, and there are 20 rows"):
            session.sweep(CORRUPTED, rows, difference, priority=[1.0])
