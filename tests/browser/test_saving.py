"""The Save menu: pictures of what is seen, at a width and scale, numbers and pages from Python."""

from __future__ import annotations

import base64
import re
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.harness import lens, patching, states
from tests.browser.harness.mounting import SCREENSHOTS, Mounted, mount
from tests.browser.test_accessibility import violations

SVG = "{http://www.w3.org/2000/svg}"
WIDGETS: dict[str, Any] = {
    "attention_pattern.js": lambda: states.attention(changed=True),
    "logit_lens.js": lambda: lens.lens(12, 8, **lens.experiment(12, 8, row=3, position=4), **lens.tracks(12, 8)),
    "patching_heatmap.js": lambda: patching.patching(12, 8, site="z"),
}


def menu(page: Page) -> Locator:
    """The Save menu, opened."""
    page.get_by_role("button", name="Save", exact=True).click()
    return page.get_by_role("dialog", name="Save as")


def save(mounted: Mounted, item: str, folder: Path, *, width: str = "", scale: str = "") -> Path:
    """What the browser downloads."""
    mounted.settle()
    opened = menu(mounted.page)
    if width:
        opened.get_by_label("Width", exact=True).select_option(width)
    if scale:
        opened.get_by_role("button", name=scale, exact=True).click()
    with mounted.page.expect_download() as download:
        opened.get_by_role("button", name=item, exact=True).click()
    expect(opened).to_be_hidden()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def texts(file: Path) -> list[str]:
    return [(element.text or "").strip() for element in ET.parse(file).iter(f"{SVG}text")]


def test_svg_has_vector_cells_and_real_text(page: Page, tmp_path: Path) -> None:
    mounted = mount(page, "patching_heatmap.js", patching.patching(12, 8))
    file = save(mounted, "Picture (SVG)", tmp_path)
    root = ET.parse(file).getroot()
    assert root.find(f".//{SVG}image") is None
    cells = [e for e in root.iter(f"{SVG}rect") if (e.get("fill") or "").startswith("rgb(")]
    assert len(cells) >= 8 * 12
    assert {"L0", "L7", "layer ↑   position →", "Patching heatmap"} <= set(texts(file))
    assert file.name == "patching-heatmap.svg"


@pytest.mark.parametrize("entry", WIDGETS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_picture_looks_like_the_widget(page: Page, tmp_path: Path, entry: str, dark: bool) -> None:
    mounted = mount(page, entry, WIDGETS[entry]())
    mounted.theme(dark)
    file = save(mounted, "Picture (SVG)", tmp_path)
    name = f"{entry.removesuffix('.js')}-{'dark' if dark else 'light'}"
    root = ET.parse(file).getroot()
    width, height = int(root.get("width") or 0), int(root.get("height") or 0)
    page.mouse.move(0, 0)
    seen = page.evaluate(
        """async ([svg, width, height]) => {
          const root = document.querySelector(".iw-root");
          const shot = new Image();
          shot.src = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
          await shot.decode();
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [width, height];
          const context = canvas.getContext("2d");
          context.drawImage(shot, 0, 0);
          const [edge, found] = [root.getBoundingClientRect(), []];
          for (const grid of root.querySelectorAll(".iw-surface__canvas")) {
            const box = grid.getBoundingClientRect();
            if (!box.width || !box.height) continue;
            const mine = grid.getContext("2d");
            for (let step = 1; step < 1200; step++) {
              const [x, y] = [(step * 7919) % Math.floor(box.width), (step * 104729) % Math.floor(box.height)];
              const around = mine.getImageData(x * devicePixelRatio - 1, y * devicePixelRatio - 1, 3, 3).data;
              const was = around.slice(16, 20);
              // Of letters and lines, a picture has other halves of pixels.
              if (was[3] < 255 || around.some((part, at) => Math.abs(part - was[at % 4]) > 8)) continue;
              const there = context.getImageData(x + box.left - edge.left, y + box.top - edge.top, 1, 1).data;
              found.push([0, 1, 2].every((part) => Math.abs(was[part] - there[part]) < 12));
            }
          }
          return found;
        }""",
        [file.read_text(encoding="utf-8"), width, height],
    )
    assert len(seen) > 200
    assert sum(seen) / len(seen) > 0.97
    SCREENSHOTS.mkdir(exist_ok=True)
    (SCREENSHOTS / f"picture-{name}.svg").write_bytes(file.read_bytes())


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_png_is_as_wide_as_the_widget_times_its_scale(page: Page, tmp_path: Path, scale: int) -> None:
    mounted = mount(page, "attention_pattern.js", states.attention(layers=6))
    box = page.get_by_role("figure").bounding_box()
    file = save(mounted, "Picture (PNG)", tmp_path, scale=f"{scale}×")
    assert box
    assert png_size(file)[0] == scale * -(-box["width"] // 1)


def png_size(file: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", file.read_bytes()[16:24])
    return width, height


@pytest.mark.parametrize(("width", "pixels"), [("column", 3.3 * 96), ("page", 6.9 * 96)])
def test_a_picture_of_a_papers_width_has_all_that_is_seen(
    page: Page, tmp_path: Path, width: str, pixels: float
) -> None:
    mounted = mount(page, "patching_heatmap.js", patching.patching(12, 8))
    seen = save(mounted, "Picture (SVG)", tmp_path)
    own = ET.parse(seen).getroot()
    written = texts(seen)
    file = save(mounted, "Picture (SVG)", tmp_path, width=width)
    root = ET.parse(file).getroot()
    assert float(root.get("width") or 0) == pytest.approx(pixels, abs=0.01)
    ratios = [float(r.get("height") or 0) / float(r.get("width") or 1) for r in (own, root)]
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-3)
    assert root.get("viewBox") == own.get("viewBox")
    assert texts(file) == written
    wide, tall = png_size(save(mounted, "Picture (PNG)", tmp_path, scale="4×"))
    assert (wide, tall) == (round(4 * pixels), pytest.approx(4 * pixels * ratios[0], abs=1))


def test_a_picture_is_as_many_pixels_wide_as_asked_and_another_number_is_refused(page: Page, tmp_path: Path) -> None:
    mounted = mount(page, "attention_pattern.js", states.attention(layers=4))
    opened = menu(page)
    number = opened.get_by_role("spinbutton", name="Width in pixels")
    expect(number).to_be_hidden()
    opened.get_by_label("Width", exact=True).select_option("pixels")
    box = page.get_by_role("figure").bounding_box()
    assert box
    expect(number).to_have_value(str(int(-(-box["width"] // 1))))
    number.fill("1234")
    page.keyboard.press("Escape")
    assert png_size(save(mounted, "Picture (PNG)", tmp_path, scale="1×"))[0] == 1234
    expect(menu(page).get_by_role("button", name="1×")).to_have_attribute("aria-pressed", "true")
    for wrong in ("", "0", "12.5", "99999999"):
        number.fill(wrong)
        opened.get_by_role("button", name="Picture (SVG)").click()
        expect(page.get_by_role("alert")).to_contain_text("a whole number of pixels from 50 to 20000 is needed")
        page.get_by_role("button", name="Save", exact=True).click()


def test_markup_stays_text_in_a_picture(page: Page, tmp_path: Path) -> None:
    evil = "</text><script>alert(1)</script>"
    state = states.attention(6, 3, 2)
    for token in state["_prompt"]["tokens"]:
        token["text"] = evil
    state["_header"]["model"] = evil
    file = save(mount(page, "attention_pattern.js", state), "Picture (SVG)", tmp_path)
    root = ET.parse(file).getroot()
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert any(evil in text for text in texts(file))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [420, 900, 1500])
def test_menu_is_seen_whole_and_axe_finds_nothing_in_it(page: Page, width: int, dark: bool) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    mounted = mount(page, "attention_pattern.js", states.attention(layers=4))
    mounted.theme(dark)
    opened = menu(page)
    opened.get_by_label("Width", exact=True).select_option("pixels")
    box = opened.bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert violations(page) == []
    mounted.screenshot(f"save-menu-{width}-{'dark' if dark else 'light'}")


def test_menu_is_worked_by_keyboard_and_closes_on_escape(page: Page, tmp_path: Path) -> None:
    mount(page, "attention_pattern.js", states.attention(layers=4))
    button = page.get_by_role("button", name="Save", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    opened = page.get_by_role("dialog", name="Save as")
    expect(opened).to_be_visible()
    expect(button).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Tab")
    expect(opened.get_by_label("Width", exact=True)).to_be_focused()
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(opened.get_by_role("button", name="Picture (PNG)")).to_be_focused()
    with page.expect_download():
        page.keyboard.press("Enter")
    expect(opened).to_be_hidden()
    expect(button).to_be_focused()
    button.click()
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    expect(opened).to_be_hidden()
    expect(button).to_be_focused()
    button.click()
    page.mouse.click(2, 2)
    expect(opened).to_be_hidden()
    button.click()
    page.get_by_role("button", name="Code").focus()
    expect(opened).to_be_hidden()


def test_numbers_and_page_are_asked_of_python_and_saved_when_they_come(page: Page, tmp_path: Path) -> None:
    mounted = mount(page, "attention_pattern.js", states.attention(layers=4))
    menu(page).get_by_role("button", name="Numbers (CSV)").click()
    (request,) = mounted.requests()
    assert {k: v for k, v in request.items() if k != "id"} == {"op": "to_csv"}
    file = {"name": "attention-pattern.csv", "mime": "text/csv", "text": "query,key\n0,0\n"}
    mounted.push(_saved={**file, "id": request["id"] - 1})  # another view's
    with page.expect_download() as download:
        mounted.push(_saved={**file, "id": request["id"]})
    assert Path(download.value.path()).read_text(encoding="utf-8") == file["text"]
    assert download.value.suggested_filename == file["name"]
    expect(page.get_by_text(re.compile("attention-pattern.csv is saved"))).to_have_count(1)


@pytest.mark.parametrize("entry", WIDGETS)
def test_python_gets_the_picture_of_the_menu(page: Page, tmp_path: Path, entry: str) -> None:
    mounted = mount(page, entry, WIDGETS[entry]())
    seen = save(mounted, "Picture (SVG)", tmp_path).read_text(encoding="utf-8")
    size = {"width": None, "scale": 2}
    mounted.push(_to_save=[{"id": 3, "kind": "svg", **size}])
    assert pictures(mounted, 1) == [{"picture": 3, "data": seen}]
    wide = {"width": 640, "scale": 3}
    mounted.push(_to_save=[{"id": 3, "kind": "svg", **size}, {"id": 4, "kind": "png", **wide}])
    _, sent = pictures(mounted, 2)
    assert sent["picture"] == 4
    file = tmp_path / "asked.png"
    file.write_bytes(base64.b64decode(sent["data"]))
    assert png_size(file)[0] == 3 * 640


def pictures(mounted: Mounted, count: int) -> list[dict[str, Any]]:
    """What was sent to Python of pictures that it asked for, once there are so many."""
    mounted.page.wait_for_function(
        "(count) => harness.model.sent.filter(({ message }) => message?.picture).length >= count", arg=count
    )
    return [message for message in mounted.sent("message") if "picture" in message]


def test_a_picture_that_python_asked_for_waits_for_what_runs(page: Page) -> None:
    mounted = mount(page, "attention_pattern.js", states.attention(layers=4))
    page.get_by_role("button", name=re.compile("^Ablate L")).click()
    mounted.push(_to_save=[{"id": 1, "kind": "svg", "width": None, "scale": 2}])
    mounted.settle()
    mounted.settle()
    assert [message for message in mounted.sent("message") if "picture" in message] == []
    mounted.answer()
    (sent,) = pictures(mounted, 1)
    assert "<svg" in sent["data"]


def test_a_view_that_comes_later_sends_what_python_waits_for(page: Page) -> None:
    asked = [{"id": 1, "kind": "svg", "width": None, "scale": 2}]
    mounted = mount(page, "attention_pattern.js", states.attention(layers=4) | {"_to_save": asked})
    assert len(pictures(mounted, 1)) == 1


def test_a_hidden_view_sends_its_picture_once_it_is_seen_if_it_is_still_asked_for(page: Page) -> None:
    first, second = ({"id": n, "kind": "svg", "width": None, "scale": 2} for n in (1, 2))
    mounted = mount(page, "attention_pattern.js", states.attention(layers=4))
    page.evaluate("() => { document.querySelector('main').hidden = true; }")
    mounted.push(_to_save=[first, second])
    mounted.settle()
    mounted.settle()
    assert [message for message in mounted.sent("message") if "picture" in message] == []
    mounted.push(_to_save=[second])
    page.evaluate("() => { document.querySelector('main').hidden = false; }")
    assert [sent["picture"] for sent in pictures(mounted, 1)] == [2]


def test_a_picture_is_sent_again_when_python_asks_again_and_only_then(page: Page) -> None:
    asked, other = ({"id": n, "kind": "svg", "width": None, "scale": 2, "times": 1} for n in (1, 2))
    mounted = mount(page, "attention_pattern.js", states.attention(layers=4))
    mounted.push(_to_save=[asked])
    pictures(mounted, 1)
    mounted.push(_to_save=[asked, other])
    pictures(mounted, 2)
    mounted.push(_to_save=[asked | {"times": 2}, other])
    assert [sent["picture"] for sent in pictures(mounted, 3)] == [1, 2, 1]


def test_python_hears_why_there_is_no_picture(page: Page) -> None:
    mounted = mount(page, "attention_pattern.js", states.attention(layers=4))
    page.evaluate("() => { HTMLCanvasElement.prototype.toBlob = (done) => done(null); }")
    mounted.push(_to_save=[{"id": 1, "kind": "png", "width": None, "scale": 2}])
    (sent,) = pictures(mounted, 1)
    assert sent["error"].startswith("the browser made no image of")


def test_a_picture_that_the_browser_cannot_make_is_said(page: Page) -> None:
    mount(page, "attention_pattern.js", states.attention(layers=4))
    # As it does beyond its largest canvas.
    page.evaluate("() => { HTMLCanvasElement.prototype.toBlob = (done) => done(null); }")
    menu(page).get_by_role("button", name="Picture (PNG)").click()
    expect(page.get_by_role("alert")).to_contain_text("This was not saved: the browser made no image of")
