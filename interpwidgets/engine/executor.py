"""Where sweeps run: in this process, or wherever something takes a request's bytes and sends back the answer's.

A session is an executor, of its own model; `Session.executor` may name another. `Remote` is one that asks over a wire,
and `answer` is what the other end does. Between the two go bytes; how they go (a pipe, a Ray actor, NDIF) is not known
here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, Protocol

import numpy as np
from torch import nn

from .jobs import check_cancelled
from .memory import NotEnoughMemory
from .plain import require_keys, short
from .request import VERSION, SweepRequest, pack, unpack
from .sweep import Partial, Progress, SweepResult
from .version import fingerprint

_ERRORS = {kind.__name__: kind for kind in (ValueError, TypeError, NotEnoughMemory)}
"""What means the same on either side; anything else that is raised there is a RuntimeError here."""


class Executor(Protocol):
    """Something that runs sweeps on a model."""

    def execute(
        self, request: SweepRequest, *, progress: Progress | None = None, partial: Partial | None = None
    ) -> SweepResult:
        """The request's values. `progress` and `partial` are those of `Session.sweep`."""
        ...


class Remote:
    """An executor that asks another process, which has the same model.

    `ask` takes a request's bytes and gives the messages that `answer` sends there, as they come, until the last; it is
    closed at the next one if the sweep is cancelled. `model` is what the worker's must be equal to, in settings and
    weights.
    """

    def __init__(self, model: nn.Module, ask: Callable[[bytes], Generator[bytes, None, None]]) -> None:
        self._model, self._ask = model, ask

    def execute(
        self, request: SweepRequest, *, progress: Progress | None = None, partial: Partial | None = None
    ) -> SweepResult:
        what, said, values = "", dict[str, Any](), np.empty(0)
        with closing(self._ask(request.to_bytes(fingerprint(self._model)))) as messages:
            for message in messages:
                check_cancelled()
                what, said, values = _read(message, len(request.rows))
                if what == "partial" and partial is not None:
                    partial(values)
                if what == "progress" and progress is not None:
                    progress(said["done"], said["total"])
        if what == "error":
            raise _ERRORS.get(said["kind"], RuntimeError)(said["text"])
        if what != "result":
            raise RuntimeError("the worker ended before its sweep did")
        return SweepResult(values, said["base"])


def answer(executor: Executor, model: nn.Module, data: bytes, send: Callable[[bytes], None]) -> None:
    """Do what a request's bytes ask for, on `executor`, which has this model: `send` progress, then result or error.

    What `send` raises stops the sweep, between two blocks.
    """

    def say(what: str, values: np.ndarray | None = None, **more: Any) -> None:
        send(pack({"version": VERSION, "message": what, **more}, {} if values is None else {"values": values}))

    try:
        request, asked_of = SweepRequest.from_bytes(data)
        _require_same(asked_of, fingerprint(model))
        result = executor.execute(
            request,
            progress=lambda done, total: say("progress", done=done, total=total),
            partial=(lambda values: say("partial", values)) if request.streams else None,
        )
    except (ValueError, TypeError, RuntimeError, MemoryError, LookupError, ArithmeticError) as error:
        known = (name for name, kind in _ERRORS.items() if isinstance(error, kind))
        say("error", kind=next(known, type(error).__name__), text=str(error))
    else:
        say("result", result.values, base=result.base)


def _require_same(asked: dict[str, str], have: dict[str, str]) -> None:
    """Raise ValueError unless a worker's model is the one that is asked for."""
    differing = [name for name in {**have, **asked} if asked.get(name) != have.get(name)]
    if differing:
        shown = ", ".join(f"{name} {short(asked.get(name))}, not {short(have.get(name))}" for name in differing)
        raise ValueError(f"the request is for another model than this worker's: {shown}")


_SAID: dict[str, dict[str, type]] = {
    "error": {"kind": str, "text": str}, "partial": {}, "progress": {"done": int, "total": int},
    "result": {"base": float},
}  # fmt: skip
"""What each kind of message says, beside the rows' values."""


def _read(message: bytes, rows: int) -> tuple[str, dict[str, Any], np.ndarray]:
    """A message of `answer` on a sweep of so many rows. Raises RuntimeError for anything else."""
    try:
        said, arrays = unpack(message)
        what = said.get("message") if isinstance(said, dict) else None
        if not isinstance(what, str) or what not in _SAID:
            raise ValueError(f"{short(what)} is no message")
        require_keys("the answer", said, {"version", "message", *_SAID[what]})
        if said["version"] != VERSION or any(type(said[name]) is not kind for name, kind in _SAID[what].items()):
            raise ValueError(f"{short(said)} is not of version {VERSION}")
        values = arrays.get("values", np.empty(0))
        if what in ("result", "partial") and (values.dtype != np.float64 or values.shape != (rows,)):
            raise ValueError(f"{rows} values are needed, got {values.dtype} of shape {values.shape}")
    except (ValueError, RecursionError) as error:
        raise RuntimeError(f"the worker's answer cannot be read: {error}") from None
    return what, said, values.copy()
