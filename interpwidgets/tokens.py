"""Prompts as token ids with display strings: spaces, line ends and odd bytes made visible, nothing trimmed."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .engine.prompts import Prompt, SourceTarget, ids_of
from .engine.sites import SiteInfo

_VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\u200b": "⁝"})
# Printable by Unicode's categories, and yet nothing is drawn: joiners, fillers, variation selectors, Braille's blank.
_BLANK = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
_BLANK |= {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
_LONGEST = 64  # characters of a display string
_LINE = 100  # characters in a line of an aligned pair
_MOST_LINES = 6


@dataclass(frozen=True)
class Tokens:
    """What is really run.

    `ids`: token ids; `strings`: one display string a token; `special`: whether it is a special token; `bos`: how the
    sequence begins, in words; `text`: the prompt as given, or None if ids were given. In a model with an encoder, these
    are what the decoder reads, and `source` what the encoder does.
    """

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    special: tuple[bool, ...]
    bos: str
    text: str | None
    source: Tokens | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def prompt(self) -> Prompt:
        """Token ids that run as these tokens."""
        return self.ids if self.source is None else SourceTarget(self.source.ids, self.ids)

    @property
    def given(self) -> Prompt:
        """The prompt as it was given: its text, or ids that had none."""
        own = self.ids if self.text is None else self.text
        return own if self.source is None else SourceTarget(self.source.given, own)  # type: ignore[arg-type]

    def of(self, site: SiteInfo) -> Tokens:
        """Those whose positions a site has."""
        return self.source if site.of_source and self.source is not None else self

    def keys_of(self, site: SiteInfo) -> Tokens:
        """Those whose positions the keys of a site are."""
        return self.source if site.keys_of_source and self.source is not None else self


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
        bare = bare_ids(tokenizer, prompt)
        ids = list(tokenizer(prompt)["input_ids"])
        added = bos_id is not None and ids[:1] == [bos_id] and bare[:1] != [bos_id]
        name = getattr(tokenizer, "bos_token", None)
        if prepend_bos is False and added:
            ids, bos = ids[1:], f"{name} left out"
        elif prepend_bos and bos_id is not None and ids[:1] != [bos_id]:
            ids, bos = [bos_id, *ids], f"{name} added"
        else:
            bos = _added(tokenizer, ids, bare)
        if prepend_bos and bos_id is None:
            raise ValueError("prepend_bos=True, but this tokenizer has no BOS token")
        text = prompt
    else:
        ids, text = list(ids_of(prompt)), None
        bos = "ids as given"
    if not ids:
        raise ValueError(f"the prompt is empty: at least one token is needed, got {prompt!r}")
    wrong = next((at for at, i in enumerate(ids) if not 0 <= i < n_vocab), None)
    if wrong is not None:
        by = "" if text is None else f", which is what the tokenizer gives for {display(tokenizer, [ids[wrong]])[0]!r}"
        raise ValueError(
            f"token id {ids[wrong]} is out of range: the vocabulary has {n_vocab} entries (ids 0 to {n_vocab - 1}). "
            f"It stands at position {wrong} of the prompt{by}"
        )
    special = set(getattr(tokenizer, "all_special_ids", ()))
    return Tokens(tuple(ids), tuple(display(tokenizer, ids)), tuple(i in special for i in ids), bos, text)


def tokenize_pair(
    tokenizer: Any, prompt: Any, prepend_bos: bool | None, n_source: int, n_vocab: int, start: int | None
) -> Tokens:
    """Turn a prompt of a model with an encoder into what its decoder reads, with `source` beside it.

    The decoder reads its `start` token, then the target as the tokenizer makes it, without the special tokens that end
    it; ids that begin with `start` are taken as they are. Raises as `tokenize`, and ValueError for a decoder that
    would read nothing because `start` is not known.
    """
    given, target = (prompt.source, prompt.target) if isinstance(prompt, SourceTarget) else (prompt, "")
    source = tokenize(tokenizer, given, prepend_bos, n_source)
    text = target if isinstance(target, str) else None
    ids = _target_ids(tokenizer, target) if isinstance(target, str) else list(target)
    begins = "" if start is None else f"begins with {display(tokenizer, [start])[0]}"
    if start is not None and (text is not None or ids[:1] != [start]):
        ids = [start, *ids]
    if not ids:
        raise ValueError("config.decoder_start_token_id is not set, so how the decoder begins: give the target's ids")
    checked = tokenize(tokenizer, ids, None, n_vocab)
    return replace(checked, bos=begins or checked.bos, text=text, source=source)


def _target_ids(tokenizer: Any, text: str) -> list[int]:
    if not text:
        return []
    if tokenizer is None:
        raise TypeError("this session has no tokenizer: give the target as token ids, or Session(model, tokenizer)")
    bare_ids(tokenizer, text)  # refuses what is no text
    bare, ids = (list(tokenizer(text_target=text, add_special_tokens=add)["input_ids"]) for add in (False, True))
    start = _begin(ids, bare)
    return ids if start is None else ids[: start + len(bare)]


def _begin(ids: list[int], bare: list[int]) -> int | None:
    """Where `bare` stands in `ids`; None if it does not."""
    return next((i for i in range(len(ids) - len(bare) + 1) if ids[i : i + len(bare)] == bare), None)


def bare_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text without special tokens. Raises ValueError for half a surrogate pair, which is no text."""
    lone = next((at for at, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
    if lone is not None:
        raise ValueError(
            f"character {lone} of the text, {text[lone]!r}, is half of a surrogate pair, which no tokenizer reads: "
            "remove it, or decode the bytes that it came from again"
        )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def typed_ids(tokenizer: Any, text: str) -> list[int]:
    """As `bare_ids`, but WordPiece's continuation of a word, ##ing, which no text alone gives, is typed as it is shown.

    Of another tokenizer, or where there is no such token, ##ing is text.
    """
    ids = bare_ids(tokenizer, text)
    own = tokenizer.convert_tokens_to_ids(text) if text.startswith("##") else None
    # What the vocabulary does not have is the token for what is unknown.
    return ids if own is None or tokenizer.convert_ids_to_tokens(own) != text else [own]


def one_token(tokenizer: Any, text: str) -> int:
    """The id of a text that is one token. Raises ValueError, showing its tokens and what would be one, if it is not."""
    ids = typed_ids(tokenizer, text)
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise ValueError("the answer is empty: a text of one token is needed")
    other, how = (text[1:], "without the") if text.startswith(" ") else (f" {text}", "with a")
    is_one = bool(other) and len(bare_ids(tokenizer, other)) == 1
    pieces = f"{display(tokenizer, ids[:8])}{' and more' if len(ids) > 8 else ''}"
    hint = f"; {other!r}, {how} space, is one" if is_one else ""
    first = f"its first token is {tokenizer.decode(ids[:1])!r} (id {ids[0]})"
    raise ValueError(f"the answer {elide(text, 40)!r} is {len(ids)} tokens, {pieces}: one is needed{hint}; {first}")


def written_ids(text: str) -> list[int]:
    """Token ids as a reader types them, separated by commas or spaces. Raises ValueError for anything else."""
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise ValueError(
            f"this session has no tokenizer: type token ids, such as 5, 17, 3; got {elide(text, 80)!r}"
        ) from None


def _added(tokenizer: Any, ids: list[int], bare: list[int]) -> str:
    """Which special tokens the tokenizer put around a text, whose own ids are `bare`."""
    start = _begin(ids, bare)
    if start is None or len(ids) == len(bare):
        return "no BOS added"
    around = tokenizer.convert_ids_to_tokens([*ids[:start], *ids[start + len(bare) :]])
    return f"{' and '.join(around)} added by the tokenizer"


def display(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """One visible string a token id; without a tokenizer, the id. Of a very long token, its two ends.

    A character whose bytes are in several tokens stands in each of them, as ⟨€ 1/3⟩; bytes of no character as ⟨E2 82⟩.
    """
    shown: list[str] = []
    cut: list[bytes] = []  # the tokens just before that cut characters apart
    for i in ids:
        text = _show(tokenizer, i)
        if isinstance(text, bytes):
            cut.append(text)
            continue
        shown += [*_parts(cut), text]
        cut = []
    return [elide(text, _LONGEST) for text in [*shown, *_parts(cut)]]


def _show(tokenizer: Any, token_id: int) -> str | bytes:
    """A token on its own: bytes where it is not made of whole characters."""
    if tokenizer is None:
        return str(token_id)
    piece = tokenizer.convert_ids_to_tokens(token_id)
    if piece is None:
        return f"[{token_id}]"  # the embedding has rows that the tokenizer does not use
    if token_id in tokenizer.all_special_ids:
        return visible(piece)
    text = tokenizer.convert_tokens_to_string([piece])
    if piece.startswith("▁") and not text.startswith(" "):
        text = " " + text  # SentencePiece decoders drop a leading space
    return _bytes(piece) if "\ufffd" in text else visible(text)


def _parts(tokens: Sequence[bytes]) -> list[str]:
    """Display strings of tokens in a row that cut characters apart."""
    token_of = [token for token, data in enumerate(tokens) for _ in data]
    shown = [""] * len(tokens)
    at = 0
    for character, data in _characters(b"".join(tokens)):
        within = list(dict.fromkeys(token_of[at : at + len(data)]))
        name = visible(character)
        for part, token in enumerate(within, start=1):
            if len(within) == 1:
                shown[token] += name or _hex(data)
            elif name and not name.startswith("⟨"):
                shown[token] += f"⟨{name} {part}/{len(within)}⟩"
            else:  # no character, or one that draws nothing
                shown[token] += _hex(bytes(b for b, t in zip(data, token_of[at:], strict=False) if t == token))
        at += len(data)
    return shown


def _characters(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Characters and their bytes; "" for bytes that are none, together where they follow each other."""
    while data:
        try:
            good, stray = data.decode(), 0
        except UnicodeDecodeError as error:
            good, stray = data[: error.start].decode(), error.end - error.start
        yield from ((c, c.encode()) for c in good)
        data = data[len(good.encode()) :]
        if stray:
            yield "", data[:stray]
            data = data[stray:]


def visible(text: str) -> str:
    """Text of which every character is seen: white space as ␣ ↵ ⇥, what would draw nothing or turn the line as ⟨bytes⟩.

    An accent without its letter stands on ◌.
    """
    shown = "".join(c if _is_drawn(c) else _hex(c.encode("utf-8", "surrogatepass")) for c in text.translate(_VISIBLE))
    return f"◌{shown}" if shown and unicodedata.category(shown[0]).startswith("M") else shown


def _is_drawn(character: str) -> bool:
    return character.isprintable() and ord(character) not in _BLANK


def elide(text: str, length: int) -> str:
    """Shorten in the middle, so that both ends stay readable."""
    if len(text) <= length:
        return text
    keep = length - 1
    return f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"


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
    """Two tokenisations above each other, equal tokens in one column, with a mark where they differ; for error texts.

    A token that the other prompt lacks stands above or below a —. Of a long pair, what follows the first difference.
    """
    lines: list[list[str]] = []
    width = _LINE
    for x, y, same in _columns(a, b):
        cells = [x, y, "" if same else "^" * max(len(x), len(y))]
        size = max(map(len, cells)) + 1
        if width + size > _LINE:
            lines.append(["", "", ""])
            width = 0
        width += size
        lines[-1] = [row + cell.ljust(size) for row, cell in zip(lines[-1], cells, strict=True)]
    shown = ["\n".join(row.rstrip() for row in line) for line in lines[:_MOST_LINES]]
    return "\n\n".join([*shown, *(["…"] if len(lines) > _MOST_LINES else [])])


def first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    """The first position at which two lists of ids differ; the shorter one's length if it begins the other."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _columns(a: Tokens, b: Tokens) -> Iterator[tuple[str, str, bool]]:
    """The tokens of both prompts side by side: (of a, of b, whether they are the same)."""
    shared = first_difference(a.ids, b.ids)
    start = 0 if shared < 20 else shared - 3
    if start:
        yield "…", "…", True
    # Bounded: matching takes the square of the length.
    ids, others = a.ids[start : start + 400], b.ids[start : start + 400]
    for kind, i, i_end, j, j_end in difflib.SequenceMatcher(None, ids, others, autojunk=False).get_opcodes():
        for step in range(max(i_end - i, j_end - j)):
            x = elide(a.strings[start + i + step], 24) if i + step < i_end else "—"
            y = elide(b.strings[start + j + step], 24) if j + step < j_end else "—"
            yield x, y, kind == "equal"
