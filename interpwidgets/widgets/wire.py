"""What travels to the page: arrays, prompts, the facts of a session; and what is typed there, read back."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine.prompts import SourceTarget
from ..session import Session
from ..tokens import Tokens, written_ids
from .unicode import drawable

Wire = dict[str, Any]


def to_wire(array: np.ndarray | None, *, triangle: bool = False) -> Wire | None:
    """An array as the front end decodes it: bytes, dtype and shape; floats as float32, ints as int32.

    `triangle`: of its last two axes, which are of one length, only what is not above the diagonal travels.
    """
    if array is None:
        return None
    kind = {"f": np.float32, "i": np.int32}.get(array.dtype.kind, array.dtype)
    shape = list(array.shape)
    if triangle:
        rows, columns = np.tril_indices(shape[-1])
        array = array[..., rows, columns]
    array = np.ascontiguousarray(array, dtype=kind)
    return {"view": memoryview(array.tobytes()), "dtype": str(array.dtype), "shape": shape, "triangle": triangle}


def prompt_to_wire(tokens: Tokens, session: Session) -> Wire:
    """A prompt as the front end shows it."""
    raw = [session.token_text(i) for i in tokens.ids]
    long = session.context.note(len(tokens))
    return {
        "text": tokens.text,
        "bos": f"{tokens.bos} · {long}" if long else tokens.bos,
        "answer_position": session.answer_position(tokens),
        "tokens": [
            {"id": i, "text": s, "raw": r, "special": special}
            for i, s, r, special in zip(tokens.ids, tokens.strings, raw, tokens.special, strict=True)
        ],
        "source": None if tokens.source is None else prompt_to_wire(tokens.source, session),
    }


def parse_prompt(session: Session, prompt: Any, shown: Tokens | None = None) -> Any:
    """A prompt as typed: text, or token ids, as a list or, where the session has no tokenizer, separated as written.

    The page may type one text of a pair, {"source": text} or {"target": text}; the other stays as it is `shown`.
    """
    if isinstance(prompt, dict) and shown is not None and isinstance(shown.given, SourceTarget):
        return replace(shown.given, **{name: parse_prompt(session, text) for name, text in prompt.items()})
    if isinstance(prompt, SourceTarget):
        return SourceTarget(parse_prompt(session, prompt.source), parse_prompt(session, prompt.target))
    return written_ids(prompt) if isinstance(prompt, str) and session.tokenizer is None else prompt


def prompt_code(tokens: Tokens) -> str:
    """A prompt as Python: its text, or its ids where it has none."""
    return repr(list(tokens.ids) if tokens.text is None and tokens.source is None else tokens.given)


def prompt_question(tokens: Tokens) -> Any:
    """A prompt as a page asks for it: its text, its ids where it has none, or a pair of texts."""
    own = list(tokens.ids) if tokens.text is None else tokens.text
    return own if tokens.source is None else {"source": prompt_question(tokens.source), "target": own}


def header_to_wire(session: Session) -> Wire:
    """The facts of a session that stand in every widget's header."""
    a = session.engine.architecture
    checked = session.checked
    details = [{"name": i.name, "text": f"largest error {i.error:.1e}", "ok": i.ok} for i in checked.items]
    unknown = [{"name": "device", "text": checked.on_cpu, "ok": True}] if isinstance(checked.on_cpu, str) else []
    form = "one pass for all cells" if checked.one_pass else "full batch: this attention cannot let rows join late"
    return {
        "model": drawable(session.name),
        "dtype": session.engine.dtype_name,
        "device": str(session.engine.device),
        "attention": " / ".join(sorted(set(session.engine.implementation.names()))),
        "layers": a.n_layers,
        "heads": max(a.n_heads),
        "kv_heads": max(a.n_kv_heads),
        "causal": session.causal,
        "tokenizer": session.tokenizer is not None,
        "mask": getattr(session.tokenizer, "mask_token", None),
        "note": session.note,
        "check": {
            "ok": checked.ok,
            "summary": checked.summary,
            "details": [*details, {"name": "sweeps", "text": form, "ok": True}, *unknown],
        },
    }


def whole(value: Any, name: str) -> int:
    """A whole number from the front end. Raises TypeError, naming it, for anything else."""
    if isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: a whole number is needed")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: a whole number is needed") from None
