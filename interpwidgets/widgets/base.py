"""LiveWidget: what every widget of a session shares - binding, request and status, results, history, errors, code."""

from __future__ import annotations

import html
import operator
import time
import traceback
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import numpy as np
import traitlets as t
from ipywidgets.widgets.widget import _instances

from ..engine.forward import Cancelled
from ..engine.interventions import Intervention
from ..engine.jobs import Ticket, check_cancelled
from ..engine.memory import is_out_of_memory
from ..engine.prompts import SourceTarget
from ..experiments import Experiment, Experiments
from ..run import Run
from ..session import Session
from ..tokens import Tokens, written_ids
from .labels import label_parts, short_label
from .unicode import drawable, encodable

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PROGRESS_SECONDS = 0.1  # at most ten updates a second reach the browser
_FIRST_FRAME_SECONDS = 4.0  # how long a display waits for the numbers of its static picture
_LONGEST_TEXT = 2000  # characters of an error that are drawn
_LARGEST_ID = 2**53  # whole numbers below this are exact in JavaScript
_FROM_PAGE = ("_request", "_view_count")  # of the wire's own traits, those that the front end may set

_OF_HISTORY = ("undo", "redo", "toggle", "remove", "clear", "stop")
_OF_EXPERIMENTS = ("move", "rename", "set_strength", "group", "rename_group", "toggle_group", "remove_group")
"""Requests that every widget answers: by itself, and by its list of experiments."""

Wire = dict[str, Any]


def to_wire(array: np.ndarray | None, *, triangle: bool = False) -> Wire | None:
    """An array as the front end decodes it: bytes, dtype and shape; floats as float32, ints as int32.

    `triangle`: of its last two axes, which are of one length, only what is not above the diagonal travels.
    """
    if array is None:
        return None
    kind = {"f": np.float32, "i": np.int32}.get(array.dtype.kind, array.dtype)
    shape = list(array.shape)
    if triangle:
        rows, columns = np.tril_indices(shape[-1])
        array = array[..., rows, columns]
    array = np.ascontiguousarray(array, dtype=kind)
    return {"view": memoryview(array.tobytes()), "dtype": str(array.dtype), "shape": shape, "triangle": triangle}


class LiveWidget(anywidget.AnyWidget):
    """A view that asks its session to run again.

    Every click in the view arrives as a request {id, op, ...} and calls the public method named `op`; from Python
    the same method does the same. Methods return at once; `wait()` blocks until the picture is up to date.
    """

    title: ClassVar[str]
    operations: ClassVar[tuple[str, ...]] = ()
    """Public methods that the front end may call, beside those of the history."""
    from_page: ClassVar[tuple[str, ...]] = ()
    """Of the traits whose names begin with _, those that the front end may set, beside those of every widget."""
    priority: ClassVar[int] = 0
    """Of several waiting jobs of a session, the lowest runs first: quick views before long sweeps."""

    linked = t.Bool(True, read_only=True).tag(sync=True)
    """Whether the widget shares `session.interventions` with the others; otherwise it has a list of its own."""

    _title = t.Unicode().tag(sync=True)
    _header = t.Dict().tag(sync=True)
    _request = t.Dict().tag(sync=True)
    _status = t.Dict().tag(sync=True)
    _experiments: t.List[Wire] = t.List().tag(sync=True)
    _history = t.Dict().tag(sync=True)
    _code = t.Unicode().tag(sync=True)

    def __init__(self, session: Session, *, linked: bool = True, **settings: Any) -> None:
        self.session = session
        self.experiments = session.interventions if linked else Experiments()
        """The interventions that act in this widget."""
        self._tickets: dict[str, Ticket] = {}
        self._error: Exception | None = None
        self._drawn: Wire | None = None  # stays in the status until the next request, whatever else ends meanwhile
        self._last_progress = 0.0
        self._answered = 0  # the largest id of a request that was carried out
        self._idle_experiments: frozenset[Intervention] = frozenset()
        self._dormant = False
        self._observer = _weakly(self._on_experiments)
        super().__init__(_title=self.title, _header=_header(session), **settings)
        self._own_layout = None if "layout" in settings else self.layout
        self.comm.on_msg(_weakly(self._handle_msg))
        self._be_held(False)
        self.set_trait("linked", linked)
        # Turns the counting of views on: a widget whose outputs were cleared stops computing.
        self._view_count = 0
        session.widgets.add(self)
        self.experiments.observe(self._observer)
        self.observe(self._on_request, names="_request")
        self.observe(self._on_views, names="_view_count")
        self._show_experiments()

    # -- what subclasses give ----------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Run again what is on the screen."""
        # Asked and submitted in one hold of the lock: of two threads, the later to submit knows the newer experiments.
        with self.session.publishing:
            self._ask()

    def _ask(self) -> None:
        """Submit what `refresh` runs."""
        raise NotImplementedError

    def code(self) -> str:
        """Python that rebuilds this view, given the session."""
        return _experiments_code(self.experiments, self.linked) + self._code_of_view()

    def figure(self) -> go.Figure:
        """What is on the screen as a plotly figure; waits until nothing is running."""
        raise NotImplementedError

    def runs(self) -> Iterable[Run]:
        """The runs that the widget holds to show them."""
        return ()

    def _code_of_view(self) -> str:
        raise NotImplementedError

    def _static_picture(self) -> str:
        """HTML for places without a kernel; at most 100 KB."""
        raise NotImplementedError

    # -- history, the same in every widget ---------------------------------------------------------------------------

    def undo(self) -> None:
        """Take back the last change of the experiments."""
        self.experiments.undo()

    def redo(self) -> None:
        """Do the last undone change again."""
        self.experiments.redo()

    def toggle(self, index: int) -> None:
        """Switch the experiment at `index` off or on."""
        self.experiments.toggle(index)

    def remove(self, index: int) -> None:
        """Remove the experiment at `index`."""
        self.experiments.pop(index)

    def clear(self) -> None:
        """Remove all experiments."""
        self.experiments.clear()

    def stop(self) -> None:
        """Stop what is running; the last picture stays."""
        with self.session.publishing:
            for ticket in list(self._tickets.values()):
                ticket.cancel()
            self._tell("cancelled")

    def wait(self, timeout: float | None = None) -> None:
        """Block until nothing is running. Raises the run's error, or TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while running := [ticket for ticket in list(self._tickets.values()) if not ticket.ended]:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not running[0].wait(left):
                raise TimeoutError(f"{self.title} is still running after {timeout} s")
        with self.session.publishing:  # a job counts as ended while it hands its results over
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Let go of the session and remove the widget from the page."""
        if not hasattr(self, "_tickets"):  # its arguments were refused: there is nothing to let go of
            return
        # In one hold of the lock: what the worker publishes meanwhile would hold back the page's last messages.
        with self.session.publishing:
            for ticket in list(self._tickets.values()):
                ticket.cancel()
            if self in self.session.widgets:
                self.session.widgets.discard(self)
                self._tell("closed", message="This widget is closed: make a new one to go on")
                # The page would go on counting views of a model that has no channel any more.
                self.set_trait("_view_count", None)
            self._release()
            self._disconnect()

    def __del__(self) -> None:
        # The collector runs on any thread, holding any lock: nothing here waits for one.
        self._disconnect()

    def _disconnect(self) -> None:
        if "_observer" in vars(self):
            self.experiments.unobserve(self._observer)
        layout = vars(self).get("_own_layout")
        if layout is not None:
            layout.close()
        super().close()

    def _be_held(self, held: bool) -> None:
        """Keep the widget while it can be seen; otherwise it lives as long as something of the user's refers to it.

        ipywidgets' register would keep every widget for ever, and with it its session and model.
        """
        if self.comm is not None:
            _instances[self.model_id] = self if held else weakref.proxy(self)

    def _release(self) -> None:
        """Drop what `refresh` computes again: runs, which may be large. The picture stays."""

    # -- the wire ----------------------------------------------------------------------------------------------------

    def get_state(self, *args: Any, **kwargs: Any) -> Any:
        return encodable(super().get_state(*args, **kwargs))

    def _send(self, msg: Any, buffers: Any = None) -> None:
        # What the page sent is echoed to it, as it came.
        super()._send(encodable(msg), buffers=buffers)

    # -- requests ----------------------------------------------------------------------------------------------------

    def set_state(self, sync_data: Any) -> None:
        # Messages may come on another thread than the worker's, and ipywidgets keeps its sync state in attributes.
        with self.session.publishing:
            # One by one, the request last: ipywidgets drops a whole message for one value that does not fit.
            for name in sorted(sync_data, key=lambda name: name == "_request"):
                if not self._may_come_from_page(name):
                    continue
                try:
                    super().set_state({name: sync_data[name]})
                except Exception as error:  # noqa: BLE001 - drawn; in a callback it would be lost in the log
                    self._fail(error)
                    self.send_state(name)  # the page shows what holds

    def _may_come_from_page(self, name: str) -> bool:
        trait = self.traits().get(name)
        own = not name.startswith("_") or name in (*_FROM_PAGE, *self.from_page)
        return trait is not None and not trait.read_only and own

    def _on_request(self, change: Any) -> None:
        request = dict(change["new"])
        earlier = request.pop("before", [])
        for each in [*(earlier if isinstance(earlier, list) else []), request]:
            # Those before the newest came by themselves if nothing was in their way.
            if each is request or (isinstance(each, dict) and _is_id(each.get("id")) and each["id"] > self._answered):
                self._carry_out(dict(each))

    def _carry_out(self, request: Wire) -> None:
        """Do what one request asks for."""
        operation = request.pop("op", None)
        number = request.pop("id", None)
        self._error = self._drawn = None
        try:
            if not _is_id(number):
                raise ValueError(f"a request carries a whole number as its id, not {number!r}")
            self._answered = max(self._answered, number)
            if operation in _OF_EXPERIMENTS:
                getattr(self.experiments, operation)(**_checked_places(request))
            elif operation in (*_OF_HISTORY, *self.operations):
                getattr(self, operation)(**request)
            else:
                raise ValueError(f"unknown request {operation!r}")
        except Exception as error:  # noqa: BLE001 - drawn; in a callback it would be lost in the log
            self._fail(error)
        # What started a run has been acknowledged as queued; anything else is done already.
        if self._status["id"] != self._result_id():
            self._tell("running" if self._running() else "idle")

    def _on_experiments(self) -> None:
        self._show_experiments()
        self._renew()

    def _on_views(self, change: Any) -> None:
        if change["new"] == 0 and change["old"]:
            self._dormant = True
            self._be_held(False)
            self._release()
        elif change["new"]:
            self._be_held(True)
            if self._dormant:
                self._dormant = False
                self.refresh()

    def _renew(self) -> None:
        if not self._dormant:
            self.refresh()

    # -- jobs and results --------------------------------------------------------------------------------------------

    def _submit(self, compute: Callable[[], Wire], lane: str = "view", left: Callable[[], Wire] | None = None) -> None:
        """Compute on the session's worker and publish the traits that come back.

        Among them may be a "message" for the status line, and a "detail" that shows when it is pointed at.

        Newer work in a lane replaces older. `left` gives what stays if it is stopped; by default the last picture.
        """

        def job(ticket: Ticket) -> None:
            started = time.perf_counter()
            try:
                with self.session.publishing:
                    check_cancelled()
                    self._tell("running")
                results = compute()
                self._publish(results, ticket, round(1000 * (time.perf_counter() - started)))
            except Cancelled:
                pass
            except BaseException as error:  # noqa: BLE001 - drawn where the user looks, and raised by wait()
                with self.session.publishing:
                    if not ticket.cancelled:
                        ticket.finish()
                        self._fail(_as_exception(error))
            if ticket.cancelled and self._tickets.get(lane) is ticket:  # stopped, not replaced by a newer one
                self._leave({} if left is None else left())

        with self.session.publishing:  # so that "queued" is said before the worker says more
            self._error = self._drawn = None
            try:
                self._tickets[lane] = self.session.worker.submit((id(self), lane), job, self.priority)
            except RuntimeError as error:
                self._tell("closed", message=str(error))
            else:
                self._tell("queued")

    def _leave(self, results: Wire) -> None:
        """Say that the work was stopped, with what it came to."""
        with self.session.publishing, self.hold_sync():
            message = results.pop("message", "")
            for name, value in results.items():
                self.set_trait(name, value)
            self._tell("cancelled", message=message)

    def _show(self, results: Wire, message: str = "", detail: str = "") -> None:
        """Publish what is known so far, from outside of a pass."""
        with self.session.publishing, self.hold_sync():
            check_cancelled()
            for name, value in results.items():
                self.set_trait(name, value)
            self._tell("running", message=message, detail=detail)

    def _running(self) -> bool:
        return any(not (ticket.ended or ticket.cancelled) for ticket in list(self._tickets.values()))

    def _publish(self, results: Wire, ticket: Ticket, milliseconds: int) -> None:
        with self.session.publishing, self.hold_sync():
            if ticket.cancelled:
                return
            ticket.finish()
            message, detail = results.pop("message", ""), results.pop("detail", "")
            self._header = _header(self.session)
            for name, value in results.items():
                self._set_result(name, value)
            self._code = self.code()
            self._tell("running" if self._running() else "idle", ms=milliseconds, message=message, detail=detail)

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
        return number if _is_id(number) else self._status.get("id", 0)

    def _tell(
        self, state: str, *, message: str = "", detail: str = "", ms: int = 0, done: int = 0, total: int = 0
    ) -> None:
        with self.session.publishing:
            self._status = {
                "id": self._result_id(), "state": state, "message": message, "detail": detail,
                "ms": ms, "done": done, "total": total, "error": self._drawn,
            }  # fmt: skip

    def _fail(self, error: Exception) -> None:
        # The frames of a failed run hold its activations.
        traceback.clear_frames(error.__traceback__)
        text = drawable(str(error) or type(error).__name__)
        if len(text) > _LONGEST_TEXT:
            text = f"{text[:_LONGEST_TEXT]} … ({len(text)} characters)"
        with self.session.publishing:
            self._error = error
            self._drawn = {"title": _error_title(error), "text": text, "hint": _error_hint(error, self.experiments)}
            self._tell("error")

    def _show_experiments(self) -> None:
        with self.session.publishing, self.hold_sync():
            self._experiments = [self._experiment_to_wire(e) for e in self.experiments.entries]
            self._history = {"undo": self.experiments.can_undo, "redo": self.experiments.can_redo}
            self._code = self.code()

    def _experiment_to_wire(self, experiment: Experiment) -> Wire:
        intervention = experiment.intervention
        before, strength, after = label_parts(intervention)
        return {
            "label": short_label(intervention),
            "name": experiment.name,
            "group": experiment.group,
            "code": repr(intervention),
            "on": experiment.on,
            "note": "changed nothing here" if experiment.on and intervention in self._idle_experiments else "",
            "strength": None if strength is None else {"value": strength, "before": before, "after": after},
        }

    def _note_idle(self, acting: tuple[Intervention, ...], idle: tuple[int, ...]) -> None:
        """Mark the experiments that changed nothing on this widget's prompt."""
        self._idle_experiments = frozenset(acting[i] for i in idle)
        self._show_experiments()

    # -- display -----------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session.name})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        self._be_held(True)
        data, metadata = bundle
        return encodable({**data, "text/html": self.static_frame()}), metadata

    def static_frame(self) -> str:
        """What is on the screen as plain HTML, for places where no kernel runs."""
        for ticket in list(self._tickets.values()):
            ticket.wait(_FIRST_FRAME_SECONDS)
        with self.session.publishing:
            return self._frame_as_html()

    def _frame_as_html(self) -> str:
        facts = " · ".join(
            [*(str(self._header[k]) for k in ("model", "dtype", "device")), self._header["check"]["summary"]]
        )
        acting = ", ".join(short_label(i) for i in self.experiments)
        experiments = f"<div>experiments: {html.escape(acting)}</div>" if acting else ""
        return (
            '<div style="font:13px/1.5 system-ui,sans-serif;max-width:900px">'
            f"<div><b>{html.escape(self.title)}</b> {html.escape(facts)}</div>"
            f"{experiments}{self._static_picture()}"
            '<div style="color:#888">A still picture: run the cell to click in it.</div></div>'
        )


def prompt_to_wire(tokens: Tokens, session: Session) -> Wire:
    """A prompt as the front end shows it."""
    raw = [session.token_text(i) for i in tokens.ids]
    long = session.context.note(len(tokens))
    return {
        "text": tokens.text,
        "bos": f"{tokens.bos} · {long}" if long else tokens.bos,
        "answer_position": session.answer_position(tokens),
        "tokens": [
            {"id": i, "text": s, "raw": r, "special": special}
            for i, s, r, special in zip(tokens.ids, tokens.strings, raw, tokens.special, strict=True)
        ],
        "source": None if tokens.source is None else prompt_to_wire(tokens.source, session),
    }


def parse_prompt(session: Session, prompt: Any, shown: Tokens | None = None) -> Any:
    """A prompt as typed: text, or ids separated by commas or spaces where the session has no tokenizer.

    The page may type one text of a pair, {"source": text} or {"target": text}; the other stays as it is `shown`.
    """
    if isinstance(prompt, dict) and shown is not None and isinstance(shown.given, SourceTarget):
        return replace(shown.given, **{name: parse_prompt(session, text) for name, text in prompt.items()})
    if isinstance(prompt, SourceTarget):
        return SourceTarget(parse_prompt(session, prompt.source), parse_prompt(session, prompt.target))
    return written_ids(prompt) if isinstance(prompt, str) and session.tokenizer is None else prompt


def prompt_code(tokens: Tokens) -> str:
    """A prompt as Python: its text, or its ids where it has none."""
    return repr(list(tokens.ids) if tokens.text is None and tokens.source is None else tokens.given)


def _header(session: Session) -> Wire:
    a = session.engine.architecture
    checked = session.checked
    details = [{"name": i.name, "text": f"largest error {i.error:.1e}", "ok": i.ok} for i in checked.items]
    unknown = [{"name": "device", "text": checked.on_cpu, "ok": True}] if isinstance(checked.on_cpu, str) else []
    form = "one pass for all cells" if checked.one_pass else "full batch: this attention cannot let rows join late"
    return {
        "model": drawable(session.name),
        "dtype": session.engine.dtype_name,
        "device": str(session.engine.device),
        "attention": " / ".join(sorted(set(session.engine.implementation.names()))),
        "layers": a.n_layers,
        "heads": max(a.n_heads),
        "kv_heads": max(a.n_kv_heads),
        "causal": session.causal,
        "mask": getattr(session.tokenizer, "mask_token", None),
        "note": session.note,
        "check": {
            "ok": checked.ok,
            "summary": checked.summary,
            "details": [*details, {"name": "sweeps", "text": form, "ok": True}, *unknown],
        },
    }


def whole(value: Any, name: str) -> int:
    """A whole number from the front end. Raises TypeError, naming it, for anything else."""
    if isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: a whole number is needed")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: a whole number is needed") from None


def _checked_places(request: dict[str, Any]) -> dict[str, Any]:
    """Places in the list of experiments, as the page sends them."""
    checked = {name: whole(value, name) if name in ("index", "to") else value for name, value in request.items()}
    return checked | ({"indices": [whole(i, "indices") for i in request["indices"]]} if "indices" in request else {})


def _is_id(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _LARGEST_ID


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """A callback that does not keep the widget alive."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        alive = reference()
        if alive is not None:
            alive(*args)

    return call


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
    if is_out_of_memory(error):
        return "Shorten the prompt, or lower session.memory_budget."
    return ""


def _experiments_code(experiments: Experiments, linked: bool) -> str:
    if not len(experiments):
        return ""
    name = "session.interventions" if linked else "widget.experiments"
    plain = ((e.intervention if e == Experiment(e.intervention) else e) for e in experiments.entries)
    lines = "\n".join(f"    {e!r}," for e in plain)
    return f"{name}.extend([\n{lines}\n])\n"
