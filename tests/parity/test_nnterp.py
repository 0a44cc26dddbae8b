"""nnterp 1.3 on the same weights: its accessors' names give its values, its lens and its patchscope are ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import interpwidgets as iw
from interpwidgets.demo_model import demo_model_path
from tests.models import tiny

FAMILIES = ("gpt2", "gpt_neox", "gpt_neox-sequential", "llama", "qwen3", "gemma2", "demo")
ROOT = Path(__file__).parents[2]
# What the oracle ran; importing it here would import nnsight, which changes torch for all.
PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)
SOURCE = (21, 9, 30, 12)
TARGET_POSITION = 4

Ask = Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("nnterp") / "arrays.npz"
    command = [sys.executable, "-m", "tests.parity.nnterp_oracle", str(out), *FAMILIES]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(out))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def session(family) -> Iterator[iw.Session]:
    model = AutoModelForCausalLM.from_pretrained(demo_model_path()) if family == "demo" else tiny(family)
    model.set_attn_implementation("eager")  # nnterp reads attention weights from eager attention only
    with iw.Session(model.eval()) as session:
        yield session


@pytest.fixture
def theirs(oracle, family) -> Ask:
    return lambda name: oracle[f"{family}/{name}"]


def assert_same(ours: object, theirs: np.ndarray) -> None:
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


ACCESSORS = ("token_embeddings", "layers_input", "layers_output", "attention_probabilities")
WRITES = {"attentions_output": "post_attention_layernorm", "mlps_output": "post_feedforward_layernorm"}


@pytest.mark.parametrize("name", ACCESSORS)
def test_their_names_capture_their_values(session, theirs, name):
    assert_same(session.run(PROMPT, capture=name)[name], theirs(name))


@pytest.mark.parametrize("name", WRITES)
def test_sublayers_outputs_are_equal_up_to_gemmas_post_norm(session, theirs, family, name):
    # nnterp gives what the module returns; ours is what is added to the stream. Only where the block norms the
    # output before it adds it (Gemma 2) are these two things.
    ours = session.run(PROMPT, capture=name)[name]
    if family != "gemma2":
        assert_same(ours, theirs(name))
        return
    for layer, block in enumerate(session.model.model.layers):
        with torch.no_grad():
            normed = getattr(block, WRITES[name])(torch.tensor(theirs(name)[layer]))
        assert_same(ours.sel(layer=layer), normed.numpy())


def test_logits_are_equal(session, theirs):
    assert_same(session.run(PROMPT).logits, theirs("logits"))


def test_lens_is_equal_up_to_gemmas_soft_cap(session, theirs, family):
    # nnterp's lens is norm and unembedding; ours also applies what the model does to its logits, so that the last
    # layer is the model's own prediction. Here too, layer -1 is the embedding, which nnterp leaves out.
    raw = torch.tensor(theirs("project_on_vocab"))  # (layer, position, token)
    if family == "gemma2":
        cap = session.model.config.final_logit_softcapping
        raw = torch.tanh(raw / cap) * cap
    else:
        assert_same(raw.softmax(-1)[:, -1], theirs("logit_lens"))
    lens = iw.logit_lens(session, PROMPT, track=range(97)).sel(layer=slice(0, None))
    assert_same(lens.tracked_probability.transpose("layer", "position", "token"), raw.softmax(-1)[..., :97].numpy())
    last = lens.tracked_probability.isel(layer=-1).T
    assert_same(last, torch.tensor(theirs("logits")).softmax(-1)[:, :97].numpy())


def test_patchscope_is_a_patch_with_a_source_position(session, theirs):
    expected = theirs("patchscope_lens")  # (layer, token): the next token's probabilities
    for layer in range(len(expected)):
        transplant = iw.Patch(
            "layers_output", layer=layer, position=TARGET_POSITION,
            source=SOURCE, source_layer=layer, source_position=-1,
        )  # fmt: skip
        logits = session.run(PROMPT, interventions=[transplant]).logits.values[-1]
        assert_same(torch.tensor(logits).softmax(-1), expected[layer])


def test_steering_is_equal(session, theirs):
    direction = np.linspace(-1, 1, session.engine.architecture.d_model)
    steer = iw.Steer("layers_output[1]", direction, position=5, strength=2.5)
    assert_same(session.run(PROMPT, interventions=[steer]).logits, theirs("steer"))
