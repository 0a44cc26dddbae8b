"""The palettes of the page's light theme, read from its own style sheet."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

Rgb = tuple[int, int, int]
DARK = "#1a1f26"


def stops(palette: str, *, diverging: bool) -> list[Rgb]:
    """The evenly spaced colours that a palette, "blue" or "cividis", is made of."""
    return list(_stops(palette, "div" if diverging else "seq"))


def colour_at(share: float, palette: str, *, diverging: bool) -> Rgb:
    """The colour at a share of the palette, 0 to 1: one of 256, as on the page."""
    found = _stops(palette, "div" if diverging else "seq")
    at = (len(found) - 1) * int(255 * share + 0.5) / 255
    low = min(int(at), len(found) - 2)
    red, green, blue = (int(a + (at - low) * (b - a) + 0.5) for a, b in zip(found[low], found[low + 1], strict=True))
    return red, green, blue


def ink_on(colour: Rgb) -> str:
    """What reads best on it."""
    red, green, blue = colour
    return "#fff" if 0.3 * red + 0.6 * green + 0.1 * blue < 140 else DARK


@cache
def _stops(palette: str, kind: str) -> tuple[Rgb, ...]:
    theme = (files("interpwidgets.widgets") / "static" / "theme.css").read_text(encoding="utf-8")
    rule = "" if palette == "blue" else f'[data-iw-palette="{palette}"]'
    body = theme.split(f"\n.iw-root{rule} {{", 1)[1].split("}", 1)[0]
    found = re.findall(rf"--iw-{kind}-\d: #(\w\w)(\w\w)(\w\w);", body)
    return tuple((int(red, 16), int(green, 16), int(blue, 16)) for red, green, blue in found)
