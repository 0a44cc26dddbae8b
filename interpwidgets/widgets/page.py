"""One HTML file that shows widgets without a kernel or a network: their modules and their recorded results."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from .esm import minified
from .labels import short_label
from .recording import Result, canonical
from .unicode import encodable

Answer = tuple[dict[str, Any], dict[str, Any]]
"""A request as the page makes it, without its id, and the traits that answer it."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body class="iw-page">
<noscript>This page draws its pictures with JavaScript, which is switched off here.</noscript>
<script type="application/json" id="iw-page-data">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Table:
    """A file of numbers."""

    file: dict[str, str]
    """Its name, type and text."""
    of: dict[str, Any]
    """Traits on which it depends beside the question, and what they are in it."""


@dataclass(frozen=True)
class Part:
    """A widget of a page, which opens on the last of its results and answers from all of them."""

    name: str
    """What it is called in the Python that the page says."""
    esm: str
    css: str
    results: Sequence[Result]
    answers: Sequence[Answer]
    """Requests that change nothing but these traits of the last result."""
    makes: Mapping[str, str]
    """For requests that add an experiment, or take it back, in canonical JSON: the experiment's code."""
    chooses: Mapping[str, tuple[str, ...]]
    """Operations that only choose what is shown, with the traits that their arguments set."""
    owners: Mapping[str, str]
    """Operations that are no methods of the widget, with what they are methods of, in the Python that the page says."""
    table: Table | None
    """The numbers of the last result."""


def abreast(parts: Sequence[Part]) -> list[Part]:
    """Of each part the results of the runs that all have, to open on the same run: the last of the first part's."""
    common = set.intersection(*({result.run() for result in part.results} for part in parts))
    kept = [replace(part, results=[r for r in part.results if r.run() in common]) for part in parts]
    if not common:
        return kept
    last = kept[0].results[-1].run()

    def ending(new: Part, old: Part) -> Part:
        there = replace(new, results=sorted(new.results, key=lambda result: result.run() == last))
        # What is there beside the results is of the last of them.
        return there if old.results[-1].run() == last else replace(there, answers=(), table=None)

    return [ending(new, old) for new, old in zip(kept, parts, strict=True)]


def offline_page(title: str, parts: Sequence[Part], code: str | None = None) -> str:
    """A page of these widgets; experiments that are chosen in one of them are shown in all.

    `code` is that of all of them, as the page opens.
    """
    values: dict[str, int] = {}  # what several results share stands in the page once

    def stored(traits: Mapping[str, Any]) -> dict[str, int]:
        texts = {name: json.dumps(_plain(value), ensure_ascii=False, allow_nan=False) for name, value in traits.items()}
        return {name: values.setdefault(text, len(values)) for name, text in texts.items()}

    widgets = [
        {
            "name": part.name,
            "esm": part.esm,
            "results": [
                {
                    "question": result.question, "label": _label(result, part.results),
                    "traits": stored(result.traits), "experiments": result.entries(),
                }
                for result in part.results
            ],
            "answers": {canonical(request): stored(traits) for request, traits in part.answers},
            "makes": dict(part.makes),
            "chooses": {op: list(names) for op, names in part.chooses.items()},
            "owners": dict(part.owners),
            "table": None if part.table is None else vars(part.table),
        }
        for part in parts
    ]  # fmt: skip
    # The values are JSON already: written by hand, so that they are not encoded twice.
    rest = {"widgets": widgets, "code": code}
    text = f'{{"values":[{",".join(values)}],{json.dumps(encodable(rest), ensure_ascii=False)[1:]}'
    script = minified("page.js") + "\nopenPage();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}' blob:; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return _PAGE.format(
        policy=html.escape(policy), title=html.escape(title), style="".join(p.css for p in parts) + _own_style(),
        data=text.replace("<", "\\u003c"), script=script,
    )  # fmt: skip


@cache
def _own_style() -> str:
    return (files("interpwidgets.widgets") / "static" / "page.css").read_text(encoding="utf-8")


def _label(result: Result, among: Sequence[Result]) -> str:
    """A result's experiments, and of its question what the others do not share."""
    apart = [
        f"{name} {_written(value)}"
        for name, value in result.question.items()
        if any(other.question.get(name) != value for other in among)
    ]
    acting = ", ".join(e.name or short_label(e.intervention) for e in result.experiments if e.on)
    return " · ".join([*apart, acting or "no experiments"])


def _written(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "; ".join(
            " ".join(f"{key} {entry}" for key, entry in cell.items() if entry is not None) for cell in value
        )
    return "–" if value is None else str(value)


def _plain(value: Any) -> Any:
    """A trait's value as JSON has it: bytes as base64; what is not finite as text, as jupyter_client sends it."""
    if isinstance(value, memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(float(value))
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else encodable(value)
