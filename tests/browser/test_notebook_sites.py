"""A saved notebook where no kernel runs: after GitHub's sanitiser, in nbconvert and nbviewer, and printed to PDF."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import bleach
import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Page, expect

import interpwidgets as iw
from tests.browser.harness.mounting import SCREENSHOTS
from tests.embedded import opened
from tests.models import tiny

IDS = [5, 17, 3, 44, 17, 60, 8, 91]
OTHER = [5, 17, 3, 21, 17, 60, 9, 91]
WIDGETS: dict[str, Any] = {
    "attention": lambda s: iw.AttentionPattern(s, IDS, layer=1, head=2),
    "lens": lambda s: iw.LogitLens(s, IDS),
    "heatmap": lambda s: iw.PatchingHeatmap(s, clean=IDS, corrupted=OTHER),
}
SAYS = {
    "attention": "attention of L1H2",
    "lens": "top token after each layer",
    "heatmap": "patching resid_pre, denoise",
}

# What GitHub's HTML pipeline lets through; no class, no style, no SVG.
TAGS = set(
    re.findall(
        r"\w+",
        """h1 h2 h3 h4 h5 h6 br b i strong em a pre code img tt div ins del sup sub p ol ul table thead tbody tfoot
        blockquote dl dt dd kbd q samp var hr li tr td th s strike summary details caption figure figcaption small
        span""",
    )
)
ATTRIBUTES = {"*": ["abbr", "align", "alt", "colspan", "height", "hidden", "rowspan", "scope", "title", "width"],
              "a": ["href"], "img": ["src"]}  # fmt: skip


class Said(HTMLParser):
    """The texts of a page, an image saying its alternative."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.texts.append(dict(attrs).get("alt") or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def frames() -> Iterator[dict[str, str]]:
    with iw.Session(tiny("llama")) as session:
        widgets = {name: make(session) for name, make in WIDGETS.items()}
        for widget in widgets.values():
            widget.wait(30)
        yield {name: widget._repr_mimebundle_()[0]["text/html"] for name, widget in widgets.items()}


@pytest.mark.parametrize("name", WIDGETS)
def test_the_picture_stays_where_inline_svg_and_styles_are_taken_out(
    page: Page, frames: dict[str, str], name: str
) -> None:
    left = bleach.clean(frames[name], tags=TAGS, attributes=ATTRIBUTES, protocols={"http", "https", "data"}, strip=True)
    assert "style=" not in left
    assert "<svg" not in left
    page.set_content(f"<!doctype html><body>{left}</body>")
    picture = page.get_by_role("img", name=SAYS[name])
    assert picture.evaluate("(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") > [
        200,
        100,
    ]
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"github-{name}.png")


@pytest.mark.parametrize("name", WIDGETS)
def test_nothing_is_cut_off_at_the_edge_of_a_picture(page: Page, frames: dict[str, str], name: str) -> None:
    page.set_content(f"<!doctype html><body>{opened(frames[name])}</body>")
    assert (
        page.locator("svg").evaluate(
            """(svg) => {
          const edge = svg.getBoundingClientRect();
          const inside = ({ left, right, top, bottom }) =>
            left >= edge.left && right <= edge.right && top >= edge.top && bottom <= edge.bottom;
          const cut = [...svg.querySelectorAll("text")].filter((text) => !inside(text.getBoundingClientRect()));
          return cut.map((text) => text.textContent);
        }"""
        )
        == []
    )


@pytest.mark.parametrize("name", WIDGETS)
def test_words_and_numbers_stay_where_the_picture_is_taken_out_too(frames: dict[str, str], name: str) -> None:
    left = bleach.clean(frames[name], tags=TAGS, attributes=ATTRIBUTES, protocols={"http", "https"}, strip=True)
    assert "data:" not in left
    said = Said(left).texts
    assert any(SAYS[name] in text for text in said)
    assert any(re.fullmatch(r"[\d.]+%|[+-]\d\.\d{3}", text) for text in said), said


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    """A notebook with all three widgets, as Jupyter has run and saved it, without the widgets' state."""
    sources = [
        "import interpwidgets as iw\nfrom tests.models import tiny\nsession = iw.Session(tiny('llama'))",
        f"widget = iw.AttentionPattern(session, {IDS}, layer=1, head=2)\nwidget.wait(60)\nwidget",
        f"widget = iw.LogitLens(session, {IDS})\nwidget.wait(60)\nwidget",
        f"widget = iw.PatchingHeatmap(session, clean={IDS}, corrupted={OTHER})\nwidget.wait(60)\nwidget",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    notebook.metadata.pop("widgets")
    return notebook


# nbconvert's own page, and the older one that nbviewer's extends.
TEMPLATES = pytest.mark.parametrize("template", ["lab", "classic"], ids=["nbconvert", "nbviewer"])


def exported(notebook: nbformat.NotebookNode, folder: Path, template: str) -> Path:
    """The page that nbconvert makes of a notebook."""
    file = folder / "notebook.html"
    page, _ = HTMLExporter(template_name=template).from_notebook_node(notebook)
    file.write_text(page, encoding="utf-8")
    return file


def fills(pdf: bytes) -> int:
    """How many times a PDF chooses a colour to fill with."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
    count = 0
    for stream in streams:
        try:
            count += len(re.findall(rb"\brg\b", zlib.decompress(stream)))
        except zlib.error:  # a font, or an image of another kind
            continue
    return count


@TEMPLATES
def test_each_widgets_picture_is_shown_once_and_chromium_prints_it_to_pdf(
    browser: Browser, notebook: nbformat.NotebookNode, tmp_path: Path, template: str
) -> None:
    page = browser.new_page()
    # The page asks a CDN for its scripts.
    page.route(re.compile("^https?://"), lambda route: route.fulfill(body=""))
    page.goto(exported(notebook, tmp_path, template).as_uri())
    for said in SAYS.values():
        picture = page.get_by_role("img", name=said)
        expect(picture).to_have_count(1)
        expect(picture).to_be_visible()
        assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 200
    shown = page.inner_text("body")
    assert not re.search(r"(AttentionPattern|LogitLens|PatchingHeatmap)\(\w+ForCausalLM\)|model_id", shown)
    page.screenshot(path=SCREENSHOTS / f"exported-{template}.png", full_page=True)
    with_pictures = fills(page.pdf())
    page.get_by_role("img").evaluate_all("(images) => images.forEach((image) => image.remove())")
    without = fills(page.pdf())
    page.close()
    assert with_pictures > without + 30
