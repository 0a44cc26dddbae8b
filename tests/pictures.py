"""Makes the pictures of README, on the demo model: `python -m tests.pictures`."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

import interpwidgets as iw
from interpwidgets.presets import preset_named
from interpwidgets.widgets.base import LiveWidget
from tests.browser.harness.chromium import chromium
from tests.browser.harness.live import Live
from tests.browser.harness.scenes import SCENES

PICTURES = Path(__file__).parent / "browser" / "pictures"
WIDTH = 860
_COLOURS, _EXACT = 256, 128

_PIXELS = """async (png) => {
  const image = await createImageBitmap(await (await fetch("data:image/png;base64," + png)).blob());
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  let text = "";
  for (const byte of context.getImageData(0, 0, image.width, image.height).data) text += String.fromCharCode(byte);
  return [image.width, image.height, btoa(text)];
}"""


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


def taken(page: Page, entry: str, widget: LiveWidget) -> bytes:
    """A widget as PNG, in few colours."""
    widget.wait(300)
    Live(page, entry, widget).mounted.settle()
    page.mouse.move(0, 0)
    return in_few_colours(page, page.locator("[data-iw-theme]").screenshot())


def in_few_colours(page: Page, png: bytes) -> bytes:
    """The picture with the colours that it has most, others as the nearest of these: half as many bytes, or less."""
    width, height, encoded = page.evaluate(_PIXELS, base64.b64encode(png).decode())
    pixels = np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(-1, 4)[:, :3].astype(np.int32)
    found, which, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-counts)
    # Frequent ones exactly; of the rest, such as a legend's, one for each neighbourhood.
    coarse, often = np.unique(found[order[_EXACT:]] // 16 * 16 + 8, axis=0, return_counts=True)
    kept = np.concatenate([found[order[:_EXACT]], coarse[np.argsort(-often)[: _COLOURS - _EXACT]]])
    nearest = ((found[:, None] - kept) ** 2).sum(-1).argmin(1).astype(np.uint8)
    rows = nearest[which.reshape(-1)].reshape(height, width)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows], 1)  # each begins with its filter: none
    header = struct.pack(">2I5B", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", kept.astype(np.uint8).tobytes())]
    chunks += [(b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    with chromium() as browser, iw.load() as demo:
        for title, module, shown in scenes(demo):
            tab = browser.new_page(viewport={"width": WIDTH, "height": 1000}, reduced_motion="reduce")
            made = taken(tab, module, shown)
            (PICTURES / f"{title}.png").write_bytes(made)
            print(title, f"{len(made) / 1000:.0f} kB")
            tab.close()
