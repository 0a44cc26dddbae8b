"""What a model is asked, as plain frozen data."""

from __future__ import annotations

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
            if isinstance(given, SourceTarget) or not (isinstance(given, str) or hasattr(given, "__iter__")):
                raise TypeError(f"{name}={given!r}: text or token ids are needed")
            object.__setattr__(self, name, freeze_prompt(given))

    def __repr__(self) -> str:
        return f"iw.SourceTarget({self.source!r}{f', {self.target!r}' if self.target else ''})"


Prompt = str | tuple[Any, ...] | SourceTarget
"""Text, token ids, both for an encoder and its decoder, or a list of these, as `Session` takes them (frozen to tuples
inside an intervention)."""


def freeze_prompt(prompt: Any) -> Any:
    """Turn a prompt (text, ids, array of ids) into hashable data."""
    if isinstance(prompt, str | SourceTarget):
        return prompt
    # The rows of a sweep name one prompt each: they share it.
    if type(prompt) is tuple and all(type(i) is int for i in prompt):
        return prompt
    return tuple(prompt.tolist() if hasattr(prompt, "tolist") else (int(i) for i in prompt))


def has_text(prompt: Any) -> bool:
    """Whether any of a frozen prompt is text, which a tokenizer reads."""
    parts = (prompt.source, prompt.target) if isinstance(prompt, SourceTarget) else (prompt,)
    return any(isinstance(part, str) for part in parts)
