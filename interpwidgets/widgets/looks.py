"""How a widget looks and what it explains, the same in every widget: palette, sizes, figure mode, teaching, keys."""

from __future__ import annotations

from typing import Any, ClassVar

import traitlets as t

from ..presets import PRESETS
from ..session import Session
from .terms import TERMS

KEYS = (
    ("Tab", "from part to part"),
    ("arrows, Home, End, Page\u00a0Up, Page\u00a0Down", "from cell to cell"),
    ("Ctrl+Z, Ctrl+Y", "undo, redo an experiment"),
    ("Esc", "close what is open"),
    ("?", "show or hide these keys"),
)
CHIP_KEYS = (
    ("Enter on an experiment", "switch it off or on"),
    ("F2", "name it"),
    ("Shift+arrow", "move it"),
    ("Delete", "remove it"),
)


class Looks(t.HasTraits):
    """Settings of the picture that change nothing in the numbers."""

    looks: ClassVar[tuple[str, ...]] = ("palette", "value_labels", "size", "figure_mode", "teaching")
    """The traits below."""

    palette = t.Enum(("blue", "cividis"), "blue").tag(sync=True)
    """Colours of magnitudes and effects: blue, with orange below zero; or cividis (Nuñez et al. 2018, PLOS ONE 13(7)),
    with its own yellow below zero."""
    value_labels = t.Bool(True).tag(sync=True)
    """Whether cells that have room show their value or token."""
    size = t.Enum(("normal", "presenter"), "normal").tag(sync=True)
    """"presenter" is 1.6 times as large, to be read from the back of a room."""
    figure_mode = t.Enum(("off", "column", "page"), "off").tag(sync=True)
    """Hides the controls, at the width of one column (3.3 inches) or of the text (6.9 inches) of a paper."""
    teaching = t.Bool(False).tag(sync=True)
    """Whether words of the field are explained in place, and what to notice in a preset."""


class Explaining(Looks):
    """A view with a sheet of keys, presets, and words that it explains."""

    shortcuts: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Keys, and clicks, of this widget alone, and what they do."""
    terms: ClassVar[tuple[str, ...]] = ()
    """Words that the teaching layer explains here, names in `TERMS`."""

    _help = t.Dict().tag(sync=True)

    session: Session

    @classmethod
    def _help_to_wire(cls, session: Session, *, teaching: bool) -> dict[str, Any]:
        """What the key sheet, the presets and, if it is shown, the teaching layer say."""
        continues = session.causal and session.tokenizer is not None and not session.engine.has_encoder
        terms = cls.terms if teaching else ()
        return {
            "keys": [list(pair) for pair in (*cls.shortcuts, *KEYS, *CHIP_KEYS)],
            "terms": [{"name": n, "text": TERMS[n].text, "drawing": list(TERMS[n].drawing)} for n in terms],
            "presets": [
                {"name": p.name, "clean": p.clean, "corrupted": p.corrupted, "notice": p.notice.get(cls.__name__, "")}
                for p in (PRESETS if continues else ())
            ],
        }

    @t.observe("teaching")
    def _explain(self, change: Any) -> None:
        # Every saved widget would carry the explanations that few readers ask for.
        if change["new"]:
            self._help = self._help_to_wire(self.session, teaching=True)

    def _only_in_a_page(self) -> dict[str, Any]:
        return {"_help": self._help_to_wire(self.session, teaching=True)}
