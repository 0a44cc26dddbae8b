"""The teaching layer: what the words on a widget mean, in two sentences and a small drawing each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Shape = list[Any]
"""[tag, attributes, text] of one element of an SVG drawing, 300 wide and 92 high."""


@dataclass(frozen=True)
class Term:
    """A word of the field. `drawing` is of rectangles, lines, circles and words, coloured by the page's theme."""

    name: str
    text: str
    drawing: tuple[Shape, ...]


def _box(x: float, y: float, width: float, words: str, kind: str = "box", height: float = 22) -> list[Shape]:
    return [
        ["rect", {"x": x, "y": y, "width": width, "height": height, "rx": 3, "class": f"iw-draw__{kind}"}, ""],
        _words(x + width / 2, y + height / 2 + 4, words),
    ]


def _words(x: float, y: float, words: str, anchor: str = "middle", kind: str = "text") -> Shape:
    return ["text", {"x": x, "y": y, "text-anchor": anchor, "class": f"iw-draw__{kind}"}, words]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "line", width: float = 1.5) -> Shape:
    return ["line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "stroke-width": width, "class": f"iw-draw__{kind}"}, ""]


def _dot(x: float, y: float, kind: str = "dot") -> Shape:
    return ["circle", {"cx": x, "cy": y, "r": 4, "class": f"iw-draw__{kind}"}, ""]


def _cell(x: float, y: float, share: float) -> Shape:
    shown = {"x": x, "y": y, "width": 15, "height": 15, "fill-opacity": share, "class": "iw-draw__cell"}
    return ["rect", shown, ""]


def _arrow(x1: float, y1: float, x2: float, y2: float, kind: str = "line", width: float = 1.5) -> list[Shape]:
    """A line with a head; upright or level."""
    along, across = (0, (y2 > y1) * 2 - 1) if x1 == x2 else ((x2 > x1) * 2 - 1, 0)
    back = 5
    wings = [(x2 - along * back - across * 4, y2 - across * back - along * 4)]
    wings.append((x2 - along * back + across * 4, y2 - across * back + along * 4))
    return [_line(x1, y1, x2, y2, kind, width), *(_line(x, y, x2, y2, kind, width) for x, y in wings)]


def _two_runs(kind: str) -> tuple[Shape, ...]:
    """The clean and the corrupted run, and one activation that is copied from one to the other."""
    down = kind == "denoise"
    result = "→ Paris again?" if down else "→ still Paris?"
    return (
        _words(0, 26, "clean", "start", "quiet"), _line(52, 22, 200, 22, width=2),
        _words(0, 72, "corrupted", "start", "quiet"), _line(62, 68, 200, 68, width=2),
        *(_dot(x, y, "hollow") for x in (85, 165) for y in (22, 68)),
        _dot(125, 22), _dot(125, 68),
        *(_arrow(125, 29, 125, 61, "accent", 2) if down else _arrow(125, 61, 125, 29, "accent", 2)),
        _words(208, 72 if down else 26, result, "start"),
        _words(208, 26 if down else 72, "Paris" if down else "Rome", "start", "quiet"),
    )  # fmt: skip


_TEXTS = {
    "residual stream": (
        "The vector that travels up through the model above each token; every block reads it and adds to it. All that "
        "one layer tells a later one goes through it."
    ),
    "head": (
        "One of several parts of an attention layer that work side by side. At each token it chooses tokens to read "
        "from, itself and earlier ones, and writes what it reads into that token's residual stream."
    ),
    "attention pattern": (
        "How much a head reads from where: each row is a token that reads (the query), each column a token it reads "
        "from (the key), and a row sums to 1. Above the diagonal there is nothing, since a token cannot read later "
        "ones."
    ),
    "ablation": (
        "Taking one part of the model out, here by setting a head's output to zero or to its mean, and running the "
        "rest. What changes shows what that part did on this prompt, in this way of removing it."
    ),
    "logit lens": (
        "Reads the residual stream after a layer as if it were the last: through the final norm and the unembedding, "
        "as a prediction. The middle layers were not trained to be read so: what is not on top there may still be "
        "known."
    ),
    "activation patching": (
        "Copies one activation from one run into another run, which goes on from there. The answer that then comes "
        "shows whether what the two prompts differ in went through that place."
    ),
    "denoising": (
        "Patches a clean activation into the corrupted run: does the right answer come back? It finds what suffices "
        "to restore the answer."
    ),
    "noising": (
        "Patches a corrupted activation into the clean run: does the answer break? It finds what the answer needs, "
        "and that need not be what suffices."
    ),
    "logit difference": (
        "The answer's logit minus the foil's: above 0 the model prefers the answer. Its logarithmic scale treats "
        "every factor of the odds alike, where a probability near 0 or 1 hardly moves."
    ),
}

_PATTERN = ((1,), (0.7, 0.3), (0.4, 0.5, 0.1), (0.1, 0.1, 0.7, 0.1), (0.1, 0.6, 0.1, 0.1, 0.1))

_DRAWINGS: dict[str, tuple[Shape, ...]] = {
    "residual stream": (
        _words(0, 72, "token", "start", "quiet"), *_arrow(40, 68, 232, 68, width=2.5),
        _words(240, 72, "prediction", "start", "quiet"),
        *_box(62, 14, 62, "attention"), *_box(158, 14, 42, "MLP"),
        *_arrow(74, 67, 74, 38), *_arrow(112, 36, 112, 66, "accent"), _words(121, 56, "+"),
        *_arrow(168, 67, 168, 38), *_arrow(192, 36, 192, 66, "accent"), _words(201, 56, "+"),
    ),
    "head": (
        *(_words(30 + 60 * i, 86, word) for i, word in enumerate(("The", "Eiffel", "Tower", "is", "in"))),
        *(_dot(30 + 60 * i, 68) for i in range(5)),
        *_box(130, 8, 60, "head"),
        _line(90, 63, 150, 31, "accent", 4), _line(150, 63, 156, 31, "accent", 2.5),
        _line(30, 63, 142, 31, "accent", 0.8),
        _line(180, 31, 266, 62, width=2),
    ),
    "attention pattern": (
        *(
            _cell(112 + 16 * key, 6 + 16 * query, share)
            for query, row in enumerate(_PATTERN)
            for key, share in enumerate(row)
        ),
        _words(104, 50, "query reads", "end", "quiet"), _words(200, 50, "from key", "start", "quiet"),
    ),
    "ablation": (
        _words(0, 72, "token", "start", "quiet"), *_arrow(40, 68, 232, 68, width=2.5),
        _words(240, 72, "changed?", "start"),
        *_box(64, 14, 56, "head"), *_box(160, 14, 56, "head"),
        *_arrow(92, 37, 92, 66), _line(150, 8, 226, 42, "warn", 2.5), _line(150, 42, 226, 8, "warn", 2.5),
        _words(188, 60, "0", "middle", "quiet"),
    ),
    "logit lens": (
        _words(0, 72, "token", "start", "quiet"), *_arrow(40, 68, 292, 68, width=2.5),
        *(_dot(x, 68) for x in (80, 165, 250)),
        *_arrow(80, 62, 80, 28, "accent"), *_arrow(165, 62, 165, 28, "accent"), *_arrow(250, 62, 250, 28, "accent"),
        _words(80, 20, ","), _words(165, 20, "the"), _words(250, 20, "Paris"),
        _words(80, 88, "layer 5", kind="quiet"), _words(165, 88, "layer 20", kind="quiet"),
        _words(250, 88, "layer 29", kind="quiet"),
    ),
    "activation patching": _two_runs("denoise"),
    "denoising": _two_runs("denoise"),
    "noising": _two_runs("noise"),
    "logit difference": (
        _words(60, 86, "answer", kind="quiet"), _words(150, 86, "foil", kind="quiet"),
        ["rect", {"x": 40, "y": 14, "width": 40, "height": 58, "class": "iw-draw__bar"}, ""],
        ["rect", {"x": 130, "y": 46, "width": 40, "height": 26, "class": "iw-draw__bar"}, ""],
        _line(84, 14, 205, 14, "quietline"), _line(174, 46, 205, 46, "quietline"),
        *_arrow(198, 46, 198, 16, "accent", 2), _words(208, 35, "difference", "start"),
    ),
}  # fmt: skip

TERMS = {name: Term(name, text, _DRAWINGS[name]) for name, text in _TEXTS.items()}
"""The words that widgets explain, by name."""
