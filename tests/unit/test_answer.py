"""What a run has come to is said in the status line: the likeliest token, before and with experiments."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

import interpwidgets as iw
from interpwidgets.widgets.answer import answer_in_words
from tests.clicks import PROMPT
from tests.tiny_tokenizers import word_piece
from tests.unit.test_masked_lm import CLEAN, MASK, masked

WIDGETS = [iw.AttentionPattern, iw.LogitLens]
HEAD = iw.Ablate("z", layer=1, head=2)


@contextmanager
def without_head(model):
    """Plain Hugging Face with HEAD's output put to zero."""
    width = model.config.hidden_size // model.config.num_attention_heads

    def zero(_module, arguments):
        z = arguments[0].clone()
        z[..., HEAD.head * width : (HEAD.head + 1) * width] = 0
        return (z,)

    handle = model.model.layers[HEAD.layer].self_attn.o_proj.register_forward_pre_hook(zero)
    yield
    handle.remove()


def likeliest(model, ids, position=-1):
    with torch.no_grad():
        shares = model(torch.tensor([ids])).logits[0, position].double().softmax(-1)
    return int(shares.argmax()), f"{float(shares.max()):.1%}"


@pytest.mark.parametrize("widget", WIDGETS)
def test_a_run_says_the_likeliest_token_before_and_with_experiments(session, widget):
    token, share = likeliest(session.model, PROMPT)
    with without_head(session.model):
        other, changed = likeliest(session.model, PROMPT)
    assert share != changed
    shown = widget(session, PROMPT)
    shown.wait(30)
    assert shown._status["message"] == f"next token {token} {share}"
    session.interventions.append(HEAD)
    shown.wait(30)
    before = share if token == other else f"{token} {share}"
    assert shown._status["message"] == f"next token {other} {changed}, baseline {before}"


@pytest.mark.parametrize("widget", WIDGETS)
def test_of_a_masked_language_model_what_stands_at_the_mask_is_said(widget):
    with iw.Session(masked("bert"), word_piece()) as session:
        token, share = likeliest(session.model, session.tokenize(CLEAN).ids, MASK)
        shown = widget(session, CLEAN)
        shown.wait(30)
        assert shown._status["message"] == f"masked token {session.show_token(token)} {share}"
        shown.run("the cat sat")
        shown.wait(30)
        assert shown._status["message"] == ""


def test_numbers_stay_behind_a_word_that_runs_from_right_to_left():
    said = answer_in_words(("שלום", 0.9), ("سلام", 0.5), causal=True)
    assert said == "next token \u2068سلام\u2069 50.0%, baseline \u2068שלום\u2069 90.0%"
