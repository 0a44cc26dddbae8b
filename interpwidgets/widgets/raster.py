"""PNG from SVG, by resvg."""

from __future__ import annotations

import re

_PROBE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" font-family="{family}"><text y="15">M</text></svg>'
)


def png(svg: str, scale: float) -> bytes:
    """An SVG as PNG, `scale` pixels of the image to one of the picture.

    Raises ImportError without the package resvg-py, and RuntimeError on a machine without fonts, where resvg would
    leave out all text without a word.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise ImportError(
            'PNG needs the package resvg-py: pip install "interpwidgets[png]". to_svg() needs nothing, '
            "and the Save button of a widget lets the browser make the PNG."
        ) from None
    for family in re.findall(r'font-family="([^"]+)"', svg):
        drawn, blank = (svg_to_bytes(svg_string=_PROBE.format(family=each)) for each in (family, "\u2400"))
        if drawn == blank:
            raise RuntimeError(
                f"none of the fonts {family} is installed, and text would be missing: install one "
                "(Debian and Ubuntu: apt-get install fonts-dejavu), or use to_svg()"
            )
    return bytes(svg_to_bytes(svg_string=svg, zoom=scale))
