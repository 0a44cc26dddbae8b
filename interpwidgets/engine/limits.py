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
        given = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
        positions = next((n for n in given if isinstance(n, int) and n > 0), None)
        if positions is None:
            return cls(None)
        rows = _rows(model, positions)
        return cls(positions) if rows is None else cls(rows, hard=True)

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


def _rows(model: nn.Module, positions: int) -> int | None:
    """How many positions have a row in a table that the model looks up, of vectors or masks; None without one."""
    # OPT and BART keep two rows more, before the first position.
    sizes = range(positions, positions + 3)
    words = model.get_input_embeddings()  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not words and module.weight.shape[0] in sizes:
            # RoBERTa counts from the row after that of padding.
            before = 0 if module.padding_idx is None or module.weight.shape[0] > positions else module.padding_idx + 1
            return positions - before
        # fairseq's sinusoids (XGLM) make themselves longer.
        if hasattr(module, "make_weights"):
            continue
        # GPT-J's table of rotations, CTRL's of sinusoids, GPT-Neo's mask (1, 1, query, key).
        if any(b is not None and b.dim() >= 2 and b.shape[-2] in sizes for b in module._buffers.values()):
            return positions
    return None
