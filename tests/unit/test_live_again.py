"""What the pictures of a notebook come back to when it is opened again: live widgets that share a session."""

from __future__ import annotations

import gc
import html
import json
import re
import weakref

import pytest
from transformers import AutoModelForCausalLM

import interpwidgets as iw
from tests.models import tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level

TEXT = "the cat sat"


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "model")


def saved(folder, seed=0):
    tiny("llama", seed, vocab_size=VOCABULARY).save_pretrained(folder)
    byte_level(add_bos=False).save_pretrained(folder)
    return folder


def clicked(picture, kernel):
    """What the button under a picture runs, as a cell of the kernel."""
    (given,) = re.findall(r'data-commandlinker-args="(.*?)"', picture)
    exec(json.loads(html.unescape(given))["args"]["text"], kernel)
    kernel["widget"].wait(60)
    return kernel["widget"]


@pytest.mark.parametrize("by_hand", [False, True])
def test_two_pictures_come_back_in_one_session_and_one_model(folder, by_hand):
    kernel = {}
    opened = iw.load(folder)
    if by_hand:
        kernel = {"model": opened.model, "tokenizer": opened.tokenizer}
        opened = iw.Session(**kernel)
    with opened as session:
        session.interventions.append(iw.Ablate("z", layer=1, head=2))
        pictures = [kind(session, TEXT).static_frame() for kind in (iw.AttentionPattern, iw.LogitLens)]
    attention, lens = (clicked(picture, kernel) for picture in pictures)
    with attention.session as session:
        assert session is not opened
        assert lens.session is session is kernel["session"]
        assert list(session.interventions) == [iw.Ablate("z", layer=1, head=2)]
        attention.ablate(2, 0)
        lens.wait(60)
        assert [e["code"] for e in lens._experiments][1] == "iw.Ablate('z', layer=2, head=0)"
        assert clicked(pictures[0], kernel).session is session


def test_a_picture_of_a_model_made_by_hand_asks_for_it_by_name(folder):
    with iw.Session(AutoModelForCausalLM.from_pretrained(folder).eval()) as session:
        code = iw.LogitLens(session, [5, 17, 3]).code()
    with pytest.raises(NameError, match="name 'model' is not defined"):
        exec(code, {})


def test_the_session_that_is_found_is_of_that_model_and_open(folder, tmp_path):
    other = saved(tmp_path / "another" / "model", seed=1)
    with iw.load(folder) as first, iw.load(other) as second, iw.load(folder, dtype="bfloat16") as half:
        assert first.name == second.name == "model"
        assert iw.find_session(str(folder), "float32") is first
        assert iw.find_session(str(folder), "bfloat16") is half
        assert iw.find_session(str(folder)) is half
        assert iw.find_session(str(other)) is second
        assert iw.find_session("model", "float32") is second
        assert iw.find_session("mode") is None
        second.name = "mine"
        assert iw.find_session("mine") is second
        for session in (first, second, half):
            names = {}
            exec(iw.LogitLens(session, TEXT).code(), names)
            assert names["session"] is session
    assert iw.find_session(str(folder)) is None


def test_a_session_that_nothing_refers_to_is_not_kept_to_be_found():
    session = iw.Session(tiny("llama"))
    session.name = "let go of"
    alive = weakref.ref(session)
    del session
    gc.collect()
    assert alive() is None
    assert iw.find_session("let go of") is None
