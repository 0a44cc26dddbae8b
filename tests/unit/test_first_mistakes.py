"""What is typed wrong in the first hour, and what the answer says would be right."""

from __future__ import annotations

import json

import pytest

import interpwidgets as iw
from tests.models import tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level

PROMPT, CORRUPTED = "the cat sat", "the dog sat"


@pytest.fixture(scope="module")
def text():
    with iw.Session(tiny("llama", vocab_size=VOCABULARY), byte_level(add_bos=False)) as session:
        yield session


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: iw.AttentionPattern(PROMPT), r"iw.AttentionPattern\(session, prompt\) needs a session .*got str 'the"),
        (
            lambda: iw.LogitLens("gpt2", PROMPT),
            r"iw.LogitLens\(session, prompt\) needs a session first, such as iw.load",
        ),
        (
            lambda: iw.PatchingHeatmap(PROMPT, CORRUPTED),
            r"iw.PatchingHeatmap\(session, clean, corrupted\) needs a session",
        ),
        (lambda: iw.LogitLens(), "got nothing"),
        (lambda: iw.LogitLens(tiny("llama"), PROMPT), r"or iw.Session\(model, tokenizer\) gives; got LlamaForCausalLM"),
        (lambda: iw.Workbench("gpt2", PROMPT), "needs a session first"),
    ],
)
def test_a_widget_without_a_session_says_how_it_is_made(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_setting_that_does_not_exist_is_answered_with_the_nearest(text):
    before = len(text.widgets)
    with pytest.raises(ValueError, match=r"unknown setting 'heads'; did you mean 'head'\? one of .*hide_bos"):
        iw.AttentionPattern(text, PROMPT, heads=3)
    assert len(text.widgets) == before


def test_a_name_of_the_package_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(AttributeError, match=r"has no attribute 'AttentionPatern'; did you mean 'AttentionPattern'\?"):
        _ = iw.AttentionPatern
    assert not hasattr(iw, "nothing_of_the_kind")


def test_a_heatmap_takes_its_prompts_in_order_as_patch_sweep_does(text):
    widget = iw.PatchingHeatmap(text, PROMPT, CORRUPTED)
    assert widget.state["prompts"] == {"clean": PROMPT, "corrupted": CORRUPTED}
    widget.close()


def test_a_state_that_is_no_state_is_answered_with_what_is(text):
    widget = iw.LogitLens(text, PROMPT)
    written = json.dumps(widget.state)
    with pytest.raises(TypeError, match=r"a state is the dict that widget.state gives; of a text, json.loads\(text\)"):
        iw.restore(written, text)
    with pytest.raises(TypeError, match="got Session"):
        iw.restore(text, widget.state)
    widget.close()


def test_a_site_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match="a site is named by text, such as 'z'; got 20"):
        iw.Ablate(20, 0)


def test_the_lens_follows_tokens_that_are_given_as_text(text):
    token = text.tokenizer(PROMPT).input_ids[0]
    widget = iw.LogitLens(text, PROMPT, tracked=[text.tokenizer.decode([token])])
    assert widget.tracked == [token]
    widget.close()
