"""A click looks at the model once before its runs, and once behind each; what was edited meanwhile is not kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interpwidgets as iw
from interpwidgets.engine.engine import Engine

PROMPT = (5, 17, 3, 44, 17, 60, 8, 91)


@pytest.mark.parametrize("how", ["zero", "mean"])
def test_an_ablation_looks_before_and_behind_its_run(session, how, monkeypatch):
    widget = iw.AttentionPattern(session, PROMPT)
    widget.wait(30)
    looks, version = [], Engine.version
    monkeypatch.setattr(Engine, "version", lambda engine: looks.append(1) or version(engine))
    widget.ablate(0, 1, how=how)
    widget.wait(30)
    assert len(looks) == 2


def test_a_run_under_an_older_look_is_not_kept(session):
    tokens = session.tokenize(PROMPT)
    with torch.no_grad():
        plain = session.model(torch.tensor([PROMPT]), use_cache=False).logits[0, -1]
    look = session.look()
    weight = session.model.get_output_embeddings().weight
    weight.data.mul_(2.0)
    edited = session.ask(tokens, look=look).prediction
    weight.data.div_(2.0)
    assert not np.allclose(edited, plain)
    assert np.allclose(session.ask(tokens).prediction, plain, atol=1e-6)
