"""Text that can be sent: half of a surrogate pair has no UTF-8, and would lose the whole message."""

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
