"""Other dtypes than float32, quantised weights, and weights that stand elsewhere until they are needed."""

from __future__ import annotations

import accelerate
import numpy as np
import pytest
import torch

import interpwidgets as iw
from tests.models import FAMILIES, tiny

PROMPT, OTHER = (5, 17, 3, 44, 17, 60), (5, 17, 9, 44, 17, 60)
# Relative to the largest logit: what the dtype's rounding makes of a few dozen additions.
ROUNDING = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float64: 1e-6}


def plain(model, prompt=PROMPT):
    with torch.no_grad():
        return model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0].double().numpy()


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_dtype_is_read_as_it_computes(family, dtype):
    model = tiny(family).to(dtype)
    with iw.Session(model) as session:
        expected = plain(model)
        rounding = ROUNDING[dtype] * np.abs(expected).max()
        run = session.run(PROMPT, capture=["pattern", "resid_post"])
        assert np.abs(run.logits.values - expected).max() <= rounding
        assert np.abs(run["pattern"].values.sum(-1) - 1).max() <= ROUNDING[dtype]
        assert session.engine.dtype_name == str(dtype).removeprefix("torch.")
        top = iw.logit_lens(session, PROMPT, top_k=1)["top_token"].values[-1, :, 0]
        best = np.take_along_axis(expected, top[:, None].astype(int), 1)[:, 0]
        assert (expected.max(-1) - best <= 2 * rounding).all()
        swept = iw.patch_sweep(session, PROMPT, OTHER, answer=7, foil=11, normalize=False)
        patch = iw.Patch("resid_pre", layer=2, position=3, source=PROMPT)
        alone = session.run(OTHER, interventions=[patch]).logits.values[-1].astype(float)
        assert abs(float(swept[2, 3]) - (alone[7] - alone[11])) <= 2 * rounding


def test_patterns_in_half_precision_are_nearer_to_float32_than_the_dtype_rounds():
    """The fused kernel keeps scores in float32; reading patterns must not round them first."""
    precise = tiny("llama")
    with iw.Session(precise) as session:
        expected = session.run(PROMPT, capture="pattern")["pattern"].values[0]
    with iw.Session(tiny("llama").to(torch.bfloat16)) as session:
        rounded = session.run(PROMPT, capture="pattern")["pattern"].values[0]
    assert np.abs(rounded - expected).max() < 0.05
    assert np.abs(rounded.sum(-1) - 1).max() < 1e-6


def test_weights_that_accelerate_brings_when_they_are_needed():
    model = tiny("llama")
    expected = plain(model)
    with iw.Session(model) as session:
        swept = iw.patch_sweep(session, PROMPT, OTHER, answer=7, foil=11).values
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.get_input_embeddings().weight.device.type == "meta"
    with iw.Session(model) as session:
        assert str(session.engine.device) == "cpu"
        assert np.abs(session.run(PROMPT, capture="result").logits.values - expected).max() < 1e-5
        assert np.abs(iw.patch_sweep(session, PROMPT, OTHER, answer=7, foil=11).values - swept).max() < 1e-5
        assert iw.logit_lens(session, PROMPT)["probability"].shape == (5, len(PROMPT))
    assert np.abs(plain(model) - expected).max() == 0


def test_quantised_weights_are_looked_at_in_the_dtype_that_they_compute_in():
    quantised = torch.ao.quantization.quantize_dynamic(tiny("llama"), {torch.nn.Linear}, dtype=torch.qint8)
    with iw.Session(quantised) as session:
        run = session.run(PROMPT, capture=["result", "attn_out", "resid_mid", "mlp_out"])
        assert np.abs(run.logits.values - plain(quantised)).max() < 1e-5
        assert {str(run[site].dtype) for site in ("result", "attn_out", "resid_mid", "mlp_out")} == {"float32"}
        ablated = session.run(PROMPT, interventions=[iw.Ablate("z", layer=1, head=2)])
        assert np.abs(ablated.logits.values - run.logits.values).max() > 1e-3
