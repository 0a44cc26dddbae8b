"""Prompts become the ids that are run, and every token can be told apart on screen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interpwidgets.tokens import align, display, tokenize
from tests.tiny_tokenizers import VOCABULARY, byte_level, sentence_piece


@pytest.fixture(scope="module")
def bytes_tokenizer():
    return byte_level(add_bos=False)


@pytest.fixture(scope="module")
def pieces_tokenizer():
    return sentence_piece()


def strings(tokenizer, prompt):
    return list(tokenize(tokenizer, prompt, None, VOCABULARY).strings)


def test_white_space_is_visible(bytes_tokenizer):
    assert strings(bytes_tokenizer, "the the\n\t\r") == ["the", "␣the", "↵", "⇥", "␍"]


def test_runs_of_spaces_keep_their_number(bytes_tokenizer):
    assert strings(bytes_tokenizer, "   the") == ["␣", "␣", "␣the"]


def test_a_character_split_over_tokens_shows_its_bytes(bytes_tokenizer):
    assert strings(bytes_tokenizer, "€") == ["⟨E2⟩", "⟨82⟩", "⟨AC⟩"]
    assert strings(bytes_tokenizer, "a🙂") == ["a", "⟨F0⟩", "⟨9F⟩", "⟨99⟩", "⟨82⟩"]


def test_special_tokens_are_shown_and_marked():
    tokens = tokenize(byte_level(add_bos=True), "the", None, VOCABULARY)
    assert tokens.strings == ("<s>", "the")
    assert tokens.special == (True, False)


def test_markup_in_a_prompt_stays_text(bytes_tokenizer):
    assert "".join(strings(bytes_tokenizer, "<b>&</b>")) == "<b>&</b>"


def test_sentence_piece_spaces_and_bytes(pieces_tokenizer):
    assert strings(pieces_tokenizer, "the cats") == ["␣the", "␣cat", "s"]
    assert strings(pieces_tokenizer, "s €") == ["␣", "s", "␣", "⟨E2⟩", "⟨82⟩", "⟨AC⟩"]


def test_sentence_piece_byte_that_is_a_character_shows_it(pieces_tokenizer):
    newline = pieces_tokenizer.convert_tokens_to_ids("<0x0A>")
    assert display(pieces_tokenizer, [newline]) == ["↵"]


def test_rows_of_the_embedding_that_no_token_uses_show_their_id(bytes_tokenizer):
    assert display(bytes_tokenizer, [VOCABULARY - 1]) == [f"[{VOCABULARY - 1}]"]


def test_equal_tokens_stay_distinct_positions(bytes_tokenizer):
    tokens = tokenize(bytes_tokenizer, "the the the", None, VOCABULARY)
    assert tokens.strings == ("the", "␣the", "␣the")
    assert len(tokens) == len(tokens.ids) == 3


def test_every_byte_has_its_own_string(bytes_tokenizer):
    shown = display(bytes_tokenizer, range(3, 3 + 256))
    assert len(set(shown)) == 256
    assert all(text.isprintable() and text.strip() for text in shown)
    assert shown[bytes_tokenizer.convert_tokens_to_ids("Ā") - 3] == "⟨00⟩"


@pytest.mark.parametrize(
    "prompt",
    [(5, 6, 7), [5, 6, 7], torch.tensor([5, 6, 7]), np.array([5, 6, 7]), torch.tensor([[5, 6, 7]]), [[5, 6, 7]]],
)
def test_ids_are_taken_as_they_are(prompt):
    tokens = tokenize(None, prompt, None, VOCABULARY)
    assert tokens.ids == (5, 6, 7)
    assert tokens.strings == ("5", "6", "7")
    assert tokens.text is None
    assert tokens.bos == "ids as given"


@pytest.mark.parametrize(
    ("add_bos", "prepend_bos", "starts_with_bos", "said"),
    [
        (False, None, False, "no BOS added"),
        (False, True, True, "<s> added"),
        (False, False, False, "no BOS added"),
        (True, None, True, "<s> added by the tokenizer"),
        (True, True, True, "<s> added by the tokenizer"),
        (True, False, False, "<s> left out"),
    ],
)
def test_bos_policy(add_bos, prepend_bos, starts_with_bos, said):
    tokens = tokenize(byte_level(add_bos=add_bos), "the the", prepend_bos, VOCABULARY)
    assert (tokens.ids[0] == 1) is starts_with_bos
    assert tokens.strings[-2:] == ("the", "␣the")
    assert len(tokens) == 2 + starts_with_bos
    assert tokens.bos == said


@pytest.mark.parametrize("prepend_bos", [None, True, False])
def test_bos_written_out_in_the_prompt_is_kept_once(prepend_bos):
    tokens = tokenize(byte_level(add_bos=False), "<s>the", prepend_bos, VOCABULARY)
    assert tokens.strings == ("<s>", "the")
    assert tokens.bos == "no BOS added"


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ("the", TypeError, "no tokenizer"),
        (5, TypeError, "text or a sequence of token ids, got int"),
        ([0.5], TypeError, "text or a sequence of token ids"),
        ([], ValueError, "empty"),
        ((5, 300), ValueError, "token id 300 is out of range: the vocabulary has 300"),
        ((-1,), ValueError, "token id -1 is out of range"),
    ],
)
def test_what_is_no_prompt_is_refused(prompt, error, message):
    with pytest.raises(error, match=message):
        tokenize(None, prompt, None, VOCABULARY)


def test_empty_text_is_refused(bytes_tokenizer):
    with pytest.raises(ValueError, match="empty"):
        tokenize(bytes_tokenizer, "", None, VOCABULARY)


def test_bos_of_a_tokenizer_without_one_is_refused():
    tokenizer = byte_level(add_bos=False)
    tokenizer.bos_token = None
    with pytest.raises(ValueError, match="has no BOS"):
        tokenize(tokenizer, "the", True, VOCABULARY)


def test_tokenisations_are_aligned_and_marked_where_they_differ(bytes_tokenizer):
    a, b = (tokenize(bytes_tokenizer, text, None, VOCABULARY) for text in ("the the", "thea the\n"))
    assert align(a, b).split("\n") == [
        "the — ␣the —",
        "the a ␣the ↵",
        "    ^      ^",
    ]


def test_a_long_pair_is_shown_from_shortly_before_its_first_difference():
    a = tokenize(None, [7] * 500 + [8, 9], None, VOCABULARY)
    b = tokenize(None, [7] * 500 + [5, 8, 9], None, VOCABULARY)
    assert align(a, b).split("\n") == [
        "… 7 7 7 — 8 9",
        "… 7 7 7 5 8 9",
        "        ^",
    ]


def test_an_aligned_pair_is_broken_into_lines_that_fit():
    a = tokenize(None, range(100, 200), None, VOCABULARY)
    b = tokenize(None, range(101, 201), None, VOCABULARY)
    lines = align(a, b).split("\n")
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("100 101 102 ")
    assert lines[1].startswith("—   101 102 ")
    assert lines[2] == "^^^"
