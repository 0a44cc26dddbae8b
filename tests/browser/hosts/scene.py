"""What every front end shows: three widgets of one session on a tiny random model."""

from __future__ import annotations

import interpwidgets as iw
from tests.models import tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level

CLEAN = "the cat sat"
CORRUPTED = "the bat sat"


def open_session() -> iw.Session:
    return iw.Session(tiny("llama", vocab_size=VOCABULARY), byte_level(add_bos=True))


def make_widgets(session: iw.Session) -> tuple[iw.AttentionPattern, iw.LogitLens, iw.PatchingHeatmap]:
    answers = {"answer": session.token_id("a"), "foil": session.token_id("b")}
    return (
        iw.AttentionPattern(session, CLEAN, layer=2, head=1),
        iw.LogitLens(session, CLEAN),
        iw.PatchingHeatmap(session, clean=CLEAN, corrupted=CORRUPTED, **answers),
    )
