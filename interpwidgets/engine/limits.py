"""How long a prompt a model can read: the positions that it has, or those that it was trained on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from torch import nn


class ContextWarning(UserWarning):
    """A prompt is longer than what the model was trained on."""


@dataclass(frozen=True)
class Context:
    """`positions`: how many; None if the model does not say. `hard`: it has nothing for positions beyond."""

    positions: int | None
    hard: bool = False

    @classmethod
    def of(cls, model: nn.Module) -> Context:
        """Read the config, and look for a table with one row a position: without one, the model can go on."""
        config: Any = getattr(model, "config", None)
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        positions = getattr(config, "max_position_embeddings", None)
        if not isinstance(positions, int) or positions <= 0:
            return cls(None)
        return cls(positions, hard=_has_table(model, positions))

    def over(self, length: int) -> int:
        """How many of `length` positions are too many."""
        return 0 if self.positions is None else max(0, length - self.positions)

    def require(self, length: int, what: str) -> None:
        """Raise ValueError for more positions than the model has; warn of more than it was trained on."""
        if not self.over(length):
            return
        if self.hard:
            raise ValueError(
                f"{what}: {self.over(length)} more than the {self.positions} positions that this model has"
            )
        warnings.warn(f"{what}: {self.note(length)}, and unlike anything it has seen", ContextWarning, stacklevel=4)

    def note(self, length: int) -> str:
        """A few words on a prompt that is longer than what the model was trained on; "" for others."""
        over = self.over(length)
        return f"{over} more than the {self.positions} that the model was trained on" if over else ""


def _has_table(model: nn.Module, positions: int) -> bool:
    """Whether the model looks up a row for each position: learned or sinusoidal vectors, or a stored mask."""
    # OPT and RoBERTa keep two rows more, before the first position.
    sizes = range(positions, positions + 3)
    words = model.get_input_embeddings()  # type: ignore[operator]
    tables = (m for m in model.modules() if isinstance(m, nn.Embedding) and m is not words)
    if any(table.weight.shape[0] in sizes for table in tables):
        return True
    # GPT-J's table of rotations, CTRL's of sinusoids, GPT-Neo's mask (1, 1, query, key).
    buffers = (b for _, b in model.named_buffers() if b.dim() >= 2)
    return any(b.shape[-2] in sizes for b in buffers)
