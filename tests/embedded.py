"""Static frames with their embedded pictures opened, so that tests can read what they say."""

from __future__ import annotations

import base64
import re

_IMAGE = re.compile(r'<img alt="[^"]*" src="data:image/svg\+xml;base64,([^"]*)">')


def opened(frame: str) -> str:
    """HTML in which every embedded SVG stands in place of its image."""
    return _IMAGE.sub(lambda found: base64.b64decode(found[1]).decode(), frame)
