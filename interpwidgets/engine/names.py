"""Names that are not known, answered with the nearest that is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, given: object, known: Iterable[str]) -> ValueError:
    """The error for a name that is not one of `known`."""
    names = list(known)
    near = difflib.get_close_matches(str(given), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ":"
    return ValueError(f"unknown {what} {given!r}{hint} one of {', '.join(names)} is needed")
