"""Tiny real tokenizers of the three kinds that language models use, built without any download."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

VOCABULARY = 300
"""Enough rows in an embedding for either tokenizer."""

_SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def byte_level(*, add_bos: bool) -> PreTrainedTokenizerFast:
    """GPT-2's kind: BPE over bytes. Knows "the" and " the" and else single bytes; puts BOS first if asked."""
    pieces = [*_SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "Ġthe"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL)


def sentence_piece() -> PreTrainedTokenizerFast:
    """Llama 2's kind: ▁ for a space, bytes as <0xE2> where there is no piece."""
    pieces = ["<unk>", *_SPECIAL.values(), "▁", "▁the", "▁cat", "s", *(f"<0x{byte:02X}>" for byte in range(256))]
    scores = [(piece, -10.0 if piece.startswith("<0x") else -1.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **_SPECIAL)


def word_piece() -> PreTrainedTokenizerFast:
    """BERT's kind: words and ##continuations, between [CLS] and [SEP]."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "on", "mat", "is", "of"]
    pieces += ["capital", "france", "paris", "rome", ".", "##s", "##ing"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip
