"""Token ids to try a model with, and how a model is given token ids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Probe:
    """Token ids (1, position) to try a model with; `source` are those that its encoder reads, if it has one."""

    ids: Tensor
    source: Tensor | None = None

    @classmethod
    def of(cls, model: nn.Module) -> Probe:
        """Tokens spread over the vocabulary: six, and as source nine, so that both can be told apart by length."""
        size = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]

        def spread(n: int) -> Tensor:
            return (torch.arange(1, n + 1, device=input_device(model)) * (size // (n + 1)))[None]

        has_encoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        return cls(spread(6), spread(9) if has_encoder else None)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(t.shape[1] for t in (self.ids, self.source) if t is not None)

    def inputs(self) -> dict[str, Tensor]:
        """How the model is given them."""
        return model_inputs(self.ids, self.source)


def model_inputs(ids: Tensor, source: Tensor | None) -> dict[str, Tensor]:
    """What a model is called with: (row, position) ids, and (1, position) of the source that all rows share."""
    if source is None:
        return {"input_ids": ids}
    return {"input_ids": source.expand(ids.shape[0], -1), "decoder_input_ids": ids}


def input_device(model: nn.Module) -> torch.device:
    """Where token ids go: where the embedding is, or where accelerate brings it from when it runs."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    device = embedding.weight.device
    brought = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    return torch.device(brought) if device.type == "meta" and brought is not None else device
