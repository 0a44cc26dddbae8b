"""After every fault the model computes exactly what it computed before, and nothing of ours is left in the way."""

from __future__ import annotations

import gc
import signal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import interpwidgets as iw
from tests.models import encoder_decoder, tiny

from . import faults
from .state import PROMPT, count_hooks, state_of

MANY = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
FAMILIES = ("llama", "gpt2")
SESSIONS = {}


@pytest.fixture(scope="module", autouse=True)
def interruptible():
    """A shell starts what it runs in the background with Ctrl-C ignored, and Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module", autouse=True)
def nothing_older_to_collect():
    """Of every fault for want of memory a session collects garbage: what was there before takes most of that time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def sessions():
    """One session a family for the whole module: what a fault leaves behind would harm the next."""
    for family in FAMILIES:
        SESSIONS[family] = iw.Session(tiny(family, **small(family)))
    yield
    for session in SESSIONS.values():
        session.close()
    SESSIONS.clear()


def small(family):
    return {"n_layer" if family == "gpt2" else "num_hidden_layers": 2}


def modules(family):
    return faults.every_module(tiny(family, **small(family)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fault", faults.FAULTS)
def test_a_fault_at_every_module_of_a_run_with_interventions(family, fault):
    session = SESSIONS[family]
    raised = sum(
        (faults.fail_at(session, "run with interventions", *at, fault)["faults injected"] for at in modules(family)), 0
    )
    assert raised > 40


@pytest.mark.parametrize("fault", ["interrupt", "bug in a hook", "out of memory"])
def test_a_fault_at_every_module_of_an_encoder_and_its_decoder(fault):
    model = encoder_decoder("bart")
    experiments = [
        iw.CutEdge(layer=1, head=1, query=3, key=2, stack="cross"), iw.Ablate("encoder.z", layer=0, head=1, how="mean"),
    ]  # fmt: skip
    raise_it, kind = faults.FAULTS[fault]
    raised = 0
    with iw.Session(model) as session:
        start = state_of(model)
        for name, before in faults.every_module(model):
            session._results.clear()
            with faults.failing(model.get_submodule(name), before, raise_it):
                try:
                    session.run(iw.SourceTarget(PROMPT, PROMPT), ["cross.pattern", "encoder.pattern"], experiments)
                except kind:
                    raised += 1
            assert state_of(model) == start
    assert raised > 100
    assert count_hooks(model) == 0


@MANY
@given(data=st.data())
def test_any_fault_at_any_module_of_any_operation(data):
    family = data.draw(st.sampled_from(FAMILIES))
    session = SESSIONS[family]
    module, before = data.draw(st.sampled_from(modules(family)))
    operation = data.draw(st.sampled_from(sorted(faults.operations(session))))
    fault = data.draw(st.sampled_from(sorted(faults.FAULTS)))
    faults.fail_at(session, operation, module, before, fault)


@pytest.mark.parametrize("operation", ["sweep", "sweep under interventions", "run", "generate", "lens"])
def test_stop_at_every_block(operation):
    stopped = [faults.stop_at_block(SESSIONS["llama"], operation, block)["faults injected"] for block in (0, 1)]
    assert stopped[0] == 1  # at the last block, a single run is as good as done


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bug_in_an_edit_at_every_site(family):
    session = SESSIONS[family]
    start = state_of(session.model)
    for layer in range(2):
        for site in session.engine.sites(layer):
            misfit = iw.Patch(site, layer=layer, source=np.zeros((8, 3, 999, 5)))
            with pytest.raises((ValueError, RuntimeError)):
                session.run(PROMPT, interventions=[misfit])
            assert state_of(session.model) == start


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_a_fault_at_every_module_while_a_session_opens_leaves_no_hooks(fault):
    model = tiny("llama", **small("llama"))
    start = state_of(model)
    raise_it, kinds = faults.FAULTS[fault]
    refusals = (*(kinds if isinstance(kinds, tuple) else (kinds,)), iw.UnsupportedModel)
    for module, before in modules("llama"):
        with faults.failing(model.get_submodule(module), before, raise_it):
            try:
                iw.Session(model).close()
            except refusals:
                assert count_hooks(model) == 1  # the user's
        assert state_of(model) == start


@pytest.fixture(scope="module")
def bare():
    """A model that is opened and closed under interrupts; and in how many points each can be struck."""
    model = tiny("llama", **small("llama"))
    opening = faults.points(lambda: iw.Session(model).close())
    closing = faults.points(iw.Session(model).close)
    return model, opening, closing


@MANY
@given(share=st.floats(0, 1))
def test_an_interrupt_at_any_point_while_a_session_opens_leaves_no_hooks(bare, share):
    model, opening, _ = bare
    faults.interrupt_opening(model, 1 + int(share * opening))


def test_an_interrupt_right_after_a_hook_was_installed_leaves_no_hooks(bare):
    model, opening, _ = bare
    before = count_hooks(model)
    for at in range(1, opening, max(1, opening // 60)):
        faults.interrupt_opening(model, at)
        assert count_hooks(model) == before


def test_an_interrupt_at_every_point_of_closing(bare):
    model, _, closing = bare
    for at in range(1, closing, max(1, closing // 60)):
        faults.interrupt_closing(model, at)


@MANY
@given(
    operation=st.sampled_from(["run with interventions", "sweep", "generate", "second session"]), share=st.floats(0, 1)
)
def test_an_interrupt_at_any_point_of_an_operation(operation, share):
    session = SESSIONS["llama"]
    total = faults.points(faults.operations(session)[operation])
    faults.interrupt_at(session, operation, 1 + int(share * total))


def test_the_interrupted_session_still_answers_right():
    session = SESSIONS["llama"]
    with iw.Session(tiny("llama", **small("llama"))) as fresh:
        for name, operation in faults.operations(session).items():
            mine, its = operation(), faults.operations(fresh)[name]()
            if name == "run with interventions":
                assert np.array_equal(mine.logits, its.logits)
                assert np.array_equal(mine["pattern"], its["pattern"])
            if name.startswith("sweep"):
                assert np.array_equal(mine, its)


def test_gradients_flow_after_every_fault():
    model = SESSIONS["llama"].model
    loss = model(torch.tensor([PROMPT]), labels=torch.tensor([PROMPT])).loss
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
