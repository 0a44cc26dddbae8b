"""The pictures that Python draws have the colours that the page gives the same numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, Route

import interpwidgets as iw
import interpwidgets.widgets
from interpwidgets.methods.lens import UNITS
from interpwidgets.widgets.bands import band_edges, drawn_edges
from tests.browser.harness.live import Live
from tests.models import random_ids, tiny

STATIC = Path(interpwidgets.widgets.__file__).parent / "static"
SITE = "http://static.test/"
SVG = "{http://www.w3.org/2000/svg}"
PROMPT = random_ids(12)
OTHER = [*PROMPT[:5], (PROMPT[5] + 1) % 90, *PROMPT[6:]]

_COLOURS = """async ([metric, values, most]) => {
  const { colourAt, readPalette } = await import("/color.js");
  const { metricSays, metricScale } = await import("/lens_metrics.js");
  const { share, ticks } = metricScale(metric, most);
  const { sequential } = readPalette(document.querySelector("main"));
  const hex = (colour) => "#" + colour.map((part) => part.toString(16).padStart(2, "0")).join("");
  return { colours: values.map((value) => hex(colourAt(sequential, share(value)))), ticks, says: metricSays(metric) };
}"""

_PIXELS = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const counts = {};
  for (let at = 0; at < data.length; at += 4) {
    const colour = "#" + [0, 1, 2].map((part) => data[at + part].toString(16).padStart(2, "0")).join("");
    counts[colour] = (counts[colour] ?? 0) + 1;
  }
  return counts;
}"""


@pytest.fixture
def session() -> Iterator[iw.Session]:
    with iw.Session(tiny("llama")) as session:
        yield session


@pytest.fixture
def modules(page: Page) -> Page:
    """A page that can import the widgets' own modules, in the light theme."""

    def answer(route: Route) -> None:
        name = route.request.url.removeprefix(SITE)
        if name:
            return route.fulfill(path=STATIC / name, content_type="text/javascript")
        style = (STATIC / "theme.css").read_text(encoding="utf-8")
        body = f"<!doctype html><style>{style}</style><main class='iw-root'></main><link rel='icon' href='data:,'>"
        return route.fulfill(body=body, content_type="text/html")

    page.route(f"{SITE}**", answer)
    page.goto(SITE)
    return page


def cells(svg: str) -> list[tuple[float, float, str]]:
    """Top, left and colour of every cell, as they are read: row by row from the top."""
    found = []
    for path in ET.fromstring(svg).iterfind(f".//{SVG}path[@fill]"):
        for left, top in re.findall(r"M([\d.]+) ([\d.]+)h", path.get("d") or ""):
            found.append((float(top), float(left), path.get("fill") or ""))
    return sorted(found)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("metric", UNITS)
def test_a_lens_has_the_scale_and_the_legend_of_the_page(modules: Page, session: iw.Session, metric: str) -> None:
    lens = iw.LogitLens(session, PROMPT, metric=metric)
    lens.wait(60)
    values = iw.logit_lens(session, PROMPT, metric=metric)[metric].values.astype(np.float64)
    known = np.isfinite(values[::-1])  # nothing comes after the last token, to be surprised by
    upward = values[::-1][known].tolist()
    page: dict[str, Any] = modules.evaluate(_COLOURS, [metric, upward, float(np.nanmax(np.abs(values)))])
    svg = lens.to_svg()
    assert [colour for _, _, colour in cells(svg)] == page["colours"]
    assert len(set(page["colours"])) > 5
    assert {tick["text"] for tick in page["ticks"]} <= set(texts(svg))
    assert any(text.startswith(page["says"]) for text in texts(svg))
    figure = lens.figure()
    bar = figure.data[1].marker.colorbar
    assert list(bar.ticktext) == [tick["text"] for tick in page["ticks"]]
    assert list(bar.tickvals) == pytest.approx([tick["at"] for tick in page["ticks"]])
    assert drawn_by_plotly(figure.data[0])[known.ravel()] == pytest.approx(rgb(page["colours"]), abs=3)


def rgb(colours: list[str]) -> np.ndarray:
    return np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours])


def drawn_by_plotly(trace: Any) -> np.ndarray:
    """The colours of a heatmap's cells, the topmost row first: straight lines between those that plotly is given."""
    share = (np.array(trace.z, float)[::-1].ravel() - trace.zmin) / (trace.zmax - trace.zmin)
    places = [place for place, _ in trace.colorscale]
    given = np.array([[int(part) for part in re.findall(r"\d+", colour)] for _, colour in trace.colorscale])
    return np.stack([np.interp(share, places, given[:, channel]) for channel in range(3)], 1)


def painted(page: Page, grid: str) -> set[str]:
    """The colours that a grid is painted with, of at least a cell's inside."""
    canvas = page.get_by_role("grid", name=grid).locator("canvas").first
    found: dict[str, int] = canvas.evaluate(_PIXELS)
    return {colour for colour, count in found.items() if count >= 16}


def transplanted(session: iw.Session, **looks: Any) -> iw.LogitLens:
    lens = iw.LogitLens(session, PROMPT, metric="kl", **looks)
    lens.wait(60)
    lens.transplant((0, 2), (1, 5))
    lens.wait(60)
    return lens


def test_a_lens_with_experiments_shares_its_scale_with_the_baseline(page: Page, session: iw.Session) -> None:
    lens = transplanted(session)
    live = Live(page, "logit_lens.js", lens)
    page.get_by_role("button", name="Value").click()
    live.mounted.settle()
    assert {colour for _, _, colour in cells(lens.to_svg())} <= painted(page, "with experiments")


@pytest.mark.parametrize("palette", ["blue", "cividis"])
@pytest.mark.parametrize("length", [12, 33])
@pytest.mark.parametrize("view", ["now", "difference", "baseline"])
def test_a_head_has_the_colours_of_the_page(
    page: Page, session: iw.Session, view: str, length: int, palette: str
) -> None:
    widget = iw.AttentionPattern(session, random_ids(length), layer=1, head=2, palette=palette)
    widget.wait(60)
    widget.ablate(0, 1)
    widget.wait(60)
    widget.view = view
    Live(page, "attention_pattern.js", widget).mounted.settle()
    assert {colour for _, _, colour in cells(widget.to_svg())} <= painted(page, "L1H2 attention pattern")


@pytest.mark.parametrize("settings", [{}, {"normalize": False}, {"view": "difference"}, {"site": "z"}], ids=str)
def test_a_map_has_the_colours_of_the_page(page: Page, session: iw.Session, settings: dict[str, Any]) -> None:
    widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=OTHER, **settings)
    widget.wait(60)
    session.interventions.append(iw.Ablate("z", layer=1, head=2))
    widget.wait(60)
    Live(page, "patching_heatmap.js", widget).mounted.settle()
    assert {colour for _, _, colour in cells(widget.to_svg())} <= painted(page, "patching effect")


_COLUMNS = """async ([edges, length, alone, opened]) => {
  const { createFold } = await import("/bands.js");
  const fold = createFold();
  fold.update(edges, length, alone);
  if (opened !== null) fold.reveal(opened);
  return [0, ...fold.spans().map(([, end]) => end)];
}"""


@pytest.mark.parametrize(("length", "same"), [(65, 0), (1024, 0), (1024, 1), (1500, 17), (4096, 0), (4096, 1000)])
def test_bands_are_drawn_together_as_on_the_page(modules: Page, length: int, same: int) -> None:
    edges = band_edges(length, same)
    for alone, opened in ((int(same > 0), None), (0, length - 1), (0, 0), (0, length // 2)):
        expected = modules.evaluate(_COLUMNS, [edges, length, alone, opened])
        assert drawn_edges(edges, alone=alone, opened=opened) == expected


_SIGNS = """async ([size, written]) => {
  const { createMatrix } = await import("/matrix.js");
  const { readPalette } = await import("/color.js");
  const main = document.querySelector("main");
  const { signal } = new AbortController();
  const palette = () => ({ ...readPalette(main), written });
  const matrix = createMatrix({ signal, palette, cellWidth: () => [size, size] });
  main.append(matrix.el);
  const labels = ["", "", ""].map((text) => ({ text }));
  matrix.update("signs", {
    rows: 1, cols: 3, rowLabels: labels.slice(0, 1), colLabels: labels, rowTitle: "", colTitle: "", describe: () => "",
    colour: () => [0, 0, 120], text: (row, col) => (col === 1 ? "−1" : ""), below: (row, col) => col > 0,
  });
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  const canvas = matrix.canvas;
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const cells = [];
  for (let at = 0; at < data.length; at += 4)
    if (`${data.slice(at, at + 4)}` === "0,0,120,255") cells.push([(at / 4) % width, Math.floor(at / 4 / width)]);
  const [left, right] = [Math.min, Math.max].map((end) => end(...cells.map(([x]) => x)));
  const [top, bottom] = [Math.min, Math.max].map((end) => end(...cells.map(([, y]) => y)));
  const middle = Math.round((top + bottom) / 2);
  // Light pixels of a cell's middle row, as a share of its width: a dash is one piece.
  return [0, 1, 2].map((col) => {
    const wide = (right + 1 - left) / 3;
    let light = 0;
    for (let x = Math.round(left + col * wide) + 2; x < Math.round(left + (col + 1) * wide) - 2; x++)
      for (const y of [middle - 1, middle, middle + 1]) if (data[4 * (y * width + x)] > 100) { light++; break; }
    return light / wide;
  });
}"""


@pytest.mark.parametrize(("size", "written", "dashed"), [(30, False, [1, 2]), (12, True, [1, 2]), (5, True, [])])
def test_a_dash_says_that_a_cell_without_a_number_is_below_zero(
    modules: Page, size: int, written: bool, dashed: list[int]
) -> None:
    light = modules.evaluate(_SIGNS, [size, written])
    assert [col for col in range(3) if light[col] > 0.2] == dashed, light


def test_where_a_number_is_there_is_no_dash(modules: Page) -> None:
    plain, numbered, dashed = modules.evaluate(_SIGNS, [30, True])
    assert plain == 0 < dashed
    assert numbered != dashed
