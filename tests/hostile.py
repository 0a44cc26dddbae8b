"""A model that reads and predicts text made to be taken for something else: markup, TeX, bidirectional controls."""

from __future__ import annotations

import torch

import interpwidgets as iw
from tests.models import tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level

SHOWN = {
    "<img src=x onerror=alert(1)>": "<img␣src=x␣onerror=alert(1)>",
    "</script><script>alert(1)</script>": "</script><script>alert(1)</script>",
    "<b>bold</b>": "<b>bold</b>",
    "&lt;": "&lt;",
    "$x^2$": "$x^2$",
    "\u202eevil": "⟨E2 80 AE⟩evil",
    "\u200f": "⟨E2 80 8F⟩",
    "a\u200db": "a⟨E2 80 8D⟩b",
    "\u3164": "⟨E3 85 A4⟩",
    "שלום": "שלום",
    "%{z}": "%{z}",
    "y" * 10_000: "y" * 32 + "…" + "y" * 31,
}
"""Tokens, and how each is displayed."""

PROMPT = "".join(SHOWN)
CORRUPTED = "".join([*list(SHOWN)[1:], "the"])


def hostile_session() -> iw.Session:
    """Its vocabulary has a token for each text in `SHOWN`, and it predicts little else."""
    tokenizer = byte_level(add_bos=False)
    tokenizer.add_tokens(list(SHOWN))
    model = tiny("phi", vocab_size=VOCABULARY)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.convert_tokens_to_ids(list(SHOWN))] += 30
    return iw.Session(model, tokenizer)
