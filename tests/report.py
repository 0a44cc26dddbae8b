"""What is measured of the widgets, in one go: `python -m tests.report [--quick]`.

Violations that axe finds, distances of the palettes, frame times, what widgets add to a notebook, bytes of each click.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import palettes
from tests.benchmarks import machine, wire
from tests.benchmarks import report as benchmarks
from tests.browser import test_accessibility as accessibility
from tests.browser import test_frames as frames
from tests.browser.harness.chromium import chromium
from tests.unit.test_notebook_growth import growth


def report(*, quick: bool) -> Iterator[tuple[str, str]]:
    """Title and Markdown of each part, as soon as it is known. `quick` tries fewer cases, and a tiny model."""
    yield "axe", axe(quick=quick)
    yield "Palettes", palettes.report()
    yield "Frames at long prompts", frame_times(quick=quick)
    with TemporaryDirectory() as folder:
        yield "Notebook", str(growth(Path(folder), 3 if quick else 20))
    yield "Bytes of each click", clicks(quick=quick)


def axe(*, quick: bool) -> str:
    """Violations in each widget, theme and width: as it opens, and with its panels open and an error."""
    lines = ["| widget | theme | width | violations |", "|---|---|---:|---:|"]
    said = []
    cases = product(accessibility.STATES, (False, True), accessibility.WIDTHS)
    with chromium() as browser:
        for entry, dark, width in list(cases)[: 1 if quick else None]:
            page = browser.new_page(reduced_motion="reduce")
            found = accessibility.examined(page, entry, dark=dark, width=width)
            page.close()
            lines.append(f"| {entry.removesuffix('.js')} | {'dark' if dark else 'light'} | {width} | {len(found)} |")
            said += [f"- {each}" for each in found]
    return "\n".join([*lines, *([""] if said else []), *said])


def frame_times(*, quick: bool) -> str:
    """Frame times of each widget at long prompts."""
    cases = ((frames.TINY, 512),) if quick else sorted(frames.CASES)
    rows = []
    with chromium() as browser, frames.opened() as session_of:
        for name, (model, length) in product(frames.WIDGETS, cases):
            page = browser.new_page(reduced_motion="reduce")
            rows.append(frames.measured(page, session_of(model), name, model, length))
            page.close()
    return frames.table(rows)


def clicks(*, quick: bool) -> str:
    """Bytes of modules and clicks, at short prompts."""
    results = benchmarks.Results(machine.described(), modules=wire.modules())
    with wire.opened(quick) as (session, pair_of):
        results.sent = wire.clicks(session, pair_of, wire.QUICK if quick else wire.LENGTHS[:2])
    return "\n".join(benchmarks.wire_tables(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases, and clicks on a tiny model")
    for title, text in report(quick=parser.parse_args().quick):
        print(f"## {title}\n\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
