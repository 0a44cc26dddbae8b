"""What is measured of the logits at the answer's position, as plain data.

Any function from logits (row, token) to one number a row is a metric; these can be measured in another process too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .plain import Plain, freeze_array


class StandardMetric(Plain):
    """Base of the metrics that are data. Called with logits (row, token), each gives one number a row."""

    def __call__(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def require_vocabulary(self, size: int) -> None:
        """Raise ValueError if this is of tokens that a vocabulary of this size does not have."""
        for name in ("answer", "foil"):
            token = getattr(self, name, 0)
            if not 0 <= token < size:
                raise ValueError(f"{name}={token} is out of range: the vocabulary has ids 0 to {size - 1}")


@dataclass(frozen=True, eq=False, repr=False)
class LogitDifference(StandardMetric):
    """The answer's logit minus the foil's; of only these two, `of_tokens`."""

    answer: int
    foil: int

    @property
    def tokens(self) -> list[int]:
        return [self.answer, self.foil]

    def __call__(self, logits: Tensor) -> Tensor:
        return self.of_tokens(logits[:, self.tokens])

    def of_tokens(self, logits: Tensor) -> Tensor:
        return logits[:, 0].float() - logits[:, 1].float()


@dataclass(frozen=True, eq=False, repr=False)
class LogProbability(StandardMetric):
    """The natural logarithm of the answer's probability, in nats."""

    answer: int

    def __call__(self, logits: Tensor) -> Tensor:
        return logits.float().log_softmax(-1)[:, self.answer]


@dataclass(frozen=True, eq=False, repr=False)
class Probability(StandardMetric):
    """The answer's probability, 0 to 1."""

    answer: int

    def __call__(self, logits: Tensor) -> Tensor:
        return LogProbability(self.answer)(logits).exp()


@dataclass(frozen=True, eq=False, repr=False)
class KL(StandardMetric):
    """The Kullback-Leibler divergence of a prediction from the `reference`, in nats.

    `reference` are the natural logarithms of its probabilities, (token,).
    """

    reference: Any

    def __post_init__(self) -> None:
        reference = freeze_array(self.reference)
        if reference.ndim != 1:
            raise ValueError(f"reference must be the logarithm of one distribution, got shape {reference.shape}")
        object.__setattr__(self, "reference", reference)

    def require_vocabulary(self, size: int) -> None:
        if len(self.reference) != size:
            raise ValueError(f"the reference is over {len(self.reference)} tokens, the vocabulary has {size}")

    def __call__(self, logits: Tensor) -> Tensor:
        reference = torch.tensor(self.reference).to(logits.device)  # (token,)
        return kl_divergence(reference, logits.float().log_softmax(-1))


def kl_divergence(reference: Tensor, log_p: Tensor) -> Tensor:
    """The divergence of predictions from a reference, in nats; both are logarithms of probabilities, (..., token).

    A token that the reference forbids (-inf) adds nothing.
    """
    terms = reference.exp() * (reference - log_p)
    return torch.where(reference == -torch.inf, 0.0, terms).sum(-1)
