"""The plain twin of a sweep: one ordinary forward pass per cell. Only an oracle; slow on purpose."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from interpwidgets.session import NoEffectWarning


def sweep_one_by_one(session, prompt, rows, metric, interventions=()):
    """The metric of each row, each from a forward pass of its own over the whole prompt."""
    values = []
    for row in rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoEffectWarning)
            logits = session.run(prompt, interventions=[*interventions, *row]).logits.values[-1:]
        values.append(float(metric(torch.from_numpy(logits))[0]))
    return np.array(values)
