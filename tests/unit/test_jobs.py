"""The worker: newest wins, cancelled jobs stop or never start, lower priorities go first. Interleaved by events."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from interpwidgets.engine.forward import Cancelled
from interpwidgets.engine.jobs import Ticket, Worker, check_cancelled

LONG = 30


class Blocking:
    """A job that says when it runs, and runs until it is let go or cancelled."""

    def __init__(self):
        self.started, self.let_go = threading.Event(), threading.Event()
        self.outcome = None

    def __call__(self, ticket):
        self.started.set()
        assert self.let_go.wait(LONG)
        try:
            check_cancelled()
            self.outcome = "finished"
        except Cancelled:
            self.outcome = "cancelled"


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def blocked(worker):
    """A worker that is busy with a job of key "busy" until that is let go."""
    job = Blocking()
    job.ticket = worker.submit("busy", job)
    assert job.started.wait(LONG)
    yield job
    job.let_go.set()


def test_a_job_runs_on_the_workers_thread(worker):
    names = []
    ticket = worker.submit("a", lambda ticket: names.append(threading.current_thread().name))
    assert ticket.wait(LONG)
    assert names == ["interpwidgets-worker"]
    assert ticket.ended
    assert not ticket.cancelled


def test_of_many_requests_the_first_and_the_newest_run(worker, blocked):
    ran = []
    tickets = [worker.submit("a", lambda ticket, i=i: ran.append(i)) for i in range(10)]
    assert all(t.ended and t.cancelled for t in tickets[:-1])
    blocked.let_go.set()
    assert tickets[-1].wait(LONG)
    assert ran == [9]


def test_a_newer_job_of_the_same_key_cancels_the_running_one(worker, blocked):
    newer = worker.submit("busy", lambda ticket: None)
    assert blocked.ticket.cancelled
    assert not blocked.ticket.ended
    blocked.let_go.set()
    assert newer.wait(LONG)
    assert blocked.outcome == "cancelled"
    assert not newer.cancelled


def test_other_keys_are_left_alone(worker, blocked):
    ran = []
    tickets = [worker.submit(key, lambda ticket, key=key: ran.append(key)) for key in "abc"]
    blocked.let_go.set()
    assert all(t.wait(LONG) for t in tickets)
    assert blocked.outcome == "finished"
    assert ran == ["a", "b", "c"]


def test_lower_priorities_go_first(worker, blocked):
    ran = []
    tickets = [
        worker.submit(key, lambda ticket, key=key: ran.append(key), priority)
        for key, priority in (("late", 2), ("first", 0), ("second", 0), ("middle", 1))
    ]
    blocked.let_go.set()
    assert all(t.wait(LONG) for t in tickets)
    assert ran == ["first", "second", "middle", "late"]


def test_cancelling_a_waiting_job_ends_it_at_once(worker, blocked):
    waiting = worker.submit("a", lambda ticket: pytest.fail("a cancelled job ran"))
    worker.cancel("a")
    assert waiting.ended
    worker.cancel("never submitted")


def test_cancelling_a_running_job_stops_it_at_its_next_check(worker, blocked):
    worker.cancel("busy")
    blocked.let_go.set()
    assert blocked.ticket.wait(LONG)
    assert blocked.outcome == "cancelled"


def test_waiting_times_out(worker, blocked):
    assert not blocked.ticket.wait(0)


def test_a_job_may_count_as_ended_before_it_returns(worker):
    seen = []

    def job(ticket):
        ticket.finish()
        seen.append(ticket.ended)

    assert worker.submit("a", job).wait(LONG)
    worker.submit("b", lambda ticket: None).wait(LONG)
    assert seen == [True]


def test_a_job_may_submit_another(worker):
    done = threading.Event()
    worker.submit("a", lambda ticket: worker.submit("a", lambda ticket: done.set()))
    assert done.wait(LONG)


def test_closing_cancels_all_and_refuses_more(worker, blocked):
    waiting = worker.submit("a", lambda ticket: pytest.fail("a cancelled job ran"))
    worker.close()
    assert waiting.ended
    assert blocked.ticket.cancelled
    blocked.let_go.set()
    assert blocked.ticket.wait(LONG)
    with pytest.raises(RuntimeError, match="closed"):
        worker.submit("a", lambda ticket: None)
    worker.close()


def test_the_last_request_of_every_thread_is_answered(worker):
    ran = []
    lock = threading.Lock()

    def submit(key):
        def job(ticket, i):
            with lock:
                ran.append((key, i))

        return [worker.submit(key, lambda ticket, i=i: job(ticket, i)) for i in range(100)]

    with ThreadPoolExecutor(8) as pool:
        tickets = [t for per_thread in pool.map(submit, range(8)) for t in per_thread]
    assert all(t.wait(LONG) for t in tickets)
    for key in range(8):
        mine = [i for k, i in ran if k == key]
        assert mine == sorted(set(mine))
        assert mine[-1] == 99


def test_the_cancel_check_is_free_outside_of_a_job():
    check_cancelled()


def test_a_cancelled_ticket_is_seen_by_its_own_thread_only():
    ticket = Ticket(lambda ticket: check_cancelled())
    ticket.cancel()
    ticket.run()
    assert ticket.ended
    check_cancelled()


def test_a_process_that_ends_during_a_run_ends_quietly(tmp_path):
    script = tmp_path / "ends.py"
    script.write_text(
        "import interpwidgets as iw\n"
        "from tests.models import tiny\n"
        "session = iw.Session(tiny('llama'))\n"
        "widget = iw.PatchingHeatmap(session, clean=list(range(5, 60)), corrupted=list(range(6, 61)))\n"
    )
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": "."}
        )
        assert (ended.returncode, ended.stderr) == (0, "")


def test_a_ticket_that_has_run_or_never_will_holds_nothing_of_its_job():
    class Widget:
        def work(self, ticket):
            ticket.finish()

    worker, widget, other = Worker(), Widget(), Widget()
    held = threading.Event()
    blocking = worker.submit("block", lambda ticket: held.wait(30))
    tickets = [worker.submit("a", widget.work), worker.submit("b", other.work)]
    alive = [weakref.ref(widget), weakref.ref(other)]
    del widget, other
    worker.cancel("b")
    held.set()
    for ticket in (blocking, *tickets):
        assert ticket.wait_until_left(30)
    gc.collect()
    assert [reference() for reference in alive] == [None, None]
    worker.close()


def test_a_job_does_not_wait_for_itself():
    worker, seen = Worker(), []
    ticket = worker.submit("a", lambda ticket: seen.append(ticket.wait_until_left(30)))
    assert ticket.wait_until_left(30)
    assert seen == [True]
    worker.close()
