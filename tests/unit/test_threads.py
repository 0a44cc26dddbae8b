"""Plain calls of the user's, on another thread than a session's run, are interleaved with it and not affected."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

import interpwidgets as iw
from tests.models import tiny

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)
INTERVENTIONS = [iw.Ablate("resid_post", layer=0, position=3), iw.CutEdge(layer=2, head=1, query=7, key=4)]
LONG = 30


class Gates:
    """Hooks of the user's that stop a named thread after a block until it is let through."""

    def __init__(self, blocks):
        self._reached, self._open = {}, {}
        for layer, block in enumerate(blocks):
            block.register_forward_hook(partial(self._pass, layer))

    def shut(self, thread, layer):
        self._reached[thread, layer], self._open[thread, layer] = threading.Event(), threading.Event()

    def reached(self, thread, layer):
        assert self._reached[thread, layer].wait(LONG)

    def open(self, thread, layer):
        self._open[thread, layer].set()

    def _pass(self, layer, *_):
        at = threading.current_thread().name, layer
        if at in self._open:
            self._reached[at].set()
            assert self._open[at].wait(LONG)


@pytest.fixture(params=["llama", "gpt2", "mistral"])
def session(request):
    with iw.Session(tiny(request.param)) as session:
        yield session


@pytest.fixture
def gates(session):
    return Gates([block.module for block in session.engine.architecture.blocks])


@pytest.fixture
def expected(session):
    """What the run gives when nothing else goes on, from a twin of the model, so that nothing is remembered."""
    with iw.Session(tiny(session.model.config.model_type)) as alone:
        return alone.run(PROMPT, capture="pattern", interventions=INTERVENTIONS)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1, "run") as run, ThreadPoolExecutor(1, "plain") as plain:
        yield run, plain


def ask(session):
    return session.run(PROMPT, capture="pattern", interventions=INTERVENTIONS)


def call(model):
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits


def assert_undisturbed(session, run, expected, logits, before):
    assert torch.equal(logits, before)
    assert np.array_equal(run.logits, expected.logits)
    assert np.array_equal(run["pattern"], expected["pattern"])
    assert session.model.config._attn_implementation == "sdpa"


def test_a_plain_call_inside_of_a_run(session, gates, expected, threads):
    before = call(session.model)
    gates.shut("run_0", 1)
    running = threads[0].submit(ask, session)
    gates.reached("run_0", 1)
    logits = threads[1].submit(call, session.model).result(LONG)
    gates.open("run_0", 1)
    assert_undisturbed(session, running.result(LONG), expected, logits, before)


def test_a_run_inside_of_a_plain_call(session, gates, expected, threads):
    before = call(session.model)
    gates.shut("plain_0", 1)
    calling = threads[1].submit(call, session.model)
    gates.reached("plain_0", 1)
    run = threads[0].submit(ask, session).result(LONG)
    gates.open("plain_0", 1)
    assert_undisturbed(session, run, expected, calling.result(LONG), before)


def test_a_plain_call_that_begins_before_and_ends_during_a_run(session, gates, expected, threads):
    before = call(session.model)
    gates.shut("plain_0", 1)
    gates.shut("run_0", 2)
    calling = threads[1].submit(call, session.model)
    gates.reached("plain_0", 1)
    running = threads[0].submit(ask, session)
    gates.reached("run_0", 2)
    gates.open("plain_0", 1)
    logits = calling.result(LONG)
    gates.open("run_0", 2)
    assert_undisturbed(session, running.result(LONG), expected, logits, before)


def test_a_plain_call_that_begins_during_and_ends_after_a_run(session, gates, expected, threads):
    before = call(session.model)
    gates.shut("run_0", 1)
    gates.shut("plain_0", 2)
    running = threads[0].submit(ask, session)
    gates.reached("run_0", 1)
    calling = threads[1].submit(call, session.model)
    gates.reached("plain_0", 2)
    gates.open("run_0", 1)
    run = running.result(LONG)
    gates.open("plain_0", 2)
    assert_undisturbed(session, run, expected, calling.result(LONG), before)


def test_two_runs_wait_for_each_other(session, gates, expected, threads):
    gates.shut("run_0", 1)
    running = threads[0].submit(ask, session)
    gates.reached("run_0", 1)
    other = threads[1].submit(session.run, PROMPT)
    assert not other.done()
    gates.open("run_0", 1)
    assert np.array_equal(running.result(LONG).logits, expected.logits)
    assert np.abs(other.result(LONG).logits.values - call(session.model)[0].numpy()).max() < 1e-5
