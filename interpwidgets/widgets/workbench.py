"""Workbench: attention, logit lens and patching heatmap of one prompt in one figure, linked."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import ipywidgets

from ..presets import PRESETS, Preset
from ..session import Session
from .attention_pattern import AttentionPattern
from .base import LiveWidget
from .displaying import Displayed, weakly
from .linking import Link, link
from .logit_lens import LogitLens
from .patching_heatmap import PatchingHeatmap

_SIDE = "max(640px, 40rem)"
"""What a widget beside another is wide at least."""
_WAITING = (
    "No patching heatmap yet: a preset brings one, as does workbench.compare(corrupted), a prompt of as many tokens."
)


class Workbench(Displayed, ipywidgets.Box):
    """AttentionPattern, LogitLens and PatchingHeatmap of one prompt, linked, under one header.

    The attention widget stands on top with the header, the prompt and the experiments of all three; the lens and the
    heatmap stand below, beside each other from 1,300 pixels on. `attention`, `lens` and `heatmap` are the widgets.

    A heatmap needs a second prompt: `corrupted`, or where `prompt` is the clean one of a preset (`iw.PRESETS`), that
    preset's, with its answer and foil. Otherwise there is none, and `heatmap` is None, until a preset is chosen or
    `compare` is called. Raises what the three widgets raise.

    Example: `iw.Workbench(session, "The Eiffel Tower is in the city of", "The Colosseum is in the city of")`
    """

    def __init__(
        self,
        session: Session,
        prompt: Any,
        corrupted: Any = None,
        *,
        answer: int | str | None = None,
        foil: int | str | None = None,
    ) -> None:
        self.session = session
        self.heatmap: PatchingHeatmap | None = None
        self._link: Link | None = None
        preset = _preset_of(prompt) if corrupted is None else None
        self.attention = AttentionPattern(session, prompt)
        try:
            self.lens = LogitLens(session, prompt, _embedded=True)
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
        layout = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", overflow="visible")
        self._waiting = ipywidgets.Label(_WAITING)
        self._parts = (self._waiting, self._waiting.layout, self._waiting.style, layout)
        super().__init__(layout=layout)
        self._listen()
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
            before.close()
        self._arrange()

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
        """What is on the screen as plain HTML, for places where no kernel runs."""
        return "".join(widget.static_frame() for widget in self._widgets())

    def __repr__(self) -> str:
        return f"Workbench({self.session.name})"

    def _heatmap_of(self, corrupted: Any, answer: int | str | None, foil: int | str | None) -> PatchingHeatmap:
        (clean,) = self.attention._prompts_asked().values()
        return PatchingHeatmap(
            self.session, clean=clean.given, corrupted=corrupted, answer=answer, foil=foil, _embedded=True
        )

    def _pictured(self) -> list[LiveWidget]:
        return self._widgets()

    def _widgets(self) -> list[LiveWidget]:
        return [self.attention, self.lens, *([] if self.heatmap is None else [self.heatmap])]

    def _arrange(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = link(*self._widgets())
        for widget in self._widgets():
            widget.layout.flex = "1 1 100%" if widget is self.attention else f"1 1 {_SIDE}"
            widget.layout.min_width = "0"
            widget.layout.max_width = "100%"
        self.children = [*self._widgets(), *([self._waiting] if self.heatmap is None else [])]
        self._follow()

    def _still_id(self) -> str:
        return self.attention._still_id()

    def _on_views(self, change: Any) -> None:
        self._be_held(bool(change["new"]))

    def _on_prompt(self, change: Any) -> None:
        (tokens,) = change["new"].values()
        preset = _preset_of(tokens.text)
        if self.heatmap is None and preset is not None:
            # In another tokenizer, the pair may not fit.
            with suppress(ValueError):
                answer, foil = (self.session.token_id(token) for token in (preset.answer, preset.foil))
                self.compare(preset.corrupted, answer=answer, foil=foil)


def _preset_of(prompt: Any) -> Preset | None:
    """The preset of which this is the clean prompt."""
    return next((preset for preset in PRESETS if preset.clean == prompt), None)
