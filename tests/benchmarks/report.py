"""RESULTS.md, from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from . import memory, preview
from .compare import PEERS
from .drawing import Drawn
from .memory import Peak
from .outcome import OURS, Outcome
from .preview import Preview
from .scaling import Curve
from .targets import targets
from .wire import Sent


@dataclass
class Results:
    """All figures of a run; what was not measured is empty."""

    facts: list[str]
    outcomes: list[Outcome] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    threads: dict[int, float] = field(default_factory=dict)
    peaks: list[Peak] = field(default_factory=list)
    startup: dict[str, float] = field(default_factory=dict)
    modules: dict[str, tuple[int, int]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    frames: dict[str, float] = field(default_factory=dict)
    previews: list[Preview] = field(default_factory=list)


def page(results: Results, plot: str = "") -> str:
    """The whole report in Markdown; `plot` is the address of the picture."""
    parts = [
        ("", [*(f"- {fact}" for fact in results.facts)]),
        ("Targets", _targets(results)),
        ("Sweeps", [*_sweeps(results.outcomes), *([f"\n![Seconds by tool]({plot})"] if plot else [])]),
        ("The floor", _floors(results.outcomes)),
        ("Growth", _growth(results)),
        ("Memory", [memory.HEADER, *map(memory.line, results.peaks)] if results.peaks else []),
        ("From a fresh process", _table(("step", "seconds"), [(k, f"{v:.2f}") for k, v in results.startup.items()])),
        ("On the wire", wire_tables(results)),
        ("Drawing one layer's patterns", _drawing(results.drawn)),
        (
            "Drawing 30 x 9 thumbnails of 128 x 128",
            _table(("frame", "milliseconds"), [(what, f"{t:.1f}") for what, t in results.frames.items()]),
        ),
        ("Estimates beside exact maps", _table(*preview.table(results.previews))),
    ]
    text = "# Benchmarks\n\nWritten by `make bench`; what each figure means is said in the modules of this folder.\n"
    for title, lines in parts:
        if lines:
            text += "\n" + (f"## {title}\n\n" if title else "") + "\n".join(lines) + "\n"
    return text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}", *body] if body else []


def _targets(results: Results) -> list[str]:
    rows = [(t.what, t.wanted, t.measured, "yes" if t.met else "no") for t in targets(results)]
    return _table(("target", "wanted", "measured", "met"), rows)


def _sweeps(outcomes: list[Outcome]) -> list[str]:
    head = ["workload", "cells", OURS]
    for tool in PEERS:
        head += [tool, "ratio", "largest difference"]
    rows = []
    for o in outcomes:
        row = [_name(o), f"{o.n_cells * len(o.workload.pairs):,}", _seconds(o, OURS)]
        for tool in PEERS:
            row += [_seconds(o, tool), f"{o.ratio(tool):.0f}x", _difference(o, tool)]
        rows.append(row)
    timed = "; ".join(
        f"{o.workload.name}, {len(o.seconds[OURS])} runs, {o.n_timed} of {o.n_cells} cells" for o in outcomes
    )
    notes = [
        "Seconds: medians of runs in alternating order (least to most); ratios: medians of the rounds' own. Ours are "
        "cold and whole, plain runs of both prompts included; the peers' clean runs are not counted.",
        "A peer's time is that of cells drawn at random from those after the first difference, scaled to all; several "
        f"pairs are one batch. Timed, in the table's order: {timed}.",
        "Differences are in logits, on the cells that the peers ran. In bfloat16, they are errors against the same "
        "weights in float32.",
    ]
    return [*_table(head, rows), "", *(f"- {note}" for note in notes)] if outcomes else []


def _name(o: Outcome) -> str:
    length = len(o.workload.pairs[0].clean)
    return f"{o.workload.name} ({length} tokens), {o.workload.model}, {o.workload.dtype}, {o.workload.device}"


def _seconds(o: Outcome, tool: str) -> str:
    times = o.seconds[tool]
    return f"{o.median(tool):.3g} ({min(times):.3g}–{max(times):.3g})"


def _difference(o: Outcome, tool: str) -> str:
    if tool in o.difference:
        return f"{o.difference[tool]:.1e}"
    return f"{o.difference[OURS]:.1e} ours, {o.errors[tool]:.1e} theirs"


def _floors(outcomes: list[Outcome]) -> list[str]:
    head = ("workload", "GFLOP needed", "GFLOP/s of a matrix product", "floor, seconds", "ours / floor")
    figures = [(o.operations / 1e9, o.operations / o.floor / 1e9, o.floor, o.times_the_floor) for o in outcomes]
    rows = [(_name(o), *(f"{figure:.3g}" for figure in row)) for o, row in zip(outcomes, figures, strict=True)]
    return _table(head, rows)


def _growth(results: Results) -> list[str]:
    head = ("over", "sizes", "seconds", "exponent", "expected, from the operations")
    rows = []
    for c in results.curves:
        listed = [", ".join(f"{value:.3g}" for value in values) for values in (c.sizes, c.seconds)]
        rows.append((c.what, *listed, f"{c.exponent:.2f}", f"{c.expected:.2f}"))
    threads = ", ".join(f"{seconds:.2f} s with {n}" for n, seconds in results.threads.items())
    return [*_table(head, rows), *(["", f"Threads of torch, IOI sweep: {threads}."] if threads else [])]


def wire_tables(results: Results) -> list[str]:
    """Bytes of modules and of clicks."""
    modules = [(w, f"{js:,}", f"{css:,}") for w, (js, css) in results.modules.items()]
    lengths = sorted({s.length for s in results.sent})
    found = {(s.widget, s.what, s.length): s for s in results.sent}
    clicks = list(dict.fromkeys((s.widget, s.what) for s in results.sent))
    head = ("bytes (seconds)", *(f"{n} tokens" for n in lengths))
    rows = [(f"{w}: {what}", *(_message(found.get((w, what, n))) for n in lengths)) for w, what in clicks]
    return [*_table(("widget", "bytes of JavaScript", "of CSS"), modules), "", *_table(head, rows)] if modules else []


def _message(sent: Sent | None) -> str:
    if sent is None:
        return ""
    return f"{sent.size:,}" + (f" ({sent.seconds:.2g})" if sent.seconds else "")


def _drawing(drawn: list[Drawn]) -> list[str]:
    lengths = sorted({d.length for d in drawn})
    tools = list(dict.fromkeys(d.tool for d in drawn))
    found = {(d.tool, d.length): d for d in drawn}
    rows = [(tool, *(_drawn(found[tool, n]) for n in lengths)) for tool in tools]
    return _table(("bytes of the page (milliseconds)", *(f"{n} tokens" for n in lengths)), rows)


def _drawn(d: Drawn) -> str:
    if d.size is None:
        return "not installed"
    return f"{d.size:,} ({'not drawn' if d.milliseconds is None else f'{d.milliseconds:.0f}'})"
