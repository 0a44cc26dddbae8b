"""What a widget runs on its session's worker, and how it says where that stands: status, results, errors."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

import traitlets as t

from ..engine.forward import Cancelled
from ..engine.jobs import Ticket, check_cancelled
from ..engine.memory import is_out_of_memory
from ..experiments import Experiments
from ..session import Session
from .displaying import Displayed
from .saving import Saving
from .unicode import drawable
from .wire import Wire, header_to_wire

_PROGRESS_SECONDS = 0.1  # at most ten updates a second reach the browser
_PATIENCE = 10.0  # seconds that a job which has handed its results over may take to end
_LONGEST_TEXT = 2000  # characters of an error that are drawn
_LARGEST_ID = 2**53  # whole numbers below this are exact in JavaScript
REQUEST = "request"
"""Where a request's own errors are kept, beside the lanes' errors."""


class Running(Displayed, Saving):
    """A view whose work is done by its session's worker, the newest of each kind."""

    _header = t.Dict().tag(sync=True)
    _request = t.Dict().tag(sync=True)
    """What the page asked for last; its id stands in the status and in the results that follow."""
    _status = t.Dict().tag(sync=True)
    _code = t.Unicode().tag(sync=True)

    session: Session
    priority: ClassVar[int]
    code: Callable[[], str]
    _note_visit: Callable[[], None]
    _asked_now: Callable[[], Any]

    def __init__(self, **traits: Any) -> None:
        self._tickets: dict[str, Ticket] = {}
        self._failures: dict[str, tuple[Exception, Wire | None]] = {}
        """By lane, an error, and how it is drawn: a run's until the lane runs again, a request's until the next one."""
        self._last_progress = 0.0
        self._of_what_was_asked = False
        """Whether the picture is of the newest question, and not of one before that was stopped or has failed."""
        super().__init__(**traits)

    def wait(self, timeout: float | None = None) -> None:
        """Block until nothing is running. Raises the run's error, or TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while running := [ticket for ticket in list(self._tickets.values()) if not ticket.ended]:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not running[0].wait(left):
                raise TimeoutError(f"{self.title} is still running after {timeout} s")
        with self.session.publishing:  # a job counts as ended while it hands its results over
            errors = [error for error, _ in self._failures.values()]
        # Who lets go of everything next frees the model: the worker must not hold it a moment longer.
        for ticket in list(self._tickets.values()):
            ticket.wait_until_left(_PATIENCE)
        if errors:
            raise errors[-1]

    def stop(self) -> None:
        """Stop what is running; the last picture stays."""
        with self.session.publishing:
            running = [ticket for ticket in list(self._tickets.values()) if not ticket.ended]
            for ticket in running:
                ticket.cancel()
            self._tell("cancelled" if running else self._at_rest())

    def _submit(self, compute: Callable[[], Wire], lane: str = "view", left: Callable[[], Wire] | None = None) -> None:
        """Compute on the session's worker and publish the traits that come back.

        Among them may be a "message" for the status line, a "detail" that shows when it is pointed at, and "at_last",
        which gives more traits once nothing can be chosen any more before they are published.

        Newer work in a lane replaces older. `left` gives what stays if it is stopped; by default the last picture.
        """

        def job(ticket: Ticket) -> None:
            started = time.perf_counter()
            try:
                with self.session.publishing:
                    check_cancelled()
                    self._tell("running")
                results = compute()
                milliseconds = round(1000 * (time.perf_counter() - started))
                self._publish(results, ticket, milliseconds, asked if lane == "view" else None)
            except Cancelled:
                pass
            except BaseException as error:  # noqa: BLE001 - drawn where the user looks, and raised by wait()
                with self.session.publishing:
                    if not ticket.cancelled:
                        ticket.finish()
                        self._fail(_as_exception(error), lane)
            if ticket.cancelled and self._tickets.get(lane) is ticket:  # stopped, not replaced by a newer one
                self._leave({} if left is None else left(), lane)

        with self.session.publishing:  # so that "queued" is said before the worker says more
            for each in (REQUEST, lane):
                self._failures.pop(each, None)
            if lane == "view":
                self._of_what_was_asked = False
            asked = self._asked_now()
            try:
                self._tickets[lane] = self.session.worker.submit((id(self), lane), job, self.priority)
            except RuntimeError as error:
                self._failures[lane] = error, None  # `wait` raises it
                self._tell("closed", message=str(error))
            else:
                self._tell("queued")

    def _leave(self, results: Wire, lane: str) -> None:
        """Say that the work was stopped, with what it came to."""
        with self.session.publishing:
            message, result = results.pop("message", ""), results.pop("result", None)
            with self.hold_sync():
                for name, value in results.items():
                    self.set_trait(name, value)
                if results and lane == "view":
                    self._of_what_was_asked = True
                self._tell("cancelled", message=message)
            self._tell_observers(result)

    def _show(self, results: Wire, message: str = "", detail: str = "") -> None:
        """Publish what is known so far, from outside of a pass."""
        with self.session.publishing, self.hold_sync():
            check_cancelled()
            for name, value in results.items():
                self.set_trait(name, value)
            self._tell("running", message=message, detail=detail)

    def _running(self) -> bool:
        return any(not (ticket.ended or ticket.cancelled) for ticket in list(self._tickets.values()))

    def _settled(self) -> bool:
        panels = self._stopped() - {"view"}  # what a stop left of the view itself is what was asked for, or is not
        return self._of_what_was_asked and not self._running() and not self._failures and not panels

    def _stopped(self) -> set[str]:
        return {lane for lane, ticket in list(self._tickets.items()) if ticket.cancelled}

    def _at_rest(self) -> str:
        """The state where nothing runs: what was stopped is an older picture until it has run."""
        return "cancelled" if self._stopped() else "idle"

    def _publish(self, results: Wire, ticket: Ticket, milliseconds: int, asked: Any) -> None:
        """Show what a job has come to; `asked` is what was asked for, if it is the view itself."""
        with self.session.publishing:
            if ticket.cancelled:
                return
            ticket.finish()
            results |= results.pop("at_last", dict)()
            message, detail = results.pop("message", ""), results.pop("detail", "")
            result = results.pop("result", None)
            with self.hold_sync():
                self._header = header_to_wire(self.session)
                for name, value in results.items():
                    self._set_result(name, value)
                self._code = self.code()
                # Otherwise something else has been asked for meanwhile, and is about to run.
                if asked is not None and asked == self._asked_now():
                    self._of_what_was_asked = True
                    self._note_visit()
                if self._settled():
                    self._record()
                state = "running" if self._running() else self._at_rest()
                self._tell(state, ms=milliseconds, message=message, detail=detail)
            self._tell_observers(result)

    def _tell_observers(self, result: Any) -> None:
        """Set the result, last, when the picture is whole: its observers may run something else, or fail."""
        if result is None:
            return
        try:
            self.set_trait("result", result)
        except Exception as error:  # noqa: BLE001 - drawn; the run itself has not failed
            self._fail(error, title=f"An observer of the result failed: {type(error).__name__}")

    def _set_result(self, name: str, value: Any) -> None:
        """Set a trait of results, unless it would say again what it says: only what has changed travels."""
        shown = getattr(self, name)
        if not (isinstance(value, dict) and isinstance(shown, dict) and value | {"id": 0} == shown | {"id": 0}):
            self.set_trait(name, value)

    def _publish_part(self, results: Callable[[], Wire]) -> None:
        """Publish what is known so far, at most ten times a second."""
        if time.perf_counter() - self._last_progress >= _PROGRESS_SECONDS:

            def show() -> None:
                with self.hold_sync():
                    for name, value in results().items():
                        self.set_trait(name, value)

            self._unless_busy(show)

    def _progress(self, done: int, total: int, message: str = "", detail: str = "") -> None:
        if time.perf_counter() - self._last_progress >= _PROGRESS_SECONDS or done == total:
            self._unless_busy(lambda: self._tell("running", done=done, total=total, message=message, detail=detail))

    def _unless_busy(self, show: Callable[[], None]) -> None:
        """Show something from inside a pass, which must not wait for a thread that may be waiting for the model."""
        if self.session.publishing.acquire(blocking=False):
            try:
                check_cancelled()  # or "running" would be the last word on a job that was stopped
                self._last_progress = time.perf_counter()
                show()
            finally:
                self.session.publishing.release()

    def _result_id(self) -> int:
        """The id of the newest request; of the one before if it has none."""
        number = self._request.get("id", 0)
        return number if is_id(number) else self._status.get("id", 0)

    def _tell(
        self, state: str, *, message: str = "", detail: str = "", ms: int = 0, done: int = 0, total: int = 0
    ) -> None:
        with self.session.publishing:
            self._status = {
                "id": self._result_id(), "state": state, "message": message, "detail": detail,
                "ms": ms, "done": done, "total": total, "error": self._drawn(),
            }  # fmt: skip

    def _drawn(self) -> Wire | None:
        """The newest error, as it is drawn."""
        return next((drawn for _, drawn in reversed(list(self._failures.values())) if drawn is not None), None)

    def _fail(self, error: Exception, lane: str = REQUEST, title: str = "") -> None:
        # The frames of a failed run hold its activations.
        traceback.clear_frames(error.__traceback__)
        text = drawable(str(error) or type(error).__name__)
        if len(text) > _LONGEST_TEXT:
            text = f"{text[:_LONGEST_TEXT]} … ({len(text)} characters)"
        with self.session.publishing:
            self._failures.pop(lane, None)
            hint = _error_hint(error, self.experiments)
            self._failures[lane] = error, {"title": title or _error_title(error), "text": text, "hint": hint}
            self._tell("error")


def is_id(number: Any) -> bool:
    """Whether a request can carry this as its id."""
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _LARGEST_ID


def _as_exception(error: BaseException) -> Exception:
    """What `wait` may raise: a SystemExit from a hook of the user's must not end the kernel from another thread."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__} was raised in the run")


def _error_title(error: Exception) -> str:
    if isinstance(error, ValueError | TypeError | KeyError | IndexError | t.TraitError):
        return "This cannot be run"
    return f"The run failed: {type(error).__name__}"


def _error_hint(error: Exception, experiments: Experiments) -> str:
    if "out of range" in str(error) and len(experiments):
        return "An experiment addresses a place that this prompt does not have: remove it, or choose another prompt."
    if "out of range" in str(error) and experiments.baseline:
        return "The baseline addresses a place that this prompt does not have: unpin it, or choose another prompt."
    if is_out_of_memory(error):
        return "Shorten the prompt, or lower session.memory_budget."
    return ""
