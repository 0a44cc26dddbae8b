"""The model's answer in a line, as the status says it and a screen reader speaks it once a run has ended."""

from __future__ import annotations

import unicodedata

from ..tokens import elide

_LONGEST = 24  # characters of a token

Likeliest = tuple[str, float]
"""A token and its probability."""


def answer_in_words(baseline: Likeliest, now: Likeliest | None = None, *, causal: bool) -> str:
    """The likeliest token of a run, and that of the baseline where the run is another one."""
    kind = "next token" if causal else "masked token"
    if now is None:
        return f"{kind} {_said(*baseline)}"
    before = f"{baseline[1]:.1%}" if now[0] == baseline[0] else _said(*baseline)
    return f"{kind} {_said(*now)}, baseline {before}"


def _said(token: str, probability: float) -> str:
    shown = elide(token, _LONGEST)
    # Numbers behind letters that run from right to left would change places, unless these are isolated (UAX 9).
    if any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in shown):
        shown = f"\u2068{shown}\u2069"
    return f"{shown} {probability:.1%}"
