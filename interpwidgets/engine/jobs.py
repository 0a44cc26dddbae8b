"""The worker of a session: one thread; the newest request of a widget wins; a pass stops between blocks."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Hashable
from contextvars import ContextVar

from .forward import Cancelled

_PATIENCE = 10.0  # seconds that a process waits at its end for a pass to stop
_current: ContextVar[Ticket | None] = ContextVar("interpwidgets_job", default=None)


def check_cancelled() -> None:
    """Raise Cancelled if the job that this thread is running has been cancelled. Called between blocks."""
    ticket = _current.get()
    if ticket is not None and ticket.cancelled:
        raise Cancelled


class Ticket:
    """One submitted job."""

    def __init__(self, job: Callable[[Ticket], None], priority: int = 0) -> None:
        self.priority = priority
        self._job: Callable[[Ticket], None] | None = job
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._left = threading.Event()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def finish(self) -> None:
        """Count as ended from here on: the job has its result and is about to hand it over."""
        self._ended.set()

    def cancel(self) -> None:
        """Ask the job to stop: at once if it has not begun, else within one block's time."""
        self._cancelled.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the job has ended in any way; False on timeout."""
        return self._ended.wait(timeout)

    def wait_until_left(self, timeout: float | None = None) -> bool:
        """Block until the thread has left the job and holds nothing of it; on that thread itself, not at all."""
        return _current.get() is self or self._left.wait(timeout)

    def run(self) -> None:
        token = _current.set(self)
        try:
            if self._job is not None and not self.cancelled:
                self._job(self)
        finally:
            _current.reset(token)
            self._job = None  # it refers to a widget, and with it to the model
            self._ended.set()
            self._left.set()


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """A thread that is inside of torch while the interpreter goes away takes the whole process down with an abort."""
    for worker in list(_workers):
        worker.close()
        worker.join(_PATIENCE)


class Worker:
    """Runs jobs one after another on a thread of its own; a newer job of the same key cancels the older one.

    Jobs must not raise: they report their own errors to whoever asked.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: dict[Hashable, Ticket] = {}
        self._running: dict[Hashable, Ticket] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        _workers.add(self)

    def submit(self, key: Hashable, job: Callable[[Ticket], None], priority: int = 0) -> Ticket:
        """Queue a job; the waiting and the running job of the same key are cancelled. Lower priorities go first."""
        ticket = Ticket(job, priority)
        with self._condition:
            if self._closed:
                raise RuntimeError("this session is closed: make a new Session to go on")
            self._cancel(key)
            self._waiting[key] = ticket
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="interpwidgets-worker", daemon=True)
                self._thread.start()
            self._condition.notify()
        return ticket

    def cancel(self, key: Hashable) -> None:
        """Cancel the waiting and the running job of this key."""
        with self._condition:
            self._cancel(key)

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._condition:
            self._closed = True
            for key in [*self._waiting, *self._running]:
                self._cancel(key)
            self._condition.notify()

    def join(self, timeout: float) -> None:
        """Wait for the thread of a closed worker to end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _cancel(self, key: Hashable) -> None:
        if ticket := self._running.get(key):
            ticket.cancel()
        if ticket := self._waiting.pop(key, None):
            ticket.cancel()
            ticket.run()

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                key = min(self._waiting, key=lambda k: self._waiting[k].priority)
                ticket = self._waiting.pop(key)
                self._running[key] = ticket
            try:
                ticket.run()
            finally:
                with self._condition:
                    self._running.pop(key, None)
            del ticket  # a waiting thread would hold the job's widget, and with it the model
