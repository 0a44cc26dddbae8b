"""Gradients of activations are autograd's on the plain model, and choose which neurons to patch first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interpwidgets as iw
from tests.models import tiny

CLEAN = (5, 17, 3, 44, 17, 60, 8, 91)
CORRUPTED = (5, 17, 3, 21, 17, 60, 9, 91)


def difference(logits):
    return logits[:, 7] - logits[:, 11]


@pytest.mark.parametrize("enabled", [True, False])
def test_gradient_is_autograds_on_the_plain_model(enabled):
    model = tiny("llama")
    kept = []

    def keep(module, args):
        kept.append(args[0])
        args[0].retain_grad()

    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(keep)
    difference(model(torch.tensor([CORRUPTED])).logits[:, -1]).backward()
    handle.remove()
    model.zero_grad()
    with iw.Session(model) as session, torch.set_grad_enabled(enabled):
        found = session.gradient(CORRUPTED, "mlp_post", 1, difference)
        assert torch.is_grad_enabled() == enabled
        assert all(p.grad is None for p in model.parameters())
        assert (found - kept[0].grad[0]).abs().max() <= 1e-5 * found.abs().max()


@pytest.mark.parametrize("site", ["resid_pre", "z", "q", "attn_out"])
def test_gradient_is_the_slope_of_a_small_step(site):
    with iw.Session(tiny("gpt2").double()) as session:
        found = session.gradient(CORRUPTED, site, 2, difference)
        size = session.run(CORRUPTED, capture=site).tensor(site, 2)
        assert found.shape == size.shape
        direction = np.random.default_rng(0).standard_normal(size.shape[-1]).astype(np.float32)
        head = {"head": 1} if found.dim() == 3 else {}
        steps = [iw.Steer(site, direction, strength=s, layer=2, position=4, **head) for s in (1e-4, -1e-4)]
        up, down = session.sweep(CORRUPTED, [[step] for step in steps], difference).values
        at = found[4, 1] if head else found[4]
        assert (up - down) / 2e-4 == pytest.approx(float(at @ torch.from_numpy(direction).double()), rel=1e-4)


def test_the_neurons_of_the_largest_attribution_come_first():
    with iw.Session(tiny("llama")) as session:
        some = iw.patch_sweep(session, CLEAN, CORRUPTED, "mlp_post", 7, 11, layer=3, neurons=5, normalize=False)
        whole = iw.patch_sweep(session, CLEAN, CORRUPTED, "mlp_post", 7, 11, layer=3, normalize=False)
        chosen = some["neuron"].values
        assert np.allclose(some, whole.values[chosen], atol=1e-4)
        # In the last layer only the final norm is not linear: the order is nearly that of the effects themselves.
        effect = np.abs(whole.values - whole.attrs["corrupted"])
        assert len(set(chosen) & set(effect.argsort()[::-1][:8])) == 5
