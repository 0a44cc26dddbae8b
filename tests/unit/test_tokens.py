"""Prompts become the ids that are run, and every token can be told apart on screen."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from interpwidgets.demo_model import demo_model_path
from interpwidgets.tokens import align, display, tokenize, visible
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


def test_a_character_split_over_tokens_stands_in_each_with_its_part(bytes_tokenizer):
    assert strings(bytes_tokenizer, "€") == ["⟨€ 1/3⟩", "⟨€ 2/3⟩", "⟨€ 3/3⟩"]
    assert strings(bytes_tokenizer, "a🙂é") == ["a", *(f"⟨🙂 {i}/4⟩" for i in range(1, 5)), "⟨é 1/2⟩", "⟨é 2/2⟩"]


def test_bytes_of_no_character_are_shown_as_bytes(bytes_tokenizer):
    euro = bytes_tokenizer("€")["input_ids"]
    the = bytes_tokenizer("the")["input_ids"]
    assert display(bytes_tokenizer, euro[:2]) == ["⟨E2⟩", "⟨82⟩"]
    assert display(bytes_tokenizer, [*euro[:2], *the, euro[2]]) == ["⟨E2⟩", "⟨82⟩", "the", "⟨AC⟩"]
    assert display(bytes_tokenizer, [euro[0], *euro]) == ["⟨E2⟩", "⟨€ 1/3⟩", "⟨€ 2/3⟩", "⟨€ 3/3⟩"]


def test_special_tokens_are_shown_and_marked():
    tokens = tokenize(byte_level(add_bos=True), "the", None, VOCABULARY)
    assert tokens.strings == ("<s>", "the")
    assert tokens.special == (True, False)


def test_markup_in_a_prompt_stays_text(bytes_tokenizer):
    assert "".join(strings(bytes_tokenizer, "<b>&</b>")) == "<b>&</b>"


def test_sentence_piece_spaces_and_bytes(pieces_tokenizer):
    assert strings(pieces_tokenizer, "the cats") == ["␣the", "␣cat", "s"]
    assert strings(pieces_tokenizer, "s €") == ["␣", "s", "␣", "⟨€ 1/3⟩", "⟨€ 2/3⟩", "⟨€ 3/3⟩"]


def test_sentence_piece_byte_that_is_a_character_shows_it(pieces_tokenizer):
    newline = pieces_tokenizer.convert_tokens_to_ids("<0x0A>")
    assert display(pieces_tokenizer, [newline]) == ["↵"]


def test_rows_of_the_embedding_that_no_token_uses_show_their_id(bytes_tokenizer):
    assert display(bytes_tokenizer, [VOCABULARY - 1]) == [f"[{VOCABULARY - 1}]"]


def test_equal_tokens_stay_distinct_positions(bytes_tokenizer):
    tokens = tokenize(bytes_tokenizer, "the the the", None, VOCABULARY)
    assert tokens.strings == ("the", "␣the", "␣the")
    assert len(tokens) == len(tokens.ids) == 3


CORPUS = [
    "the cat sat on the mat",
    "der Käse für München",
    "猫は猫である",
    "القط على السجادة",
    "🙂👍🏽 done\n\tnext",
] * 20


@pytest.fixture(scope="module")
def trained():
    """Tokenizers of three kinds, trained on a few sentences; how each writes the text that it reads."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    pieces = Tokenizer(models.Unigram([("<unk>", 0.0)], unk_id=0, byte_fallback=True))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    pieces.decoder = decoders.Sequence(steps)
    fallback = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=340, special_tokens=fallback, unk_token="<unk>")
    )
    learnt = json.loads(pieces.to_str())
    learnt["model"]["byte_fallback"] = True
    learnt["added_tokens"] = [token for token in learnt["added_tokens"] if token["id"] == 0]
    pieces = Tokenizer.from_str(json.dumps(learnt))
    words = Tokenizer(models.WordPiece({}, unk_token="[UNK]"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    words.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]"]))
    made = {name: PreTrainedTokenizerFast(tokenizer_object=t) for name, t in (("bytes", bpe), ("words", words))}
    return made | {"pieces": PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="<unk>")}


def text_of(shown):
    """The characters that display strings stand for: of those in parts, the first part's."""
    joined = re.sub(r"⟨(◌?.) (\d+)/\d+⟩", lambda m: m[1] if m[2] == "1" else "", "".join(shown), flags=re.DOTALL)
    return joined.replace("◌", "")


@given(text=st.text(alphabet=st.sampled_from("the catKäü猫はالقط🙂👍🏽\u0301€\n\t ǅ"), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_every_character_is_shown_once_and_nothing_is_trimmed(trained, text):
    expected = visible(text).replace("◌", "")
    of_bytes, of_pieces = (tokenize(trained[name], text, None, 500).strings for name in ("bytes", "pieces"))
    assert text_of(of_bytes) == expected
    # SentencePiece sets a space before a text that has none.
    assert text_of(of_pieces) == ("" if text.startswith(" ") else "␣") + expected


def test_the_demo_tokenizer_shows_every_character():
    tokenizer = AutoTokenizer.from_pretrained(demo_model_path())
    text = "naïve  the the\n日本語 שלום 👩🏽‍🚀 €5 ﷽ x\u0301"
    tokens = tokenize(tokenizer, text, None, len(tokenizer))
    joiner = "⟨E2 80 8D⟩"  # draws nothing, and is cut: its bytes
    assert text_of(tokens.strings).replace("⟩⟨", " ") == visible(text).replace("◌", "")
    assert joiner in visible(text)
    assert [s for s in tokens.strings if "1/" in s]  # some are cut


def test_word_pieces_keep_their_mark_and_unknown_words_are_themselves(trained):
    tokens = tokenize(trained["words"], "the mats ☃", None, 500).strings
    assert tokens[0] == "the"
    assert tokens[-1] == "[UNK]"
    assert any(piece.startswith("##") for piece in tokens)


def test_every_byte_has_its_own_string(bytes_tokenizer):
    shown = [display(bytes_tokenizer, [i])[0] for i in range(3, 3 + 256)]
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
