"""What a model is asked, as plain frozen data."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, repr=False)
class SourceTarget:
    """A prompt of a model with an encoder: the text that it reads, and what the decoder has written of its answer.

    Each is text or token ids. The decoder's start token is put before `target`, unless it begins with that already.
    Text or ids alone, where a prompt is asked for, are the source, with the decoder at its start.

    Example: `session.run(iw.SourceTarget("translate English to German: The house", "Das"))`
    """

    source: str | tuple[int, ...]
    target: str | tuple[int, ...] = ""

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            given = getattr(self, name)
            if not is_prompt(given) or isinstance(frozen := freeze_prompt(given), SourceTarget):
                raise TypeError(f"{name}={given!r}: text or token ids are needed")
            object.__setattr__(self, name, frozen)

    def __repr__(self) -> str:
        return f"iw.SourceTarget({self.source!r}{f', {self.target!r}' if self.target else ''})"


Prompt = str | tuple[Any, ...] | SourceTarget
"""Text, token ids, both for an encoder and its decoder, or a list of these, as `Session` takes them (frozen to tuples
inside an intervention)."""


def is_prompt(given: Any) -> bool:
    """Whether this is one prompt: text, a SourceTarget, token ids in any form, or tokens that a session made of it.

    An array is one if it is of whole numbers along one axis, or (1, position).
    """
    given = _bare(given)
    if isinstance(given, str | SourceTarget):
        return True
    if isinstance(given, list | tuple | range):
        return {*map(type, given)} <= {int} or all(map(_is_id, given))
    shape: Sequence[int] = getattr(given, "shape", ())
    along_one = len(shape) == 1 or (len(shape) == 2 and shape[0] == 1)
    return along_one and "int" in str(getattr(given, "dtype", ""))


def freeze_prompt(prompt: Any) -> Any:
    """Turn a prompt (see `is_prompt`) into hashable data. Raises TypeError for what is none."""
    prompt = _bare(prompt)
    return prompt if isinstance(prompt, str | SourceTarget) else ids_of(prompt)


def ids_of(prompt: Any) -> tuple[int, ...]:
    """Token ids in any form, also as a (1, position) batch, as tokenizers return them. Raises TypeError."""
    # The rows of a sweep name one prompt each: they share it.
    if type(prompt) is tuple and {*map(type, prompt)} <= {int}:
        return prompt
    values = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    if isinstance(values, Sequence) and len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    try:
        if isinstance(values, bytes | bytearray):  # which iterate as numbers, but never as ids
            raise TypeError
        return tuple(map(_id, values))
    except TypeError:
        raise TypeError(
            f"a prompt is text or a sequence of token ids, got {type(prompt).__name__}: {reprlib.repr(prompt)}"
        ) from None


def _bare(prompt: Any) -> Any:
    """What runs as these tokens, of tokens that a session made; anything else as it is."""
    of_tokens = getattr(prompt, "prompt", None)
    return of_tokens if isinstance(of_tokens, tuple | SourceTarget) else prompt


def _id(value: Any) -> int:
    """A whole number of any library. Raises TypeError: what is cut off of others would make them ids, too."""
    return operator.index(value.item() if getattr(value, "shape", None) == () else value)


def _is_id(value: Any) -> bool:
    try:
        _id(value)
    except TypeError:
        return False
    return getattr(value, "shape", ()) == ()


def has_text(prompt: Any) -> bool:
    """Whether any of a frozen prompt is text, which a tokenizer reads."""
    parts = (prompt.source, prompt.target) if isinstance(prompt, SourceTarget) else (prompt,)
    return any(isinstance(part, str) for part in parts)
