"""What is sent to the browser for each widget: whole, small, and nothing but its own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Page

import interpwidgets.widgets
from interpwidgets.widgets.esm import bundle, joined, minified, stylesheet

STATIC = Path(interpwidgets.widgets.__file__).parent / "static"
ENTRIES = sorted(p.name for p in STATIC.glob("*.js") if "export default" in p.read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", ENTRIES)
def test_bundle_stays_within_sixty_kilobytes(entry: str) -> None:
    assert len(bundle(entry).encode()) < 60_000


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_sent_is_one_valid_module(entry: str, tmp_path: Path) -> None:
    text = joined(entry)
    assert not re.search(r"^import\b", text, re.M)
    assert re.findall(r"^export .*", text, re.M) == ["export default { render };"]
    file = tmp_path / "sent.mjs"
    file.write_text(minified(entry), encoding="utf-8")
    node = shutil.which("node")
    assert node, "Node is needed to check the modules; `make test` provides it"
    subprocess.run([node, "--check", file], check=True, capture_output=True)


@pytest.mark.parametrize("file", sorted(STATIC.glob("*")), ids=lambda file: file.name)
def test_no_source_reaches_for_the_network_or_writes_markup(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/)|innerHTML|outerHTML|insertAdjacentHTML|document\.write", text)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_style_rule_is_ours_and_colours_are_named_once(entry: str) -> None:
    text = re.sub(r"/\*.*?\*/", "", stylesheet(entry.replace(".js", ".css")), flags=re.S)
    for selectors in re.findall(r"(?:^|[{}])\s*([^{}@;]+)\{", text):
        if not re.fullmatch(r"from|to|[\d.%, ]+", selectors.strip()):
            assert all(".iw-" in one for one in re.split(r",(?![^(]*\))", selectors)), selectors
    others = "".join(file.read_text(encoding="utf-8") for file in STATIC.glob("*.css") if file.name != "theme.css")
    assert not re.search(r"#[0-9a-f]{3,8}\b|\brgba?\(|\bhsla?\(", re.sub(r"/\*.*?\*/", "", others, flags=re.S))


@pytest.mark.parametrize("entry", ENTRIES)
def test_style_sheets_that_are_sent_say_what_the_files_say(page: Page, entry: str) -> None:
    own = entry.replace(".js", ".css")
    names = ("theme.css", "frame.css", "looks.css", own)
    files = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)
    read = """(texts) => texts.map((text) => {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(text);
      // What a variable holds is kept as it was written.
      return [...sheet.cssRules].map((rule) => rule.cssText.replace(/, +/g, ","));
    })"""
    sent, written = page.evaluate(read, [stylesheet(own), files])
    assert len(sent) > 100
    assert sent == written
    assert len(stylesheet(own)) < 0.95 * len(files)
