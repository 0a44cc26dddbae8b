"""Prompts as token ids with display strings: spaces, line ends and odd bytes made visible, nothing trimmed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\u200b": "⁝"})


@dataclass(frozen=True)
class Tokens:
    """What is really run.

    `ids`: token ids; `strings`: one display string a token; `special`: whether it is a special token; `bos`: how the
    sequence begins, in words; `text`: the prompt as given, or None if ids were given.
    """

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    special: tuple[bool, ...]
    bos: str
    text: str | None

    def __len__(self) -> int:
        return len(self.ids)


def tokenize(tokenizer: Any, prompt: Any, prepend_bos: bool | None, n_vocab: int) -> Tokens:
    """Turn text or token ids into Tokens.

    `prepend_bos`: True and False add or drop the tokenizer's BOS token; None leaves text as the tokenizer makes it.
    Ids are taken as they are. Raises TypeError or ValueError for what is neither, for ids out of range, and for
    nothing.
    """
    bos_id = getattr(tokenizer, "bos_token_id", None)
    if isinstance(prompt, str):
        if tokenizer is None:
            raise TypeError("this session has no tokenizer: give the prompt as token ids, or Session(model, tokenizer)")
        ids = list(tokenizer(prompt)["input_ids"])
        bare = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        added = bos_id is not None and ids[:1] == [bos_id] and bare[:1] != [bos_id]
        name = getattr(tokenizer, "bos_token", None)
        if prepend_bos is False and added:
            ids, bos = ids[1:], f"{name} left out"
        elif prepend_bos and bos_id is not None and ids[:1] != [bos_id]:
            ids, bos = [bos_id, *ids], f"{name} added"
        else:
            bos = f"{name} added by the tokenizer" if added else "no BOS added"
        if prepend_bos and bos_id is None:
            raise ValueError("prepend_bos=True, but this tokenizer has no BOS token")
        text = prompt
    else:
        ids, text = _ids(prompt), None
        bos = "ids as given"
    if not ids:
        raise ValueError("the prompt is empty: at least one token is needed")
    wrong = [i for i in ids if not 0 <= i < n_vocab]
    if wrong:
        raise ValueError(f"token id {wrong[0]} is out of range: the vocabulary has {n_vocab} entries")
    special = set(getattr(tokenizer, "all_special_ids", ()))
    return Tokens(tuple(ids), tuple(display(tokenizer, ids)), tuple(i in special for i in ids), bos, text)


def _ids(prompt: Any) -> list[int]:
    values = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    if isinstance(values, Sequence) and len(values) == 1 and isinstance(values[0], list):
        values = values[0]  # a (1, position) batch, as tokenizers return it
    try:
        return [i.__index__() for i in values]
    except (TypeError, AttributeError):
        raise TypeError(
            f"a prompt is text or a sequence of token ids, got {type(prompt).__name__}: {prompt!r}"
        ) from None


def display(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """One visible string a token id; bytes that are no whole character as ⟨E2 82⟩; without a tokenizer, the id."""
    return [_show(tokenizer, i) for i in ids]


def _show(tokenizer: Any, token_id: int) -> str:
    if tokenizer is None:
        return str(token_id)
    piece = tokenizer.convert_ids_to_tokens(token_id)
    if piece is None:
        return f"[{token_id}]"  # the embedding has rows that the tokenizer does not use
    if token_id in tokenizer.all_special_ids:
        return piece
    text = tokenizer.convert_tokens_to_string([piece])
    if piece.startswith("▁") and not text.startswith(" "):
        text = " " + text  # SentencePiece decoders drop a leading space
    if "\ufffd" in text:
        return _hex(_bytes(piece))
    # Control and format characters would leave a blank label.
    return "".join(c if c.isprintable() else _hex(c.encode()) for c in text.translate(_VISIBLE))


def _hex(data: bytes) -> str:
    return f"⟨{data.hex(' ').upper()}⟩"


def _bytes(piece: str) -> bytes:
    if piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:-1], 16)])
    table = _byte_table()
    return b"".join(bytes([table[c]]) if c in table else c.encode() for c in piece)


def _byte_table() -> dict[str, int]:
    """GPT-2's alphabet of bytes: printable Latin-1 is itself, other bytes are the characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


def align(a: Tokens, b: Tokens) -> str:
    """Two tokenisations above each other, with a mark where they differ; for error texts."""
    width = max(len(a), len(b))
    rows: list[list[str]] = [[], [], []]
    for i in range(width):
        x = a.strings[i] if i < len(a) else "—"
        y = b.strings[i] if i < len(b) else "—"
        same = i < len(a) and i < len(b) and a.ids[i] == b.ids[i]
        cells = [x, y, "" if same else "^" * max(len(x), len(y))]
        pad = max(map(len, cells))
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell.ljust(pad))
    return "\n".join(" ".join(row).rstrip() for row in rows)
