"""Makes the pictures of README, on the demo model: `python -m tests.pictures`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

import interpwidgets as iw
from interpwidgets.presets import preset_named
from interpwidgets.widgets.base import LiveWidget
from tests.browser.harness.chromium import chromium
from tests.browser.harness.live import Live
from tests.browser.harness.scenes import SCENES

PICTURES = Path(__file__).parent / "browser" / "pictures"
WIDTH = 860


def scenes(session: iw.Session) -> Iterator[tuple[str, str, LiveWidget]]:
    """Name of each picture, module and widget."""
    for name, make in SCENES.items():
        widget = make(session)
        if name == "logit_lens":
            widget.clear()  # the transplant: one grid is enough for a first look
        yield name, f"{name}.js", widget
    fact = preset_named("Fact recall")
    path = iw.PatchingHeatmap(
        session, clean=fact.clean, corrupted=fact.corrupted, answer=fact.answer, foil=fact.foil, site="attn_out"
    )
    path.drill(23)
    yield "gallery", "patching_heatmap.js", path


def taken(page: Page, entry: str, widget: LiveWidget) -> Image.Image:
    """A widget as it is seen."""
    widget.wait(300)
    Live(page, entry, widget).mounted.settle()
    page.mouse.move(0, 0)
    return Image.open(io.BytesIO(page.locator("[data-iw-theme]").screenshot())).convert("RGB")


if __name__ == "__main__":
    with chromium() as browser, iw.load() as demo:
        for title, module, shown in scenes(demo):
            tab = browser.new_page(viewport={"width": WIDTH, "height": 1000}, reduced_motion="reduce")
            path = PICTURES / f"{title}.webp"
            taken(tab, module, shown).save(path, lossless=True, quality=100, method=6)
            print(path.name, f"{path.stat().st_size / 1000:.0f} kB")
            tab.close()
