"""A saved picture beside what is on the screen: presenter size, larger text, figures, open panels."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.harness import states
from tests.browser.harness.mounting import mount
from tests.browser.test_modules_history import opened, visit
from tests.browser.test_saving import SVG, WIDGETS, pictures, save

EVERY = pytest.mark.parametrize("entry", WIDGETS)
ASKED = {"id": 1, "kind": "svg", "width": None, "scale": 2}

# For each text of the page, whether the picture has it there and as high.
TEXTS_IN_PLACE = """async (svg) => {
  const root = document.querySelector(".iw-root");
  const edge = root.getBoundingClientRect();
  const plain = (text) => text.replace(/\\s+/g, " ").trim();
  const holder = document.body.appendChild(document.createElement("div"));
  const [left, top] = [edge.left + scrollX, edge.top + scrollY];
  holder.style.cssText = `position: absolute; left: ${left}px; top: ${top}px; visibility: hidden`;
  holder.append(document.importNode(new DOMParser().parseFromString(svg, "image/svg+xml").documentElement, true));
  const drawn = [...holder.querySelectorAll("text")].map((e) => [plain(e.textContent), e.getBoundingClientRect()]);
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const unseen = ".iw-header__buttons, .iw-status, .iw-prompt__edit, .iw-hidden, select, svg";
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const text = plain(node.data);
    const range = new Range();
    range.selectNodeContents(node);
    if (!text || node.parentElement.closest(unseen) || !node.parentElement.checkVisibility()) continue;
    if (range.getClientRects().length > 1) continue;
    const box = range.getBoundingClientRect();
    found.push([text, drawn.some(([words, { left, top, height }]) => words === text && Math.abs(left - box.left) < 6 &&
      Math.abs(top + height / 2 - box.top - box.height / 2) < 3 && Math.abs(height / box.height - 1) < 0.06)]);
  }
  holder.remove();
  return found;
}"""

# The share of blocks of four by four pixels below the prompt whose mean red, green or blue is another in the picture.
OTHER_BLOCKS = """async ([svg, shot]) => {
  const root = document.querySelector(".iw-root");
  const [edge, body] = [root, root.querySelector(".iw-body")].map((each) => each.getBoundingClientRect());
  const address = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  const [across, down] = [Math.floor(edge.width / 4), Math.floor(body.height / 4)];
  const means = [];
  for (const url of [address, `data:image/png;base64,${shot}`]) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const context = new OffscreenCanvas(4 * across, 4 * down).getContext("2d");
    context.drawImage(image, 0, edge.top - body.top);
    const { data } = context.getImageData(0, 0, 4 * across, 4 * down);
    const mean = new Float32Array(3 * across * down);
    for (let at = 0; at < data.length / 4; at++) {
      const [x, y] = [at % (4 * across), Math.floor(at / (4 * across))];
      const block = Math.floor(y / 4) * across + Math.floor(x / 4);
      for (let part = 0; part < 3; part++) mean[3 * block + part] += data[4 * at + part] / 16;
    }
    means.push(mean);
  }
  const other = means[0].filter((value, at) => Math.abs(value - means[1][at]) > 48);
  return other.length / means[0].length;
}"""


@pytest.mark.parametrize(("size", "text"), [("normal", 16), ("presenter", 16), ("normal", 24)])
@EVERY
def test_a_picture_is_what_is_seen_at_every_size_of_text(
    page: Page, tmp_path: Path, entry: str, size: str, text: int
) -> None:
    page.set_viewport_size({"width": 1500, "height": 1000})
    mounted = mount(page, entry, WIDGETS[entry]() | {"size": size})
    page.evaluate("(pixels) => { document.documentElement.style.fontSize = `${pixels}px`; }", text)
    svg = save(mounted, "Picture (SVG)", tmp_path).read_text(encoding="utf-8")
    page.mouse.move(0, 0)
    mounted.settle()
    box = page.get_by_role("figure").bounding_box()
    assert box
    assert int(ET.fromstring(svg).get("width") or 0) == -(-box["width"] // 1)
    found = page.evaluate(TEXTS_IN_PLACE, svg)
    assert len(found) > 20
    assert [words for words, same in found if not same] == []
    shot = base64.b64encode(page.locator(".iw-root").screenshot()).decode()
    assert page.evaluate(OTHER_BLOCKS, [svg, shot]) < 0.01


@pytest.mark.parametrize("size", ["normal", "presenter"])
def test_keys_of_a_legend_have_their_outlines_in_a_picture(page: Page, tmp_path: Path, size: str) -> None:
    mounted = mount(page, "logit_lens.js", WIDGETS["logit_lens.js"]() | {"size": size})
    root = ET.parse(save(mounted, "Picture (SVG)", tmp_path)).getroot()
    assert len(root.findall(f"{SVG}rect[@fill='none']")) == 2


@pytest.mark.parametrize("mode", ["column", "page"])
@EVERY
def test_python_gets_the_whole_picture_of_a_figure(page: Page, entry: str, mode: str) -> None:
    mounted = mount(page, entry, WIDGETS[entry]() | {"figure_mode": mode})
    page.get_by_role("figure").hover(position={"x": 5, "y": 5})
    mounted.push(_to_save=[ASKED])
    (sent,) = pictures(mounted, 1)
    root = ET.fromstring(sent["data"])
    box = page.get_by_role("figure").bounding_box()
    assert box
    assert float(root.get("height") or 0) == -(-box["height"] // 1)
    assert "Leave figure mode" not in [element.text for element in root.iter(f"{SVG}text")]


def box_of(element: ET.Element) -> list[float]:
    return [float(element.get(name) or 0) for name in ("x", "y", "width", "height")]


@pytest.mark.parametrize("size", ["normal", "presenter"])
def test_the_minimap_is_in_a_picture(page: Page, size: str) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    state = states.attention(128, layers=4, heads=3, selected=(1, 1))
    mounted = mount(page, "attention_pattern.js", state | {"size": size})
    page.get_by_role("button", name="Values", exact=True).click()
    mounted.push(_to_save=[ASKED])
    (sent,) = pictures(mounted, 1)
    shown = page.evaluate(
        """(svg) => {
          const [root, seen] = [document.querySelector(".iw-root"), document.querySelector(".iw-minimap canvas")];
          const holder = document.body.appendChild(document.createElement("div"));
          const { left, top } = root.getBoundingClientRect();
          holder.style.cssText = `position: absolute; left: ${left + scrollX}px; top: ${top + scrollY}px`;
          const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
          holder.append(document.importNode(parsed.documentElement, true));
          const boxes = [seen, ...holder.querySelectorAll("image")].map((each) => {
            const { left, top, width, height } = each.getBoundingClientRect();
            return [left, top, width, height];
          });
          holder.remove();
          return boxes;
        }""",
        sent["data"],
    )
    minimap, *images = shown
    assert any(image == pytest.approx(minimap, abs=1) for image in images)


def test_thumbnails_of_the_history_are_in_a_picture(page: Page) -> None:
    mounted = opened(page, _past=[visit(1, current=True)])
    thumbnail = page.locator("img.iw-past__picture")
    box, edge = thumbnail.bounding_box(), page.get_by_role("figure").bounding_box()
    assert box
    assert edge
    mounted.push(_to_save=[ASKED])
    (sent,) = pictures(mounted, 1)
    root = ET.fromstring(sent["data"])
    (image,) = [e for e in root.iter(f"{SVG}image") if e.get("href") == thumbnail.get_attribute("src")]
    assert box_of(image) == pytest.approx([box["x"] - edge["x"], box["y"] - edge["y"], 96, 64], abs=0.02)


@EVERY
def test_pictures_of_one_document_share_no_names(page: Page, tmp_path: Path, entry: str) -> None:
    mounted = mount(page, entry, WIDGETS[entry]())
    names = []
    for dark in (False, True, True):
        mounted.theme(dark)
        svg = save(mounted, "Picture (SVG)", tmp_path).read_text(encoding="utf-8")
        own = [element.get("id") for element in ET.fromstring(svg).iter() if element.get("id")]
        assert own
        assert len(set(own)) == len(own)
        assert set(re.findall(r"url\((?:&quot;|\")?#([^)\"&]+)", svg)) <= set(own)
        names.append(own)
    assert not set(names[0]) & set(names[1])
    assert names[1] == names[2], "drawn alike each time"
