"""The page that `to_html` writes: opened from a file with the network blocked, it shows, answers and refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

import interpwidgets as iw
from interpwidgets.widgets.answering import _OF_EXPERIMENTS
from tests.browser.harness.mounting import SCREENSHOTS
from tests.hostile import CORRUPTED, PROMPT, SHOWN, hostile_session
from tests.models import random_ids, tiny

IDS = [5, 17, 3, 44, 17, 60, 8, 91]
OTHER = [5, 17, 3, 21, 17, 60, 9, 91]


@pytest.fixture
def offline(browser: Browser) -> Iterator[Page]:
    """A page that can reach nothing but files, and must complain of nothing."""
    context = browser.new_context(viewport={"width": 1000, "height": 900}, offline=True, reduced_motion="reduce")
    asked: list[str] = []
    context.route(re.compile("^(https?|wss?):"), lambda route: (asked.append(route.request.url), route.abort()))
    page = context.new_page()
    page.set_default_timeout(8000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    yield page
    context.close()
    assert not complaints, complaints
    assert not asked, asked


@pytest.fixture
def session() -> Iterator[iw.Session]:
    with iw.Session(tiny("llama")) as session:
        yield session


def opened(page: Page, widget: Any, folder: Path) -> Page:
    """The page of a widget or a workbench, once its pictures are there."""
    widget.wait(60)
    file = folder / "page.html"
    assert widget.to_html(file) == file.read_text(encoding="utf-8")
    page.goto(file.as_uri())
    for shown in widget._pictured():
        expect(page.get_by_role("figure", name=shown.title)).to_have_attribute("data-state", "fresh")
    return page


def notice(page: Page) -> Any:
    return page.locator(".iw-page__notice")


def painted(page: Page, grid: str) -> list[int]:
    """Every pixel of a grid."""
    canvas = page.get_by_role("grid", name=grid).locator("canvas").first
    return canvas.evaluate(
        "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )


def test_pointing_says_the_exact_weight(offline: Page, session: iw.Session, tmp_path: Path) -> None:
    widget = iw.AttentionPattern(session, IDS, layer=1, head=2, hide_bos=False)
    page = opened(offline, widget, tmp_path)
    page.get_by_role("grid", name="L1H2 attention pattern").focus()
    page.keyboard.press("ArrowDown")
    weight = float(iw.attention_patterns(session, IDS).sel(layer=1, head=2)[1, 0])
    expect(page.get_by_label("Selected head").locator(".iw-readout")).to_contain_text(f"{weight:.4f}")


def test_any_head_can_be_selected(offline: Page, session: iw.Session, tmp_path: Path) -> None:
    page = opened(offline, iw.AttentionPattern(session, IDS, layer=1, head=2, hide_bos=False), tmp_path)
    page.get_by_role("grid", name="All heads").focus()
    page.keyboard.press("ArrowRight")
    grid = page.get_by_role("grid", name="L2H2 attention pattern")
    expect(grid).to_be_visible()
    expect(page.get_by_label("Selected head")).not_to_contain_text("preview")
    grid.focus()
    page.keyboard.press("ArrowDown")
    weight = float(iw.attention_patterns(session, IDS).sel(layer=2, head=2)[1, 0])
    expect(page.get_by_label("Selected head").locator(".iw-readout")).to_contain_text(f"{weight:.4f}")
    expect(notice(page)).to_be_empty()


def test_a_head_whose_weights_are_not_in_the_page_is_said_to_be_a_preview_for_good(
    offline: Page, tmp_path: Path
) -> None:
    with iw.Session(tiny("llama", max_position_embeddings=512)) as session:
        page = opened(offline, iw.AttentionPattern(session, random_ids(120), layer=1, head=2), tmp_path)
        selected = page.get_by_label("Selected head")
        expect(selected).not_to_contain_text("preview")
        page.get_by_role("grid", name="All heads").focus()
        page.keyboard.press("ArrowRight")
        expect(selected).to_contain_text("L2H2 · preview: exact weights need the kernel")
        page.keyboard.press("ArrowLeft")
        expect(selected).not_to_contain_text("preview")


def test_recorded_experiment_is_switched_taken_back_and_made_again(
    offline: Page, session: iw.Session, tmp_path: Path
) -> None:
    widget = iw.AttentionPattern(session, IDS, layer=1, head=2)
    widget.wait(30)
    widget.ablate(1, 2)
    page = opened(offline, widget, tmp_path)
    ablate, restore = (page.get_by_role("button", name=f"{word} L1H2") for word in ("Ablate", "Restore"))
    expect(restore).to_be_visible()
    restore.click()
    expect(ablate).to_be_visible()
    expect(page.get_by_text("none: this is the model as it is")).to_be_visible()
    ablate.click()
    expect(restore).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(ablate).to_be_visible()
    page.get_by_label("recorded:").select_option(label="z L1H2 → 0")
    expect(restore).to_be_visible()
    expect(notice(page)).to_be_empty()


def test_the_three_of_a_workbench_go_to_the_same_run_and_look_alike(
    offline: Page, session: iw.Session, tmp_path: Path
) -> None:
    workbench = iw.Workbench(session, IDS, OTHER)
    workbench.wait(60)
    workbench.attention.select(1, 2)
    workbench.attention.ablate(1, 2)
    opened(offline, workbench, tmp_path)
    attention, lens, heatmap = (offline.get_by_role("figure", name=w.title) for w in workbench._widgets())
    under_experiments = (
        attention.get_by_role("button", name="Restore L1H2"),
        lens.get_by_role("button", name="Change"),
        heatmap.get_by_role("button", name="Difference from baseline"),
    )
    for button in under_experiments:
        expect(button).to_be_visible()
    offline.get_by_label("recorded:").select_option(label="no experiments")
    for button in under_experiments:
        expect(button).to_be_hidden()
    attention.get_by_role("button", name="Undo").click()
    for button in under_experiments:
        expect(button).to_be_visible()
    lens.locator("summary", has_text="View").click()
    lens.get_by_label("Figure mode").select_option("page")
    for figure in (attention, lens, heatmap):
        expect(figure).to_have_attribute("data-iw-figure", "page")
    heatmap.get_by_role("button", name="Leave figure mode").click()
    expect(attention).not_to_have_attribute("data-iw-figure", "page")
    heatmap.get_by_role("button", name="mlp_out").click()
    expect(notice(offline)).to_contain_text('workbench.heatmap.set(site="mlp_out")')


def test_a_workbench_shows_the_code_of_all_three_of_what_the_page_opened_with(
    offline: Page, session: iw.Session, tmp_path: Path
) -> None:
    workbench = iw.Workbench(session, IDS, OTHER)
    workbench.wait(60)
    workbench.attention.ablate(1, 2)
    workbench.wait(60)
    workbench.heatmap.site = "z"
    opened(offline, workbench, tmp_path)
    attention, heatmap = (offline.get_by_role("figure", name=w.title) for w in (workbench.attention, workbench.heatmap))
    attention.get_by_role("button", name="Code", exact=True).click()
    code, undo = attention.locator(".iw-code__text"), attention.get_by_role("button", name="Undo")
    alone = re.compile(r"^# This is workbench\.attention alone.*AttentionPattern", re.DOTALL)
    expect(code).to_have_text(workbench.code())
    heatmap.get_by_role("button", name="resid_pre").click()
    expect(code).to_have_text(alone)
    expect(code).to_contain_text("Ablate")
    heatmap.get_by_role("button", name="z", exact=True).click()
    expect(code).to_have_text(workbench.code())
    offline.get_by_label("recorded:").select_option(label="no experiments")
    expect(code).to_have_text(alone)
    expect(code).not_to_contain_text("Ablate")
    undo.click()  # the heatmap follows to the map that is most like the one it shows
    expect(code).to_contain_text("Ablate")
    heatmap.get_by_role("button", name="z", exact=True).click()
    expect(code).to_have_text(workbench.code())
    attention.get_by_role("button", name="Save", exact=True).click()
    attention.get_by_role("button", name="Page without a kernel (HTML)").click()
    expect(notice(offline)).to_contain_text(" workbench.to_html()")


def test_what_was_not_run_is_refused_with_its_python_and_the_picture_stays(
    offline: Page, session: iw.Session, tmp_path: Path
) -> None:
    page = opened(offline, iw.AttentionPattern(session, IDS, layer=1, head=2), tmp_path)
    before = painted(page, "L1H2 attention pattern")
    page.get_by_role("button", name="Ablate L1H2").click()
    expect(notice(page)).to_have_text(
        "This page has no kernel: run the notebook to do this, or in Python "
        'widget.ablate(layer=1, head=2, how="zero", stack="decoder")'
    )
    expect(page.get_by_role("figure")).to_have_attribute("data-state", "fresh")
    expect(page.get_by_role("figure").get_by_role("alert")).to_have_count(0)
    page.mouse.move(0, 0)
    assert painted(page, "L1H2 attention pattern") == before


def test_long_prompt_is_zoomed(offline: Page, session: iw.Session, tmp_path: Path) -> None:
    page = opened(offline, iw.AttentionPattern(session, [5, 17, 3, 44] * 75, layer=1, head=2), tmp_path)
    grid = page.get_by_role("grid", name="L1H2 attention pattern")
    whole = int(grid.get_attribute("aria-rowcount") or 0)
    page.get_by_role("button", name="Cells").click()
    expect(grid).to_have_attribute("aria-rowcount", "299")
    assert whole < 299
    expect(notice(page)).to_be_empty()


def test_lens_colours_selects_and_shows_a_recorded_transplant(
    offline: Page, session: iw.Session, tmp_path: Path
) -> None:
    widget = iw.LogitLens(session, IDS)
    widget.wait(30)
    widget.transplant((0, 2), (1, 5))
    page = opened(offline, widget, tmp_path)
    expect(page.get_by_role("region", name="With experiments")).to_be_visible()
    page.get_by_role("button", name="entropy", exact=True).click()
    expect(page.get_by_role("img", name=re.compile("colour scale: .*nats")).first).to_be_visible()
    page.get_by_role("button", name=re.compile("^Remove")).first.click()
    expect(page.get_by_role("region", name="With experiments")).to_be_hidden()
    grid = page.get_by_role("grid").first
    grid.focus()
    page.keyboard.press("Home")
    expect(page.get_by_role("region", name="Selected cell")).to_contain_text("position 0")
    page.get_by_role("button", name="Transplant from").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(notice(page)).to_contain_text("widget.transplant_cells(source=[")


def test_a_metric_that_is_not_in_the_page_leaves_the_grid_as_it_is(
    offline: Page, session: iw.Session, tmp_path: Path
) -> None:
    page = opened(offline, iw.LogitLens(session, IDS), tmp_path)
    before = painted(page, "logit lens")
    page.get_by_role("button", name="KL to last").click()
    expect(notice(page)).to_contain_text('widget.compute(metric="kl")')
    expect(page.get_by_role("button", name="probability", exact=True)).to_have_attribute("aria-pressed", "true")
    page.mouse.move(0, 0)
    assert painted(page, "logit lens") == before


def test_a_recorded_result_without_the_metric_that_is_shown_has_another_one(
    offline: Page, session: iw.Session, tmp_path: Path
) -> None:
    widget = iw.LogitLens(session, IDS)
    widget.wait(30)
    widget.transplant((0, 2), (1, 5))
    widget.metric = "kl"
    page = opened(offline, widget, tmp_path)
    kl, probability = (page.get_by_role("button", name=name, exact=True) for name in ("KL to last", "probability"))
    expect(kl).to_have_attribute("aria-pressed", "true")
    page.get_by_label("recorded:").select_option(index=0)
    expect(probability).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("img", name=re.compile("colour scale: probability")).first).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(kl).to_have_attribute("aria-pressed", "true")


def test_heatmap_shows_recorded_sites_and_patches(offline: Page, session: iw.Session, tmp_path: Path) -> None:
    widget = iw.PatchingHeatmap(session, clean=IDS, corrupted=OTHER)
    widget.wait(30)
    widget.set(site="z")
    widget.wait(30)
    widget.patch([{"site": "z", "layer": 0, "head": 0}])
    page = opened(offline, widget, tmp_path)
    expect(page.get_by_text("with z L0H0 patched")).to_be_visible()
    page.get_by_role("button", name="Clear the patched cell").click()
    expect(page.get_by_text("click a cell to run that patch")).to_be_visible()
    page.get_by_role("grid", name="z patching effect, layer by head").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("with z L0H0 patched")).to_be_visible()
    expect(notice(page)).to_be_empty()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(notice(page)).to_contain_text('widget.patch(cells=[{"site": "z", "layer": 0, "head": 1, "position": None}])')
    expect(page.get_by_text("with z L0H0 patched")).to_be_visible()
    page.get_by_label("recorded:").select_option(index=0)
    expect(page.get_by_role("grid", name="resid_pre patching effect, layer by position")).to_be_visible()


@pytest.mark.parametrize(("answer", "foil"), [(13, 5), (5, 13), (13, 14)], ids=["-inf", "inf", "nan"])
def test_a_page_opens_where_a_measured_token_is_forbidden(
    offline: Page, session: iw.Session, tmp_path: Path, answer: int, foil: int
) -> None:
    def forbid(module: Any, args: Any, output: Any) -> None:
        output[..., 13:15] = float("-inf")

    session.model.lm_head.register_forward_hook(forbid)
    widget = iw.PatchingHeatmap(session, clean=IDS, corrupted=OTHER, answer=answer, foil=foil)
    page = opened(offline, widget, tmp_path)
    expect(page.get_by_role("grid", name="resid_pre patching effect, layer by position")).to_be_visible()
    expect(notice(page)).to_be_empty()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_reader_and_a_button_turns_it(
    offline: Page, session: iw.Session, tmp_path: Path, scheme: Any
) -> None:
    offline.emulate_media(color_scheme=scheme)
    page = opened(offline, iw.AttentionPattern(session, IDS, layer=1, head=2), tmp_path)
    root = page.get_by_role("figure")
    expect(root).to_have_attribute("data-iw-theme", scheme)
    light = painted(page, "All heads")
    page.get_by_role("button", name="theme").click()
    expect(root).to_have_attribute("data-iw-theme", "light" if scheme == "dark" else "dark")
    page.wait_for_function(
        "(was) => { const canvas = document.querySelector('canvas');"
        " const now = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        " return now.some((part, index) => part !== was[index]); }",
        arg=light,
    )


@pytest.mark.parametrize("kind", ["attention", "lens", "heatmap"])
def test_hostile_text_stays_text(offline: Page, tmp_path: Path, kind: str) -> None:
    with hostile_session() as session:
        session.name = "</script><img src=x onerror=alert(1)>"
        make = {
            "attention": lambda: iw.AttentionPattern(session, PROMPT, hide_bos=False),
            "lens": lambda: iw.LogitLens(session, PROMPT),
            "heatmap": lambda: iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED),
        }
        page = opened(offline, make[kind](), tmp_path)
    assert page.locator("script").count() == 2
    assert page.locator("img, iframe, [onerror]").count() == 0
    drawn = page.locator(".iw-token__text").all_text_contents()
    assert all(text in drawn for text in SHOWN.values() if len(text) <= 24)
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"saved-page-{kind}.png", full_page=True)


def test_pictures_and_numbers_are_saved_from_the_page_too(offline: Page, session: iw.Session, tmp_path: Path) -> None:
    widget = iw.PatchingHeatmap(session, clean=IDS, corrupted=OTHER)
    page = opened(offline, widget, tmp_path)
    for item, start in {"Picture (PNG)": b"\x89PNG", "Numbers (CSV)": b"site,direction,layer"}.items():
        page.get_by_role("button", name="Save", exact=True).click()
        with page.expect_download() as download:
            page.get_by_role("dialog", name="Save as").get_by_role("button", name=item, exact=True).click()
        assert Path(download.value.path()).read_bytes().startswith(start)
    assert Path(download.value.path()).read_text(encoding="utf-8") == widget.to_csv()
    expect(notice(page)).to_be_empty()


def save(page: Page, item: str) -> None:
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("dialog", name="Save as").get_by_role("button", name=item, exact=True).click()


def test_a_table_comes_once_and_never_of_what_is_not_shown(offline: Page, session: iw.Session, tmp_path: Path) -> None:
    widget = iw.AttentionPattern(session, IDS, layer=1, head=2)
    widget.wait(30)
    widget.ablate(1, 2)
    page = opened(offline, widget, tmp_path)
    came: list[Any] = []
    page.on("download", lambda download: came.append(download))
    refused = re.compile(r"no kernel.*widget\.to_csv\(\)")
    with page.expect_download():
        save(page, "Numbers (CSV)")
    save(page, "Page without a kernel (HTML)")
    expect(notice(page)).to_contain_text("widget.to_html()")
    page.get_by_label("recorded:").select_option(label="no experiments")
    expect(notice(page)).to_be_empty()
    save(page, "Numbers (CSV)")
    expect(notice(page)).to_have_text(refused)
    page.get_by_role("button", name="Undo").click()
    expect(notice(page)).to_be_empty()
    page.get_by_role("grid", name="All heads").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("grid", name="L2H2 attention pattern")).to_be_visible()
    save(page, "Numbers (CSV)")
    expect(notice(page)).to_have_text(refused)
    page.get_by_role("grid", name="All heads").focus()
    page.keyboard.press("ArrowLeft")
    with page.expect_download() as last:
        save(page, "Numbers (CSV)")
    assert Path(last.value.path()).read_text(encoding="utf-8") == widget.to_csv()
    assert len(came) == 2


def test_the_table_of_a_map_is_of_its_scale_and_view(offline: Page, session: iw.Session, tmp_path: Path) -> None:
    widget = iw.PatchingHeatmap(session, clean=IDS, corrupted=OTHER)
    widget.wait(30)
    session.interventions.append(iw.Ablate("z", layer=1, head=2))
    page = opened(offline, widget, tmp_path)
    for there, back in (("Raw", "Share of gap"), ("Difference from baseline", "Now")):
        page.get_by_role("button", name=there, exact=True).click()
        save(page, "Numbers (CSV)")
        expect(notice(page)).to_contain_text("widget.to_csv()")
        page.get_by_role("button", name=back, exact=True).click()
        with page.expect_download():
            save(page, "Numbers (CSV)")
        expect(notice(page)).to_be_empty()


# What a page asks of the list of experiments, in an order in which each has something to do.
OF_EXPERIMENTS: dict[str, dict[str, Any]] = {
    "set_strength": {"index": 1, "value": 0.5},
    "rename": {"index": 0, "name": 'a "name"'},
    "move": {"index": 0, "to": 1},
    "group": {"indices": [0, 1], "name": "both"},
    "rename_group": {"group": "both", "name": "two"},
    "pin": {},
    "unpin": {},
    "toggle_group": {"group": "two"},
    "remove_group": {"group": "two"},
}


@pytest.mark.parametrize("kind", ["linked", "detached", "workbench"])
def test_python_of_what_the_list_of_experiments_does_runs(
    offline: Page, session: iw.Session, tmp_path: Path, kind: str
) -> None:
    assert set(OF_EXPERIMENTS) == set(_OF_EXPERIMENTS)
    workbench = widget = iw.AttentionPattern(session, IDS, linked=kind != "detached")
    if kind == "workbench":
        workbench = iw.Workbench(session, IDS)
        widget = workbench.attention
    widget.experiments.extend([iw.Ablate("z", layer=1, head=2), iw.Scale("z", 2.0, layer=1, head=1)])
    workbench.wait(60)
    file = tmp_path / "page.html"
    page = workbench.to_html(file)
    (data,) = re.findall(r'id="iw-page-data">(.*?)</script>', page, re.S)
    (script,) = re.findall(r'<script type="module">(.*?)openPage\(\);', page, re.S)
    offline.goto(file.as_uri())
    said = offline.evaluate(
        """async ([script, data, requests]) => {
          const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
          const { createOfflineModel } = await import(url);
          const { values, widgets: [part] } = JSON.parse(data);
          const said = [];
          const model = createOfflineModel(part, values, (code) => said.push(code), () => {});
          Object.entries(requests).forEach(([op, rest], id) => {
            model.set("_request", { id: id + 1, op, ...rest });
            model.save_changes();
          });
          return said;
        }""",
        [script, data, OF_EXPERIMENTS],
    )
    before = [(widget.experiments.entries, widget.experiments.baseline)]
    for line in said:
        exec(line, {"session": session, "widget": widget, "workbench": workbench})
        before.append((widget.experiments.entries, widget.experiments.baseline))
    assert len(said) == len(OF_EXPERIMENTS)
    assert all(one != other for one, other in pairwise(before))
    workbench.wait(60)


def test_page_keeps_at_most_eight_results_and_shares_what_they_share(session: iw.Session) -> None:
    widget = iw.AttentionPattern(session, IDS, layer=1, head=2)
    widget.wait(30)
    alone = len(widget.to_html())
    for position in range(1, 12):
        widget.cut(1, 2, position % 7 + 1 if position > 7 else position, 0 if position < 8 else 1)
        widget.wait(30)
    page = widget.to_html()
    assert page.count('"question"') == 8
    assert len(page) < 2 * alone
