"""A page's clicks, without a page, and the prompts that the tests of widgets share."""

from __future__ import annotations

PROMPT = [5, 17, 3, 44, 17, 60, 8, 91]
CORRUPTED = [5, 17, 3, 21, 17, 60, 9, 91]


def click(widget, op, **arguments):
    """A request as the front end sends it."""
    request = {"id": widget._status["id"] + 1, "op": op, **arguments}
    content = {"data": {"method": "update", "state": {"_request": request}, "buffer_paths": []}}
    widget._handle_msg({"content": content, "buffers": []})
    return request["id"]
