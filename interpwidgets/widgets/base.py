"""LiveWidget: what every widget of a session shares, what each gives, and how one is made, displayed and closed."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self
from uuid import uuid4

import traitlets as t
import xarray as xr

from ..engine.plain import require_keys
from ..engine.prompts import Prompt
from ..experiments import Experiments
from ..presets import Preset, preset_named
from ..run import Run
from ..session import Session
from ..tokens import Tokens, elide
from .answering import Answering
from .code import code_of_experiments, code_of_session
from .displaying import weakly
from .given import check_session, check_settings
from .labels import short_label
from .observed import Observed
from .recording import Recording
from .selection import Selection
from .still import live_again
from .unicode import drawable
from .view import View
from .wire import header_to_wire

_FIRST_FRAME_SECONDS = 4.0  # how long a display waits for the numbers of its static picture
_LONGEST_CAPTION = 300  # characters of a prompt under a picture
_OLDER = "The picture is from the run before"


class LiveWidget(Answering):
    """A view that asks its session to run again.

    Every click in the view arrives as a request {id, op, ...} and calls the public method named `op`; from Python
    the same method does the same. Methods return at once; `wait()` blocks until the picture is up to date.
    """

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
    _links: t.List[str] = t.List().tag(sync=True)
    """Ids of the links whose widgets show what is pointed at in one of them."""
    _prompts_now = t.Dict()
    """The prompts that were asked for last, for links to observe."""
    _embedded = t.Bool(False).tag(sync=True)
    """Whether it stands in a figure under another widget's header, prompt and experiments."""
    _code_of_all = t.Unicode().tag(sync=True)
    """The code of the figure that its header is of, if that is of more than this widget."""
    _still = t.Unicode().tag(sync=True)
    """The id of the still pictures that the page hides while the widget is alive."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        check_session(cls, cls.prompt_names, kwargs.get("session", args[0] if args else None))
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, session: Session, *, linked: bool = True, **settings: Any) -> None:
        check_settings(type(self), settings)
        self.session = session
        self.experiments = session.interventions if linked else Experiments()
        """The interventions that act in this widget."""
        self._recording = Recording()
        self._dormant = False
        self._outdated = False
        """Whether something has been changed while nobody looked."""
        self._observer = weakly(self._on_experiments)
        own = {
            "_header": header_to_wire(session),
            "_help": self._help_to_wire(session, teaching=False),
            "_still": f"iw-still-{uuid4().hex}",
        }
        super().__init__(_title=self.title, **own, **settings)
        self._own_layout = None if "layout" in settings else self.layout
        self._listen()
        self.set_trait("linked", linked)
        # Turns the counting of views on: a widget whose outputs were cleared stops computing.
        self._view_count = 0
        session.widgets.add(self)
        self.experiments.observe(self._observer)
        self.observe(self._on_views, names="_view_count")
        self.observe(self._on_settings, names=[*self.settings, *self.looks, "selection"])
        self._show_experiments()

    # -- what subclasses give ----------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Run again what is on the screen."""
        # Asked and submitted in one hold of the lock: of two threads, the later to submit knows the newer experiments.
        with self.session.publishing:
            self._outdated = False
            self._ask()
        self._prompts_now = self._prompts_asked()

    def wait(self, timeout: float | None = None) -> None:
        if self not in self.session.widgets:
            raise RuntimeError("this widget, or its session, is closed: make a new one to go on")
        if self._outdated:
            self.refresh()
        super().wait(timeout)

    wait.__doc__ = Answering.wait.__doc__

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
        made = self._code_as("widget", (*self.settings, *self.looks))
        lines = [*experiments, *made] if self.linked else [*made, *experiments]
        return "\n".join([*code_of_session(self.session), *lines, "widget"])

    def _code_as(self, name: str, settings: Iterable[str]) -> list[str]:
        """Lines of Python that make this view as `name`, with these settings, in a `session` with its experiments."""
        given = {trait: getattr(self, trait) for trait in settings}
        changed = [f"{trait}={v!r}" for trait, v in given.items() if v != self.traits()[trait].default_value]
        arguments = ["session", *self._arguments(), *changed, *([] if self.linked else ["linked=False"])]
        return [f"{name} = iw.{type(self).__name__}({', '.join(arguments)})", *self._calls(name)]

    def runs(self) -> Iterable[Run]:
        """The runs that the widget holds to show them."""
        return ()

    def _arguments(self) -> list[str]:
        """The arguments that rebuild the view, as Python, without `settings`."""
        raise NotImplementedError

    def _run_preset(self, preset: Preset) -> None:
        raise NotImplementedError

    def _calls(self, name: str) -> list[str]:
        """Lines of Python that complete what has been rebuilt as `name`."""
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
        acting = [e.intervention for e in view.experiments if e.on]
        # Their ids: the same text may be read as other tokens.
        return [tokens.prompt for tokens in self._prompts_asked().values()], acting, view.baseline

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

    def preset(self, name: str) -> None:
        """Show the prompt, or pair, of `iw.PRESETS` with this name. Raises ValueError if there is none."""
        self._run_preset(preset_named(name))

    # -- as long as it lives -----------------------------------------------------------------------------------------

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

    def _on_settings(self, change: Any) -> None:
        with self.session.publishing:
            self._code = self.code()
            self._keep_visit()

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
        if self._dormant:
            self._outdated, self._of_what_was_asked = True, False
        else:
            self.refresh()

    # -- display -----------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session.name})"

    def _still_id(self) -> str:
        return self._still

    def _pictured(self) -> Iterable[LiveWidget]:
        return (self,)

    def static_frame(self) -> str:
        self._await_frame()
        with self.session.publishing:
            draw = self._frame()
        return draw()

    def _await_frame(self) -> None:
        """Wait for what is to be drawn, but not for long."""
        for ticket in list(self._tickets.values()):
            ticket.wait(_FIRST_FRAME_SECONDS)

    def _frame(self, *, alone: bool = True) -> Callable[[], str]:
        """What draws what is on the screen: that takes a while, in which a click must not find the lock held.

        `alone`: with what leads back to a live one.
        """
        facts = " · ".join(
            [*(str(self._header[k]) for k in ("model", "dtype", "device")), self._header["check"]["summary"]]
        )
        lines, failed = self._captions(), self._drawn()
        if failed is not None:
            lines = [*lines, *([] if _OLDER in lines else [_OLDER]), f"{failed['title']}: {failed['text']}"]
        said = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
        picture, again = self._static_picture(), live_again(self.code()) if alone else ""
        return lambda: (
            '<div style="font:13px/1.5 system-ui,sans-serif;max-width:900px">'
            f"<div><b>{html.escape(self.title)}</b> {html.escape(facts)}</div>{said}{again}{picture()}</div>"
        )

    def _captions(self) -> list[str]:
        if not self._of_what_was_asked and self._heatmap() is not None:
            return [_OLDER]
        prompts = {name: _in_one_line(tokens) for name, tokens in self._prompts_asked().items()}
        acting = {"experiments": tuple(self.experiments), "baseline": self.experiments.baseline}
        said = prompts | {name: ", ".join(short_label(i) for i in made) for name, made in acting.items()}
        return [f"{name}: {text}" for name, text in said.items() if text]


def _in_one_line(tokens: Tokens) -> str:
    """A prompt as a caption says it; of an encoder's model, what both sides read."""
    text = " ".join(tokens.strings) if tokens.text is None else drawable(tokens.text).replace("\n", "↵")
    own = elide(text, _LONGEST_CAPTION)
    return own if tokens.source is None else f"{_in_one_line(tokens.source)} → {own}"
