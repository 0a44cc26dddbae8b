"""Text that can be sent and drawn as it is: half of a surrogate pair has no UTF-8, and would lose a whole message."""

from __future__ import annotations

from typing import Any


def encodable(value: Any) -> Any:
    r"""The value with every lone surrogate in its texts written out, as \ud800; anything else as it is."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(encodable(entry) for entry in value)
    return value


def drawable(text: str) -> str:
    r"""Lines of text in which nothing is hidden: what draws nothing, or turns the line, is written out as \u202e."""
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)
