"""The user's calls, training, edits and hooks while pages click; deadlocks and races that were found that way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import interpwidgets as iw
from tests.models import tiny

from .clicking import click, click_while_the_user_works
from .state import CORRUPTED, LONG, PROMPT, count_hooks, hooks_of, state_of


@pytest.mark.parametrize("seed", [0, 1])
def test_the_users_calls_are_undisturbed_and_the_widgets_end_up_right(seed):
    figures = click_while_the_user_works(150, seed)
    assert figures["runs of the user's own"] > 10
    assert figures["runs in a cell"] > 10


class Gate:
    """Stops a thread in a module, once, until it is let through."""

    def __init__(self, module, thread):
        self._thread, self._at, self._open = thread, threading.Event(), threading.Event()
        self._handle = module.register_forward_pre_hook(self._wait)

    def _wait(self, *_):
        if threading.current_thread().name == self._thread and not self._at.is_set():
            self._at.set()
            assert self._open.wait(LONG)

    def reached(self):
        assert self._at.wait(LONG)

    def open(self):
        self._open.set()
        self._handle.remove()


@pytest.fixture
def model():
    return tiny("llama")


@pytest.fixture
def other():
    with ThreadPoolExecutor(1, "other") as pool:
        yield pool


def test_closing_a_session_waits_for_a_run_on_another_thread(model, other):
    with iw.Session(tiny("llama")) as alone:
        expected = alone.run(PROMPT, "pattern", [iw.Ablate("z", layer=3)])
    start = state_of(model)
    session = iw.Session(model)
    gate = Gate(model.model.layers[1], "other_0")
    running = other.submit(session.run, PROMPT, "pattern", [iw.Ablate("z", layer=3)])
    gate.reached()
    closing = threading.Thread(target=session.close)
    closing.start()
    gate.open()
    run = running.result(LONG)
    closing.join(LONG)
    assert np.array_equal(run.logits, expected.logits)
    assert np.array_equal(run["pattern"], expected["pattern"])
    assert state_of(model) == start


def test_closing_a_session_inside_of_its_own_run_fails_that_run(model):
    start = state_of(model)
    session = iw.Session(model)
    handle = model.model.layers[1].register_forward_hook(lambda *_: session.close())
    with pytest.raises(RuntimeError, match="session is closed"):
        session.run(PROMPT, "resid_post")
    handle.remove()
    assert state_of(model) == start


@pytest.mark.parametrize("inside", ["close", "open"])
def test_a_session_may_open_or_close_in_the_middle_of_a_plain_call(model, inside):
    expected = state_of(model).logits
    sessions = [iw.Session(model)] if inside == "close" else []

    def meanwhile(module, args):
        handle.remove()
        if inside == "close":
            sessions[0].close()
        else:
            sessions.append(iw.Session(model))

    handle = model.model.layers[2].register_forward_pre_hook(meanwhile)
    # First in line: the hooks that come after it have been looked up already.
    model.model.layers[2]._forward_pre_hooks.move_to_end(handle.id, last=False)
    assert state_of(model).logits == expected
    sessions[0].close()
    assert hooks_of(model) == {}


def test_a_call_that_began_in_a_run_ends_right_after_the_session_closed(model, other):
    model.set_attn_implementation("eager")
    model.set_attn_implementation("sdpa")
    expected = state_of(model).logits
    session = iw.Session(model)
    run_gate = Gate(model.model.layers[1], "other_0")
    running = other.submit(session.run, PROMPT)
    run_gate.reached()
    plain_gate = Gate(model.model.layers[2], "plain_0")
    with ThreadPoolExecutor(1, "plain") as plain:
        calling = plain.submit(state_of, model)
        plain_gate.reached()
        run_gate.open()
        running.result(LONG)
        session.close()
        plain_gate.open()
        assert calling.result(LONG).logits == expected


def test_threads_that_open_sessions_on_one_model_share_an_engine_and_warn_of_nothing(model, recwarn):
    with ThreadPoolExecutor(4) as pool:
        sessions = list(pool.map(lambda _: iw.Session(model), range(4)))
    assert len({id(s.engine) for s in sessions}) == 1
    assert not recwarn
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(iw.Session.close, sessions))
    assert count_hooks(model) == 0


def test_models_that_share_a_config_run_side_by_side(other):
    first = tiny("llama")
    second = type(first)(first.config).eval()
    second.load_state_dict(first.state_dict())
    assert first.config is second.config
    with iw.Session(first) as a, iw.Session(second) as b:
        expected = a.run(PROMPT, "pattern")
        a._results.clear()
        gate = Gate(first.model.layers[1], "other_0")
        running = other.submit(a.run, PROMPT, "pattern")
        gate.reached()
        b.run(PROMPT)  # begins and ends in the middle of the other
        gate.open()
        assert np.array_equal(running.result(LONG)["pattern"], expected["pattern"])
    assert first.config._attn_implementation == "sdpa"


def test_a_hook_of_the_users_may_run_the_session_inside_of_a_run(model):
    edit = [iw.Ablate("resid_post", layer=3, position=6)]
    with iw.Session(tiny("llama")) as alone:
        expected = alone.run(PROMPT, interventions=edit)
    with iw.Session(model) as session:

        def ask(*_):
            handle.remove()
            session.run((5, 17, 3))

        handle = model.model.layers[1].register_forward_hook(ask)
        assert np.array_equal(session.run(PROMPT, interventions=edit).logits, expected.logits)


def test_an_observer_that_runs_the_session_does_not_wait_for_ever(model):
    with iw.Session(model) as session:
        heatmap = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED)
        attention = iw.AttentionPattern(session, PROMPT)
        for widget in (heatmap, attention):
            widget.wait(LONG)
        observed = []
        attention.observe(lambda change: observed.append(session.run((7, 8, 9))), names="layer")
        gate = Gate(model.model.layers[1], "interpwidgets-worker")
        click(heatmap, "set", metric="probability")
        gate.reached()
        clicking = threading.Thread(target=click, args=(attention, "select"), kwargs={"layer": 2, "head": 0})
        clicking.daemon = True
        clicking.start()
        gate.open()
        clicking.join(LONG / 4)
        assert not clicking.is_alive()
        heatmap.wait(LONG)
        assert len(observed) == 1


def test_an_observer_with_a_bug_is_drawn_and_the_next_click_works(model):
    with iw.Session(model) as session:
        attention = iw.AttentionPattern(session, PROMPT)
        attention.wait(LONG)

        def bug(change):
            attention.unobserve(bug, names="_overview")
            raise ZeroDivisionError("a bug of the user's")

        attention.observe(bug, names="_overview")
        click(attention, "ablate", layer=1, head=1)
        session.worker.submit("after", lambda ticket: None).wait(LONG)
        assert attention._status["state"] == "error"
        with pytest.raises(ZeroDivisionError):
            attention.wait(LONG)
        number = click(attention, "clear")
        attention.wait(LONG)
        assert attention._status["state"] == "idle"
        assert attention._status["id"] == number


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, torch.OutOfMemoryError])
def test_an_error_on_the_workers_thread_is_drawn_and_the_next_click_works(model, error):
    def fail(*_):
        raise error("stop")

    with iw.Session(model) as session:
        lens = iw.LogitLens(session, PROMPT)
        lens.wait(LONG)
        handle = model.model.layers[2].register_forward_hook(fail)
        click(lens, "replace", position=2, token=9)
        with pytest.raises((RuntimeError, MemoryError)):
            lens.wait(LONG)
        assert lens._status["state"] == "error"
        handle.remove()
        click(lens, "replace", position=2, token=10)
        lens.wait(LONG)
        assert lens._status["state"] == "idle"


def test_linked_widgets_of_two_sessions_do_not_wait_for_each_other():
    """A result's observer selects in the other session's widget, while a click there is passed on to this one."""
    with iw.Session(tiny("llama")) as session, iw.Session(tiny("llama", seed=1)) as other:
        one, two = iw.AttentionPattern(session, PROMPT), iw.AttentionPattern(other, PROMPT)
        for widget in (one, two):
            widget.wait(LONG)
        publishing, clicking = threading.Event(), threading.Event()

        def select_there(change):
            publishing.set()
            clicking.wait(1)
            two.select(2, 2)

        def meet(change):
            clicking.set()
            publishing.wait(1)

        one.observe(select_there, "result")
        two.observe(meet, "selection")
        link = iw.link(one, two)
        one.ablate(1, 1)
        click_there = threading.Thread(target=lambda: two.select(1, 1), daemon=True)
        click_there.start()
        click_there.join(LONG)
        assert not click_there.is_alive(), "the click hangs"
        one.wait(LONG)
        two.wait(LONG)
        link.close()
