"""What a model predicts next, compared between runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..engine.metrics import kl_divergence
from ..session import Run, Session


def compare_predictions(
    session: Session, runs: dict[str, Run], top_k: int = 10
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The likeliest next tokens of several runs, side by side.

    Gives rows {"id", "text", run name: probability, ...} for the `top_k` tokens that are likeliest in any of the
    runs, in the order of that probability, and KL(first run || run) in nats for each run.
    """
    return compare_logits(session, {name: run.prediction for name, run in runs.items()}, top_k)


def compare_logits(
    session: Session, logits: dict[str, Tensor], top_k: int = 10
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """As `compare_predictions`, of the logits where each run's answer is read, (token,)."""
    log_p = {name: values.float().log_softmax(-1) for name, values in logits.items()}
    best = torch.stack(list(log_p.values())).max(0).values
    top = best.topk(min(top_k, best.shape[0])).indices.tolist()
    rows = []
    for token in top:
        probabilities = {name: float(values[token].exp()) for name, values in log_p.items()}
        rows.append({"id": token, "text": session.show_token(token), **probabilities})
    first = next(iter(log_p.values()))
    kl = {name: float(kl_divergence(first, values)) for name, values in log_p.items()}
    return rows, kl
