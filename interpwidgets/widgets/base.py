"""LiveWidget: what every widget of a session shares - binding, request and status, results, history, errors, code."""

from __future__ import annotations

import html
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar, Self
from uuid import uuid4

import traitlets as t
import xarray as xr

from ..engine.forward import Cancelled
from ..engine.interventions import Intervention
from ..engine.jobs import Ticket, check_cancelled
from ..engine.memory import is_out_of_memory
from ..engine.plain import require_keys, short
from ..engine.prompts import Prompt
from ..experiments import Experiment, Experiments
from ..presets import Preset, preset_named
from ..run import Run
from ..session import Session
from ..tokens import Tokens, elide
from .code import code_of_experiments, code_of_session
from .displaying import Displayed
from .exporting import Exporting
from .labels import label_parts, short_label
from .looks import Looks
from .observed import Observed
from .past import Past
from .recording import Recording
from .selection import Selection
from .unicode import drawable, encodable
from .view import OtherModelWarning, View
from .wire import Wire, header_to_wire, whole

_PROGRESS_SECONDS = 0.1  # at most ten updates a second reach the browser
_FIRST_FRAME_SECONDS = 4.0  # how long a display waits for the numbers of its static picture
_PATIENCE = 10.0  # seconds that a job which has handed its results over may take to end
_LONGEST_TEXT = 2000  # characters of an error that are drawn
_LARGEST_ID = 2**53  # whole numbers below this are exact in JavaScript
_MOST_CODE = 20_000  # characters of code that a still picture carries
_PROMPT_START = 60  # characters of a prompt that name a run
_REQUEST = "request"
"""Where a request's own errors are kept, beside the lanes' errors."""
_FROM_PAGE = ("_request", "_view_count", "_past_wanted")  # of the wire's own traits, those that the front end may set

_OF_HISTORY = ("undo", "redo", "toggle", "remove", "clear", "stop", "back_to")
_OF_ALL = ("preset",)
_OF_EXPERIMENTS = (
    "move",
    "rename",
    "set_strength",
    "group",
    "rename_group",
    "toggle_group",
    "remove_group",
    "pin",
    "unpin",
)
_OF_FILES = ("to_csv", "to_html")
"""Requests that every widget answers: by itself, by its list of experiments, and with a file."""


class LiveWidget(Looks, Displayed, Exporting):
    """A view that asks its session to run again.

    Every click in the view arrives as a request {id, op, ...} and calls the public method named `op`; from Python
    the same method does the same. Methods return at once; `wait()` blocks until the picture is up to date.
    """

    operations: ClassVar[tuple[str, ...]] = ()
    """Public methods that the front end may call, beside those of the history."""
    from_page: ClassVar[tuple[str, ...]] = ()
    """Of the traits whose names begin with _, those that the front end may set, beside those of every widget."""
    prompt_names: ClassVar[tuple[str, ...]] = ("prompt",)
    """What the prompts are called that the widget is made with."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Traits that say how the view looks, beside what is selected."""
    priority: ClassVar[int] = 0
    """Of several waiting jobs of a session, the lowest runs first: quick views before long sweeps."""

    linked = t.Bool(True, read_only=True).tag(sync=True)
    """Whether the widget shares `session.interventions` with the others; otherwise it has a list of its own."""
    selection = t.Instance(Selection, args=())
    """What is chosen; follows clicks, and is shown when it is set."""
    result = Observed(xr.Dataset, allow_none=True, read_only=True)
    """What is on the screen, as the widget's docstring says; None until the first run has ended."""

    _title = t.Unicode().tag(sync=True)
    _header = t.Dict().tag(sync=True)
    _request = t.Dict().tag(sync=True)
    _status = t.Dict().tag(sync=True)
    _experiments: t.List[Wire] = t.List().tag(sync=True)
    _history = t.Dict().tag(sync=True)
    _pinned = t.Dict().tag(sync=True)
    """What acts in the baseline, in words (`labels`), and whether something else acts now (`differs`)."""
    _code = t.Unicode().tag(sync=True)
    _run = t.Int(0).tag(sync=True)
    """The number of the run that is shown, in `history`."""
    _past: t.List[Wire] = t.List().tag(sync=True)
    """`history`, once the page has asked for it."""
    _past_wanted = t.Bool(False).tag(sync=True)
    _links: t.List[str] = t.List().tag(sync=True)
    """Ids of the links whose widgets show what is pointed at in one of them."""
    _prompts_now = t.Dict()
    """The prompts that were asked for last, for links to observe."""
    _embedded = t.Bool(False).tag(sync=True)
    """Whether it stands in a figure under another widget's header, prompt and experiments."""
    _still = t.Unicode().tag(sync=True)
    """The id of the still pictures that the page hides while the widget is alive."""

    def __init__(self, session: Session, *, linked: bool = True, **settings: Any) -> None:
        self.session = session
        self.experiments = session.interventions if linked else Experiments()
        """The interventions that act in this widget."""
        self._tickets: dict[str, Ticket] = {}
        self._recording = Recording()
        self._failures: dict[str, tuple[Exception, Wire]] = {}
        """By lane, an error and how it is drawn: a run's until the lane runs again, a request's until the next one."""
        self._last_progress = 0.0
        self._answered = 0  # the largest id of a request that was carried out
        self._idle_experiments: frozenset[Intervention] = frozenset()
        self._dormant = False
        self._visited = Past()
        self._observer = weakly(self._on_experiments)
        own = {
            "_header": header_to_wire(session),
            "_help": self._help_to_wire(session),
            "_still": f"iw-still-{uuid4().hex}",
        }
        super().__init__(_title=self.title, **own, **settings)
        self._own_layout = None if "layout" in settings else self.layout
        self.comm.on_msg(weakly(self._handle_msg))
        self._be_held(False)
        self.set_trait("linked", linked)
        # Turns the counting of views on: a widget whose outputs were cleared stops computing.
        self._view_count = 0
        session.widgets.add(self)
        self.experiments.observe(self._observer)
        self.observe(self._on_request, names="_request")
        self.observe(self._on_views, names="_view_count")
        self.observe(self._show_past, names="_past_wanted")
        self._show_experiments()

    # -- what subclasses give ----------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Run again what is on the screen."""
        # Asked and submitted in one hold of the lock: of two threads, the later to submit knows the newer experiments.
        with self.session.publishing:
            self._ask()
        self._prompts_now = self._prompts_asked()

    def _ask(self) -> None:
        """Submit what `refresh` runs."""
        raise NotImplementedError

    run: Callable[..., None]
    """Shows other prompts."""

    def code(self) -> str:
        """Python that rebuilds this view, where there is nothing but this package.

        Experiments come first or last, depending on whose they are. An array of more than a megabyte is not written
        out: `state` holds it.
        """
        name, entries = "session.interventions" if self.linked else "widget.experiments", self.experiments.entries
        experiments = code_of_experiments(name, entries, self.experiments.baseline)
        defaults = {name: self.traits()[name].default_value for name in (*self.settings, *self.looks)}
        given = {name: getattr(self, name) for name in defaults}
        changed = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
        arguments = ["session", *self._arguments(), *changed, *([] if self.linked else ["linked=False"])]
        made = [f"widget = iw.{type(self).__name__}({', '.join(arguments)})", *self._calls()]
        lines = [*experiments, *made] if self.linked else [*made, *experiments]
        return "\n".join([*code_of_session(self.session), *lines, "widget"])

    def runs(self) -> Iterable[Run]:
        """The runs that the widget holds to show them."""
        return ()

    def _arguments(self) -> list[str]:
        """The arguments that rebuild the view, as Python, without `settings`."""
        raise NotImplementedError

    def _run_preset(self, preset: Preset) -> None:
        raise NotImplementedError

    def _calls(self) -> list[str]:
        """Lines of Python that complete a rebuilt `widget`."""
        return []

    def _prompts_asked(self) -> dict[str, Tokens]:
        """The prompts that were asked for last, by `prompt_names`."""
        raise NotImplementedError

    def _about(self) -> str:
        """What was asked beside prompts and experiments, in words."""
        return ""

    def _settings(self) -> dict[str, Any]:
        """What a view needs beside prompts, selection and experiments."""
        return {name: getattr(self, name) for name in (*self.settings, *self.looks)}

    def _question(self, view: View) -> Any:
        """What of a view makes the model run again."""
        return view.prompts, [e.intervention for e in view.experiments if e.on], view.baseline

    def _adopt(self, view: View) -> Callable[[], None]:
        """What shows a view's prompts, settings and selection, but for running them.

        Raises TypeError or ValueError for what the model does not have.
        """
        raise NotImplementedError

    def _checked_selection(self, chosen: Selection) -> Selection:
        """The selection, complete. Raises TypeError or ValueError for a place that the view does not have."""
        raise NotImplementedError

    def _show_selection(self, chosen: Selection) -> None:
        """Show a selection that has been checked, unless it is what is shown."""
        raise NotImplementedError

    def _place_chosen(self) -> Selection:
        """The layer, head and position that linked widgets follow: of an attention edge, its query's."""
        chosen = self.selection
        return Selection(chosen.layer, chosen.head, chosen.query if chosen.position is None else chosen.position)

    def _following(self, place: Selection) -> Selection | None:
        """What shows a place that was chosen in a linked widget, as far as there is a place for it; None for nothing.

        It has a layer, head and position, or None for each of them.
        """
        raise NotImplementedError

    def _follow_prompt(self, prompt: Prompt) -> None:
        """Show the prompt of a linked widget, unless it is shown, or cannot be."""
        (shown,) = self._prompts_asked().values()
        if self.session.tokenize(prompt).prompt != shown.prompt:
            self.run(prompt)

    @t.validate("selection")
    def _in_the_view(self, proposal: Any) -> Selection:
        try:
            return self._checked_selection(proposal["value"])
        except (TypeError, ValueError) as error:
            raise t.TraitError(str(error)) from None

    @t.observe("selection")
    def _on_selection(self, change: Any) -> None:
        self._show_selection(change["new"])

    # -- presets -----------------------------------------------------------------------------------------------------

    def preset(self, name: str) -> None:
        """Show the prompt, or pair, of `iw.PRESETS` with this name. Raises ValueError if there is none."""
        self._run_preset(preset_named(name))

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
            running = [ticket for ticket in list(self._tickets.values()) if not ticket.ended]
            for ticket in running:
                ticket.cancel()
            self._tell("cancelled" if running else self._at_rest())

    @property
    def state(self) -> Wire:
        """All that the view is rebuilt from, as JSON; set it, or give it to `iw.restore`.

        To set it takes one step of the experiments' history. Raises TypeError or ValueError for what is no state, is of
        another kind of widget, or does not fit the model, and then changes nothing.
        """
        return self._view().to_json()

    @state.setter
    def state(self, state: Any) -> None:
        self._apply(View.from_json(state))

    @classmethod
    def rebuilt(cls, session: Session, view: View) -> Self:
        """A new widget that shows a view."""
        require_keys("prompts", view.prompts, set(cls.prompt_names))
        widget = cls(session, **view.prompts, linked=view.linked)
        try:
            widget._apply(view)
        except BaseException:
            widget.close()
            raise
        return widget

    @property
    def history(self) -> list[Wire]:
        """The runs that were shown, the newest first: number, time, prompt, experiments, and which is `current`."""
        return self._visited.summaries()

    def back_to(self, number: int) -> None:
        """Show a run of `history` again: its prompts, settings, selection and experiments.

        Nothing runs that the session still holds. Undo takes the experiments back. Looks stay as they are.
        """
        view = self._visited.view(number)
        looks = {name: getattr(self, name) for name in self.looks}
        self._apply(replace(view, settings=view.settings | looks))

    def _view(self) -> View:
        return View(
            widget=type(self).__name__,
            model=self.session.name,
            prepend_bos=self.session.prepend_bos,
            linked=self.linked,
            prompts={name: tokens.given for name, tokens in self._prompts_asked().items()},
            settings=self._settings(),
            selection=self.selection,
            experiments=self.experiments.entries,
            baseline=self.experiments.baseline,
        )

    def _apply(self, view: View) -> None:
        if view.widget != type(self).__name__:
            raise ValueError(f"the state is of {short(view.widget)}, and this widget is of {type(self).__name__!r}")
        if view.linked != self.linked:
            shared = "shares the session's experiments" if view.linked else "has experiments of its own"
            raise ValueError(f"the state is of a widget that {shared}: iw.restore(state, session) makes one")
        require_keys("prompts", view.prompts, set(self.prompt_names))
        take = self._adopt(view)
        if view.model != self.session.name:
            said = f"the state is of the model {view.model!r}, and is shown on {self.session.name!r}"
            warnings.warn(said, OtherModelWarning, stacklevel=3)
        if view.prepend_bos != self.session.prepend_bos:
            said = f"the state is of a session with prepend_bos={view.prepend_bos}, and this one's is"
            said = f"{said} {self.session.prepend_bos}: text is read as other tokens until session.prepend_bos is set"
            warnings.warn(said, OtherModelWarning, stacklevel=3)
        with self.session.publishing, self.hold_sync():
            take()
            if (view.experiments, view.baseline) != (self.experiments.entries, self.experiments.baseline):
                self.experiments.replace(view.experiments, view.baseline)
            self.refresh()

    def _checked_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """Those that are traits. Raises ValueError unless there are as many as `_settings` has, each of its kind."""
        require_keys("settings", given, set(self._settings()))
        checked = {}
        for name, trait in self.traits().items():
            if name in given:
                try:
                    checked[name] = trait._validate(self, given[name])
                except t.TraitError as error:
                    raise ValueError(str(error)) from None
        return checked

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
        for error in errors[-1:]:
            raise error

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
        self._failures.pop(_REQUEST, None)
        try:
            if not _is_id(number):
                raise ValueError(f"a request carries a whole number as its id, not {number!r}")
            self._answered = max(self._answered, number)
            if operation in _OF_EXPERIMENTS:
                getattr(self.experiments, operation)(**_checked_places(request))
            elif operation in (*_OF_HISTORY, *_OF_ALL, *self.operations):
                getattr(self, operation)(**request)
            elif operation in _OF_FILES:
                self._save_for_page(operation, number, **request)
            else:
                raise ValueError(f"unknown request {operation!r}")
        except Exception as error:  # noqa: BLE001 - drawn; in a callback it would be lost in the log
            self._fail(error)
        # What started a run has been acknowledged as queued; anything else is done already.
        if self._status["id"] != self._result_id():
            self._tell("running" if self._running() else self._at_rest())

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
                self._publish(results, ticket, round(1000 * (time.perf_counter() - started)), lane == "view")
            except Cancelled:
                pass
            except BaseException as error:  # noqa: BLE001 - drawn where the user looks, and raised by wait()
                with self.session.publishing:
                    if not ticket.cancelled:
                        ticket.finish()
                        self._fail(_as_exception(error), lane)
            if ticket.cancelled and self._tickets.get(lane) is ticket:  # stopped, not replaced by a newer one
                self._leave({} if left is None else left())

        with self.session.publishing:  # so that "queued" is said before the worker says more
            for each in (_REQUEST, lane):
                self._failures.pop(each, None)
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

    def _settled(self) -> bool:
        return not self._running() and not self._failures

    def _at_rest(self) -> str:
        """The state where nothing runs: what was stopped is an older picture until it has run."""
        ticket = self._tickets.get("view")
        return "cancelled" if ticket is not None and ticket.cancelled else "idle"

    def _publish(self, results: Wire, ticket: Ticket, milliseconds: int, whole: bool) -> None:
        with self.session.publishing:
            if ticket.cancelled:
                return
            ticket.finish()
            message, detail = results.pop("message", ""), results.pop("detail", "")
            result = results.pop("result", None)
            with self.hold_sync():
                self._header = header_to_wire(self.session)
                for name, value in results.items():
                    self._set_result(name, value)
                self._code = self.code()
                if whole:
                    self._note_visit()
                if self._settled():
                    self._record()
                state = "running" if self._running() else self._at_rest()
                self._tell(state, ms=milliseconds, message=message, detail=detail)
            if result is None:
                return
            # Last, when the picture is whole: its observers may run something else, or fail.
            try:
                self.set_trait("result", result)
            except Exception as error:  # noqa: BLE001 - drawn; the run itself has not failed
                self._fail(error, title=f"An observer of the result failed: {type(error).__name__}")

    def _note_visit(self) -> None:
        view = self._view()
        prompts = (tokens.text or " ".join(tokens.strings) for tokens in self._prompts_asked().values())
        summary = {
            "prompt": drawable(elide(" | ".join(prompts), _PROMPT_START)),
            "experiments": [e.name or short_label(e.intervention) for e in view.experiments if e.on],
            "about": self._about(),
        }
        self._visited.note(self._question(view), view, summary)
        self._run = self._visited.current
        self._show_past()

    def _show_past(self, change: Any = None) -> None:
        if self._past_wanted:
            self._past = self.history

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
                "ms": ms, "done": done, "total": total, "error": self._drawn(),
            }  # fmt: skip

    def _drawn(self) -> Wire | None:
        """The newest error, as it is drawn."""
        return next((drawn for _, drawn in reversed(list(self._failures.values()))), None)

    def _fail(self, error: Exception, lane: str = _REQUEST, title: str = "") -> None:
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

    def _show_experiments(self) -> None:
        with self.session.publishing, self.hold_sync():
            self._experiments = [self._experiment_to_wire(e) for e in self.experiments.entries]
            self._history = {"undo": self.experiments.can_undo, "redo": self.experiments.can_redo}
            pinned = self.experiments.baseline
            self._pinned = {"labels": [short_label(i) for i in pinned], "differs": tuple(self.experiments) != pinned}
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

    def _still_id(self) -> str:
        return self._still

    def static_frame(self) -> str:
        for ticket in list(self._tickets.values()):
            ticket.wait(_FIRST_FRAME_SECONDS)
        with self.session.publishing:
            return self._frame_as_html()

    def _frame_as_html(self) -> str:
        facts = " · ".join(
            [*(str(self._header[k]) for k in ("model", "dtype", "device")), self._header["check"]["summary"]]
        )
        acting = ("experiments", tuple(self.experiments)), ("baseline", self.experiments.baseline)
        said = ((name, ", ".join(short_label(i) for i in interventions)) for name, interventions in acting)
        experiments = "".join(f"<div>{name}: {html.escape(text)}</div>" for name, text in said if text)
        failed = self._drawn()
        if failed is not None:
            text = html.escape(f"{failed['title']}: {failed['text']}")
            experiments += f"<div><b>The picture is from the run before.</b> {text}</div>"
        return (
            '<div style="font:13px/1.5 system-ui,sans-serif;max-width:900px">'
            f"<div><b>{html.escape(self.title)}</b> {html.escape(facts)}</div>"
            f"{experiments}{self._static_picture()}{_static_code(self.code())}"
            '<div style="color:#888">A still picture: run the cell to click in it.</div></div>'
        )


def _static_code(code: str) -> str:
    """The way back to what is on the screen, for a cell that would make the widget as it was at first."""
    if len(code) > _MOST_CODE:
        return ""
    style = "font:12px/1.5 monospace;white-space:pre-wrap;overflow-wrap:anywhere"
    said = "Python that shows this picture live again"
    return f'<details><summary>{said}</summary><pre style="{style}">{html.escape(code)}</pre></details>'


def _checked_places(request: dict[str, Any]) -> dict[str, Any]:
    """Places in the list of experiments, as the page sends them."""
    checked = {name: whole(value, name) if name in ("index", "to") else value for name, value in request.items()}
    return checked | ({"indices": [whole(i, "indices") for i in request["indices"]]} if "indices" in request else {})


def _is_id(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _LARGEST_ID


def weakly(method: Callable[..., None]) -> Callable[..., None]:
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
    if "out of range" in str(error) and experiments.baseline:
        return "The baseline addresses a place that this prompt does not have: unpin it, or choose another prompt."
    if is_out_of_memory(error):
        return "Shorten the prompt, or lower session.memory_budget."
    return ""
