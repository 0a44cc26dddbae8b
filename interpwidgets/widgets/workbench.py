"""Workbench: attention, logit lens and patching heatmap of one prompt in one figure, linked."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import ipywidgets

from ..engine.names import unknown
from ..presets import PRESETS, Preset
from ..session import Session
from .attention_pattern import AttentionPattern
from .base import LiveWidget
from .code import code_of_experiments, code_of_session
from .displaying import Displayed, weakly
from .exporting import at_rest, written
from .linking import Link, link
from .logit_lens import LogitLens
from .looks import Looks
from .page import abreast, offline_page
from .patching_heatmap import PatchingHeatmap
from .still import live_again
from .view import View, apart, together
from .wire import Wire

_KINDS: dict[str, type[LiveWidget]] = {"attention": AttentionPattern, "lens": LogitLens, "heatmap": PatchingHeatmap}
_SIDE = "max(640px, 40rem)"
"""What a widget beside another is wide at least."""
_WAITING = (
    "No patching heatmap yet: a preset brings one, as does workbench.compare(corrupted), a prompt of as many tokens."
)


class Workbench(Looks, Displayed, ipywidgets.Box):
    """AttentionPattern, LogitLens and PatchingHeatmap of one prompt, linked, under one header.

    The attention widget stands on top with the header, the prompt and the experiments of all three; the lens and the
    heatmap stand below, beside each other from 1,300 pixels on. `attention`, `lens` and `heatmap` are the widgets.

    A heatmap needs a second prompt: `corrupted`, or where `prompt` is the clean one of a preset (`iw.PRESETS`), that
    preset's, with its answer and foil. Otherwise there is none, and `heatmap` is None, until a preset is chosen or
    `compare` is called. Raises what the three widgets raise.

    How it looks (`palette`, `value_labels`, `size`, `figure_mode`, `teaching`) is given and set as in any widget, and
    is one for all three: what is chosen in the View menu of one of them holds for the others.

    Example: `iw.Workbench(session, "The Eiffel Tower is in the city of", "The Colosseum is in the city of")`
    """

    title = "Workbench"

    def __init__(
        self,
        session: Session,
        prompt: Any,
        corrupted: Any = None,
        *,
        answer: int | str | None = None,
        foil: int | str | None = None,
        **looks: Any,
    ) -> None:
        for name in looks:
            if name not in self.looks:
                raise unknown("setting", name, self.looks)
        self.session = session
        self.heatmap: PatchingHeatmap | None = None
        preset = _preset_of(prompt) if corrupted is None else None
        self.attention = AttentionPattern(session, prompt, **looks)
        try:
            self.lens = LogitLens(session, prompt, **looks)
            if preset is not None:
                corrupted = preset.corrupted
                answer = session.token_id(preset.answer) if answer is None else answer
                foil = session.token_id(preset.foil) if foil is None else foil
            if corrupted is not None:
                self.heatmap = self._heatmap_of(corrupted, answer, foil)
        except BaseException:
            for widget in (self.attention, vars(self).get("lens")):
                if widget is not None:
                    widget.close()
            raise
        self._compose()

    @classmethod
    def of(cls, attention: AttentionPattern, lens: LogitLens, heatmap: PatchingHeatmap | None = None) -> Self:
        """A workbench of widgets that are there, each as it is; they look like `attention` from here on.

        Raises TypeError for other widgets, ValueError unless they share the experiments of one session that is open.
        """
        given = {"attention": attention, "lens": lens} | ({} if heatmap is None else {"heatmap": heatmap})
        for name, widget in given.items():
            if not isinstance(widget, _KINDS[name]):
                raise TypeError(f"{name}={widget!r}: a widget of iw.{_KINDS[name].__name__} is needed")
            if not widget.linked or widget not in attention.session.widgets:
                raise ValueError(f"{name}: a widget that is open, and shares the experiments of one session, is needed")
        workbench = cls.__new__(cls)
        workbench.session = attention.session
        workbench.attention, workbench.lens, workbench.heatmap = attention, lens, heatmap
        workbench._compose()
        return workbench

    @classmethod
    def rebuilt(cls, session: Session, views: dict[str, View]) -> Self:
        """A new workbench that shows what `views_of` a state gives."""
        held = session.interventions
        widgets: dict[str, Any] = {}
        try:
            # The first has the experiments, and is last: they become the session's once all else has been right.
            for name, view in reversed(views.items()):
                here = replace(
                    view, model=session.name, prepend_bos=session.prepend_bos, experiments=held.entries,
                    baseline=held.baseline,
                )  # fmt: skip
                widgets[name] = _KINDS[name].rebuilt(session, view if name == "attention" else here)
        except BaseException:
            for widget in widgets.values():
                widget.close()
            raise
        return cls.of(**widgets)

    def _compose(self) -> None:
        """Be the figure of the three widgets."""
        self._link: Link | None = None
        layout = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", overflow="visible")
        self._waiting = ipywidgets.Label(_WAITING)
        self._parts = (self._waiting, self._waiting.layout, self._waiting.style, layout)
        super().__init__(layout=layout, **self._looks())
        self._listen()
        self.attention._whole = weakref.ref(self)
        self._look_observer, self._code_observer = weakly(self._on_look), weakly(self._on_code)
        self.observe(self._look_observer, names=self.looks)
        # Turns the counting of views on.
        self._view_count = 0
        self.observe(self._on_views, names="_view_count")
        self._arrange()
        # After the link's own: the lens is to follow the prompt before there is another link.
        self.attention.observe(weakly(self._on_prompt), names="_prompts_now")

    def compare(self, corrupted: Any, *, answer: int | str | None = None, foil: int | str | None = None) -> None:
        """Patch between the prompt that is shown and this one, in a heatmap that is added if there is none.

        Raises ValueError, showing both tokenisations, if their lengths differ; RuntimeError if the workbench is closed.
        """
        if self.attention not in self.session.widgets:
            raise RuntimeError("this workbench is closed: make a new one to go on")
        before, self.heatmap = self.heatmap, self._heatmap_of(corrupted, answer, foil)
        if before is not None:
            before.unobserve(self._look_observer, names=self.looks)
            before.unobserve(self._code_observer, names="_code")
            before.close()
        self._arrange()

    @property
    def state(self) -> Wire:
        """All that the three widgets are rebuilt from, linked again, as JSON: give it to `iw.restore`."""
        return together(type(self).__name__, {name: widget._view() for name, widget in self._named().items()})

    def code(self) -> str:
        """Python that rebuilds the three widgets as they are, linked again, where there is nothing but this package.

        An array of more than a megabyte is not written out: `state` holds it. A widget's own `code` is of that alone.
        """
        named, shared = self._named(), self.session.interventions
        made = []
        for name, widget in named.items():
            looks = self.looks if widget is self.attention else ()  # the others take them from it
            made += widget._code_as(name, (*widget.settings, *looks))
        return "\n".join([
            *code_of_session(self.session),
            *code_of_experiments("session.interventions", shared.entries, shared.baseline),
            *made,
            f"workbench = iw.{type(self).__name__}.of({', '.join(named)})",
            "workbench",
        ])  # fmt: skip

    def to_html(self, path: str | Path | None = None) -> str:
        """One page that shows the three widgets without a kernel and without a network; written to `path` if given.

        Each is as its own `to_html` has it. Of experiments, those are in the page that all three have shown of their
        prompts; one that is chosen in one of them is shown in all, as are looks and what is pointed at. What is
        selected is each widget's own. Waits until nothing is running; raises RuntimeError before the first run.
        """
        with at_rest(*self._widgets()):
            page = self._page()
        return written(page(), path)

    def wait(self, timeout: float | None = None) -> None:
        """Block until nothing is running. Raises a run's error, or TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for widget in self._widgets():
            widget.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Close the three widgets and remove the figure from the page."""
        if "_parts" not in vars(self):  # its arguments were refused: there is nothing to let go of
            return
        if self._link is not None:
            self._link.close()
        for widget in self._widgets():
            widget.close()
        self._disconnect()

    def __del__(self) -> None:
        # The collector runs on any thread, holding any lock: the three widgets, which wait for one, go by themselves.
        self._disconnect()

    def _disconnect(self) -> None:
        for part in vars(self).get("_parts", ()):
            part.close()
        super().close()

    def static_frame(self) -> str:
        for widget in self._widgets():
            widget._await_frame()
        with self.session.publishing:
            draw = [widget._frame(alone=False) for widget in self._widgets()]
            again = live_again(self.code())
        return f'<div style="font:13px/1.5 system-ui,sans-serif">{again}</div>' + "".join(part() for part in draw)

    def __repr__(self) -> str:
        return f"Workbench({self.session.name})"

    def _heatmap_of(self, corrupted: Any, answer: int | str | None, foil: int | str | None) -> PatchingHeatmap:
        (clean,) = self.attention._prompts_asked().values()
        return PatchingHeatmap(
            self.session, clean=clean.given, corrupted=corrupted, answer=answer, foil=foil, **self._looks()
        )

    def _looks(self) -> dict[str, Any]:
        return {name: getattr(self.attention, name) for name in self.looks}

    def _page(self) -> Callable[[], str]:
        parts = []
        for name, widget in self._named().items():
            of = {"_embedded": widget is not self.attention, "_links": widget._links}
            part, asked = widget._part_of_a_page(f"workbench.{name}", **of), widget._depends_on()
            held = [r for r in part.results if all(r.question[p] == asked[p] for p in widget.prompt_names)]
            parts.append(replace(part, results=held))
        attention, *rest = abreast(parts)
        if not attention.results:
            raise RuntimeError("there is nothing to save yet: no run of what is asked has finished in all three")
        # The page that the header's button saves is that of all three, as is the code there.
        headed = replace(attention, owners={**attention.owners, "to_html": "workbench"})
        code = self.code() if all(widget._settled() for widget in self._widgets()) else None
        return lambda: offline_page(self.title, [headed, *rest], code)

    def _pictured(self) -> list[LiveWidget]:
        return self._widgets()

    def _named(self) -> dict[str, LiveWidget]:
        heatmap = {} if self.heatmap is None else {"heatmap": self.heatmap}
        return {"attention": self.attention, "lens": self.lens, **heatmap}

    def _widgets(self) -> list[LiveWidget]:
        return list(self._named().values())

    def _arrange(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = link(*self._widgets())
        for widget in self._widgets():
            widget._embedded = widget is not self.attention
            for name, value in self._looks().items():
                widget.set_trait(name, value)
            widget.layout.flex = "1 1 100%" if widget is self.attention else f"1 1 {_SIDE}"
            widget.layout.min_width = "0"
            widget.layout.max_width = "100%"
            widget.observe(self._look_observer, names=self.looks)  # once, however often
            widget.observe(self._code_observer, names="_code")
        self.children = [*self._widgets(), *([self._waiting] if self.heatmap is None else [])]
        self._follow()
        self._on_code()

    def _still_id(self) -> str:
        return self.attention._still_id()

    def _be_held(self, held: bool) -> None:
        super()._be_held(held)
        # They are displayed with it, before a page has said so.
        for widget in self._widgets():
            widget._be_held(held or bool(widget._view_count))

    def _on_views(self, change: Any) -> None:
        self._be_held(bool(change["new"]))

    def _on_look(self, change: Any) -> None:
        # In one hold of the lock: a click and a cell may change the looks at the same time.
        with self.session.publishing:
            value = getattr(change["owner"], change["name"])
            for each in (self, *self._widgets()):
                each.set_trait(change["name"], value)

    def _on_code(self, _: Any = None) -> None:
        with self.session.publishing:
            self.attention._code_of_all = self.code()

    def _on_prompt(self, change: Any) -> None:
        (tokens,) = change["new"].values()
        preset = _preset_of(tokens.text)
        if self.heatmap is None and preset is not None:
            # In another tokenizer, the pair may not fit.
            with suppress(ValueError):
                answer, foil = (self.session.token_id(token) for token in (preset.answer, preset.foil))
                self.compare(preset.corrupted, answer=answer, foil=foil)


def views_of(state: Mapping[str, Any]) -> dict[str, View]:
    """What a workbench's `state` holds, by the names of its widgets. Raises ValueError or TypeError if it is none."""
    return apart(state, {name: kind.__name__ for name, kind in _KINDS.items()}, optional={"heatmap"})


def _preset_of(prompt: Any) -> Preset | None:
    """The preset of which this is the clean prompt."""
    return next((preset for preset in PRESETS if preset.clean == prompt), None)
