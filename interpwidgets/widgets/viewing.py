"""A widget's view as plain data: taken, set again, and kept for every run that was shown."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import traitlets as t

from ..engine.plain import require_keys, short
from ..tokens import Tokens, elide
from .experimenting import Experimenting, check_fits
from .labels import short_label
from .looks import Explaining
from .past import Past
from .selection import Selection
from .unicode import drawable
from .view import OtherModelWarning, View
from .wire import Wire

_PROMPT_START = 60  # characters of a prompt that name a run


class Viewing(Explaining, Experimenting):
    """A view that can be written down, and shown as it was written."""

    _run = t.Int(0).tag(sync=True)
    """The number of the run that is shown, in `history`."""
    _past: t.List[Wire] = t.List().tag(sync=True)
    """`history`, once the page has asked for it."""
    _past_wanted = t.Bool(False).tag(sync=True)

    prompt_names: ClassVar[tuple[str, ...]]
    linked: t.Bool[bool, bool]
    selection: t.Instance[Selection]
    refresh: Callable[[], None]
    _prompts_asked: Callable[[], dict[str, Tokens]]
    _about: Callable[[], str]
    _settings: Callable[[], dict[str, Any]]
    _question: Callable[[View], Any]
    _adopt: Callable[[View], Callable[[], None]]

    def __init__(self, **traits: Any) -> None:
        self._visited = Past()
        super().__init__(**traits)
        self.observe(self._show_past, names="_past_wanted")

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
        # Its tokens, not its text: they are the same whatever text is read as by now.
        self._apply(replace(view, settings=view.settings | looks, prepend_bos=self.session.prepend_bos))

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
        check_fits(self.session, (*(e.intervention for e in view.experiments), *view.baseline))
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

    def _note_visit(self) -> None:
        view = self._view()
        prompts = (tokens.text or " ".join(tokens.strings) for tokens in self._prompts_asked().values())
        summary = {
            "prompt": drawable(elide(" | ".join(prompts), _PROMPT_START)),
            "experiments": [e.name or short_label(e.intervention) for e in view.experiments if e.on],
            "about": self._about(),
        }
        self._visited.note(self._question(view), self._with_tokens(view), summary)
        self._run = self._visited.current
        self._show_past()

    def _asked_now(self) -> Any:
        """What a run that is asked for now is of."""
        return self._question(self._view())

    def _keep_visit(self) -> None:
        """What is chosen in the run that is shown is a part of it, to go back to."""
        if self._of_what_was_asked:
            view = self._view()
            self._visited.keep(self._question(view), self._with_tokens(view))

    def _with_tokens(self, view: View) -> View:
        return replace(view, prompts=dict(self._prompts_asked()))

    def _show_past(self, change: Any = None) -> None:
        if self._past_wanted:
            self._past = self.history
