"""What changed in the model between two clicks is seen at the next; what was computed before it is never served."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

import interpwidgets as iw
from tests.models import tiny
from tests.sent import array

from .clicking import click
from .state import CORRUPTED, LONG, PROMPT


@pytest.fixture
def model():
    return tiny("llama")


@pytest.fixture
def session(model):
    with iw.Session(model) as session:
        yield session


def edit_in_place(model):
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(2)


def load_other_weights(model):
    model.load_state_dict(tiny("llama", seed=1).state_dict())


def assign_other_weights(model):
    model.load_state_dict(tiny("llama", seed=1).state_dict(), assign=True)


def replace_a_parameter(model):
    part = model.model.layers[2].self_attn.v_proj
    part.weight = nn.Parameter(-part.weight.detach())


def replace_data(model):
    for p in model.parameters():
        p.data = p.data * 1.5


def edit_data_in_place(model):
    for p in model.parameters():
        p.data.mul_(1.5)


def update_data_of_one_matrix(model):
    weight = model.model.layers[0].mlp.up_proj.weight
    weight.data -= 0.1 * torch.randn_like(weight)


def edit_through_numpy(model):
    model.model.layers[0].self_attn.o_proj.weight.detach().numpy()[:] *= 2


def round_to_bfloat16_and_back(model):
    model.to(torch.bfloat16)
    model.to(torch.float32)


def step_an_optimizer(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    ids = torch.tensor([PROMPT])
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def add_a_low_rank_adapter(model):
    part = model.model.layers[1].self_attn.o_proj
    plain = part.forward
    down, up = torch.randn(2, 32) * 0.3, torch.randn(32, 2) * 0.3
    part.forward = lambda x: plain(x) + x @ down.T @ up.T


def hook_of_the_users(model):
    model.model.layers[1].mlp.register_forward_hook(lambda m, a, out: out * 3)


def change_a_setting(model):
    for layer in model.model.layers:
        layer.self_attn.scaling *= 0.5


def change_a_buffer(model):
    model.model.rotary_emb.inv_freq.mul_(0.5)


CHANGES = (
    edit_in_place, load_other_weights, assign_other_weights, replace_a_parameter, replace_data, edit_data_in_place,
    update_data_of_one_matrix, edit_through_numpy, round_to_bfloat16_and_back, step_an_optimizer,
    add_a_low_rank_adapter, hook_of_the_users, change_a_setting, change_a_buffer,
)  # fmt: skip


def plain(model):
    with torch.no_grad():
        return model(torch.tensor([PROMPT]), use_cache=False).logits[0].float().numpy()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_by_the_next_run_and_the_next_click(session, model, change):
    lens = iw.LogitLens(session, PROMPT)
    lens.wait(LONG)
    before = session.run(PROMPT)
    change(model)
    now = plain(model)
    assert np.abs(now - before.logits.values).max() > 1e-3
    assert np.abs(session.run(PROMPT).logits.values - now).max() < 1e-5 * np.abs(now).max()
    click(lens, "track", token=44)
    lens.wait(LONG)
    top = torch.from_numpy(now).softmax(-1).max(-1).values
    assert np.allclose(array(lens._grid["p"])[-1, :, 0], top, atol=1e-5)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_and_its_undoing_serve_neither_the_others_result(session, model, change):
    """Weights that go back and forth may come to lie at addresses that were seen before."""
    answers = []
    for _ in range(3):
        before = plain(model)
        assert np.abs(session.run(PROMPT).logits.values - before).max() < 1e-5 * np.abs(before).max()
        answers.append(before)
        change(model)
    assert np.abs(answers[1] - answers[0]).max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_dtype_is_seen_and_said(session, model, dtype):
    attention = iw.AttentionPattern(session, PROMPT)
    attention.wait(LONG)
    before = session.run(PROMPT).logits.values
    model.to(dtype)
    run = session.run(PROMPT)
    assert run.prediction.dtype == dtype
    assert not np.array_equal(run.logits.values, before)
    click(attention, "run", prompt=list(PROMPT))
    attention.wait(LONG)
    assert attention._header["dtype"] == str(dtype).removeprefix("torch.")
    model.to(torch.float32)
    assert session.run(PROMPT).prediction.dtype == torch.float32


def test_another_attention_implementation_is_asked_anew(session, model):
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    session.run(PROMPT)
    model.set_attn_implementation("eager")
    eager = session.run(PROMPT)
    assert len(calls) == 2
    assert np.abs(eager.logits.values - plain(model)).max() < 1e-5
    session.run(PROMPT)
    assert len(calls) == 3  # with the plain call


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_another_device_is_asked_anew(session, model):
    session.run(PROMPT)
    model.to("cuda")
    assert session.run(PROMPT).prediction.device.type == "cuda"
    session.check()


def test_weights_that_change_in_the_middle_of_a_run_leave_no_result_behind(session, model):
    weight = model.model.layers[3].mlp.down_proj.weight

    def double(*_):
        handle.remove()
        weight.data.mul_(2)

    handle = model.model.layers[0].register_forward_hook(double)
    session.run(PROMPT)
    weight.data.mul_(0.5)
    expected = plain(model)
    assert np.abs(session.run(PROMPT).logits.values - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_lens_that_read_old_weights_is_read_again_after_an_edit_during_its_reading(session, model):
    lens = iw.LogitLens(session, PROMPT)
    lens.wait(LONG)
    reading, go_on = threading.Event(), threading.Event()

    def halt(*_):
        if threading.current_thread().name == "interpwidgets-worker" and not reading.is_set():
            reading.set()
            assert go_on.wait(LONG)

    model.set_attn_implementation("eager")  # so that the next click reads anew
    handle = model.lm_head.register_forward_pre_hook(halt)
    click(lens, "run", prompt=list(PROMPT))
    assert reading.wait(LONG)
    edit_in_place(model)
    go_on.set()
    lens.wait(LONG)
    handle.remove()
    click(lens, "run", prompt=list(PROMPT))
    lens.wait(LONG)
    top = torch.from_numpy(plain(model)).softmax(-1).max(-1).values
    assert np.allclose(array(lens._grid["p"])[-1, :, 0], top, atol=1e-5)


@pytest.mark.parametrize("kind", ["wrapped forward", "hook"])
def test_sweeps_see_what_the_user_put_on_the_unembedding(session, model, kind):
    head = model.lm_head
    if kind == "hook":
        head.register_forward_hook(lambda m, a, out: out * 2)
    else:
        unembed = head.forward
        head.forward = lambda x: unembed(x) * 2
    swept = iw.patch_sweep(session, PROMPT, CORRUPTED, answer=7, foil=11, normalize=False)
    patch = iw.Patch("resid_pre", layer=2, position=3, source=PROMPT)
    logits = session.run(CORRUPTED, interventions=[patch]).logits.values[-1]
    assert float(swept[2, 3]) == pytest.approx(float(logits[7] - logits[11]), abs=1e-4)


def swap_the_mlp(model):
    model.model.layers[2].mlp = tiny("llama", seed=1).model.layers[2].mlp


def swap_a_block(model):
    model.model.layers[1] = tiny("llama", seed=1).model.layers[1]


def add_a_layer(model):
    model.model.layers.append(tiny("llama", seed=1, num_hidden_layers=5).model.layers[4])
    model.config.num_hidden_layers += 1


def drop_a_layer(model):
    del model.model.layers[3]


def wrap_a_projection(model):
    attention = model.model.layers[0].self_attn
    attention.o_proj = nn.Sequential(attention.o_proj, nn.Identity())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (swap_the_mlp, "model.layers.2.mlp"),
        (swap_a_block, "model.layers.1"),
        (add_a_layer, "model.layers.4"),
        (drop_a_layer, "model.layers.3"),
        (wrap_a_projection, "model.layers.0.self_attn.o_proj"),
    ],
)
def test_a_changed_structure_is_refused_by_name_and_a_new_session_reads_it(model, change, named):
    with iw.Session(model) as session:
        attention = iw.AttentionPattern(session, PROMPT)
        attention.wait(LONG)
        change(model)
        with pytest.raises(RuntimeError, match=f"'{named}' was put in, replaced or taken out"):
            session.run(PROMPT)
        click(attention, "run", prompt=[5, 17, 3])
        with pytest.raises(RuntimeError, match="make a new Session"):
            attention.wait(LONG)
        assert named in attention._status["error"]["text"]
        with iw.Session(model) as fresh:
            assert np.abs(fresh.run(PROMPT).logits.values - plain(model)).max() < 1e-4
