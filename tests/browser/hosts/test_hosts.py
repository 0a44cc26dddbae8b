"""One scenario in every front end: pictures, a click, the other widgets and views, busy and dead kernels, the theme."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from playwright.sync_api import Browser, Locator, expect

from tests.browser.front_ends import (
    BUSY,
    CLICK,
    KERNEL_6,
    LINKED,
    MARIMO_EDIT,
    PICTURES,
    RELOAD,
    RESTART,
    THEME,
    VIEWS,
)  # fmt: skip
from tests.browser.hosts.drivers import APPS, Host, Jupyter
from tests.browser.hosts.drivers import jupyter as in_jupyter
from tests.browser.hosts.imitations import IMITATIONS, KEEPS_NO_STATE, KEEPS_STATE, vs_code
from tests.browser.hosts.scene import CLEAN, open_session
from tests.browser.lab.jupyterlab import Widget
from tests.browser.lab.servers import SERVERS, Server

TITLES = ("Attention pattern", "Logit lens", "Patching heatmap")
EVERYWHERE = [*SERVERS, *APPS, *IMITATIONS]
WITH_CELLS = [*SERVERS, MARIMO_EDIT, *IMITATIONS]
ENDS = [
    *((front_end, how) for front_end in (*SERVERS, *IMITATIONS) for how in ("restart", "kill -9")),
    *((front_end, "kill -9") for front_end in APPS),
]


@pytest.fixture(scope="module", params=EVERYWHERE)
def host(
    request: pytest.FixtureRequest,
    browser: Browser,
    jupyter: Callable[[str], Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Host]:
    name = request.param
    if name in SERVERS:
        opening = in_jupyter(jupyter(name))
    else:
        opening = (APPS | IMITATIONS)[name](browser, tmp_path_factory.mktemp("host"), name)
    with opening as host:
        yield host


@pytest.fixture(scope="module")
def probabilities() -> dict[bool, dict[str, float]]:
    """What plain Hugging Face predicts, in percent, with and without head 1 of layer 2."""
    session = open_session()
    model, ids = session.model, torch.tensor([session.tokenize(CLEAN).ids])
    width = model.config.hidden_size // model.config.num_attention_heads

    def without_head(_module, arguments):
        (z,) = arguments
        return (torch.cat([z[..., :width], torch.zeros_like(z[..., :width]), z[..., 2 * width :]], -1),)

    def predict():
        with torch.no_grad():
            row = model(ids).logits[0, -1].double().softmax(-1)
        return {session.show_token(i): 100 * float(p) for i, p in enumerate(row)}

    whole = predict()
    handle = model.model.layers[2].self_attn.o_proj.register_forward_pre_hook(without_head)
    ablated = predict()
    handle.remove()
    return {False: whole, True: ablated}


@pytest.mark.works(PICTURES)
def test_three_widgets_show_their_pictures(host):
    for title in TITLES:
        widget = host.see(title)
        assert widget.root.get_by_role("grid").first.is_visible()


@pytest.mark.works(CLICK)
def test_a_click_runs_the_model_and_shows_what_hugging_face_predicts(host, probabilities):
    widget = host.see("Attention pattern")
    before = {token: row[0] for token, row in widget.table("Predictions").items()}
    assert percents(before) == pytest.approx({token: probabilities[False][token] for token in before}, abs=0.06)
    widget.button("Ablate L2H1").click()
    expect(widget.button("Restore L2H1")).to_be_visible()
    widget.fresh()
    after = {token: row[1] for token, row in widget.table("Predictions").items()}
    assert percents(after) == pytest.approx({token: probabilities[True][token] for token in after}, abs=0.06)
    assert percents(after) != pytest.approx(percents(before), abs=0.5)


@pytest.mark.works(LINKED)
def test_the_other_widgets_of_the_session_follow(host):
    lens = host.see("Logit lens")
    expect(lens.root.get_by_role("region", name="With experiments")).to_be_visible()
    heatmap = host.see("Patching heatmap")
    expect(heatmap.root.get_by_role("list", name="Experiments")).to_contain_text("L2H1")


@pytest.mark.works(VIEWS)
def test_two_views_of_each_widget_show_the_same(host):
    for title in TITLES:
        first, second = (host.see(title, nth) for nth in (0, 1))
        for view in (first, second):
            expect(experiments(view)).to_have_text([re.compile("L2H1")])
    before = predictions(host, 0)
    assert len(before) == 10
    assert predictions(host, 1) == before
    host.see(TITLES[0], 1).button("Restore L2H1").click()
    for nth in (0, 1):
        expect(host.see(TITLES[0], nth).button("Ablate L2H1")).to_be_visible()
    after = predictions(host, 0)
    assert predictions(host, 1) == after != before


@pytest.mark.parametrize("host", SERVERS, indirect=True)
def test_keys_pressed_in_a_widget_are_not_the_notebooks(host):
    """JupyterLab hears keys after the widget, Notebook 7 before it: d d deletes the cell, an arrow takes the focus."""
    widget = host.see("Attention pattern")
    cells = host.page.locator(".jp-Notebook .jp-CodeCell")
    before, selected = cells.count(), switch(widget).inner_text()
    widget.press("All heads", *"abxmdd", "Escape", "ArrowUp", "ArrowDown")
    assert host.page.evaluate("() => document.activeElement.closest('.iw-root') !== null")
    assert cells.count() == before
    expect(switch(widget)).to_have_text(selected)
    host.page.keyboard.press("Control+s")
    host.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")


@pytest.mark.works(BUSY)
@pytest.mark.parametrize("host", WITH_CELLS, indirect=True)
def test_clicks_during_a_cell_all_count(host):
    """A page of Jupyter sends one message at a time, and of what is said meanwhile only the last value of a trait."""
    widget = host.see("Attention pattern")
    take_back_all(widget)
    expect(widget.button("Ablate L2H1")).to_be_visible()
    heads = [re.compile(head) for head in ("L2H1", "L3H1", "L3H0", "L2H0")]
    with host.running_a_cell():
        widget.press("All heads", "Enter", "ArrowRight", "Enter", "ArrowUp", "Enter", "ArrowLeft", "Enter")
        if host.at_once:
            expect(experiments(widget)).to_have_text(heads)
        else:
            expect(widget.root).to_have_attribute("data-state", re.compile("pending|stale"))
            expect(experiments(widget)).to_have_count(0)
    widget.fresh()
    expect(experiments(widget)).to_have_text(heads)


@pytest.mark.works(RESTART)
@pytest.mark.sampled
@pytest.mark.parametrize(("host", "how"), ENDS, indirect=["host"])
def test_after_the_kernel_has_ended_the_widget_says_so_and_a_new_run_brings_it_back(host, how):
    widget = host.see("Attention pattern")
    take_back_all(widget)
    host.end_kernel(how)
    switch(widget).click()
    expect(widget.root.get_by_role("alert")).to_contain_text("Not connected to a kernel", timeout=30_000)
    assert widget.grid("All heads").is_visible()
    host.run_again()
    widget = host.see("Attention pattern")
    expect(widget.root.get_by_role("alert")).to_have_count(0)
    switch_the_selected_head(widget)


@pytest.mark.works(RELOAD)
@pytest.mark.parametrize("host", [*SERVERS, *APPS], indirect=True)
def test_after_a_reload_the_widgets_are_there_and_live(host):
    host.reload()
    for title in reversed(TITLES):
        widget = host.see(title)
    switch_the_selected_head(widget)


@pytest.mark.works(RELOAD)
@pytest.mark.parametrize("host", KEEPS_NO_STATE, indirect=True)
def test_after_a_reload_without_state_the_still_pictures_are_there_until_the_cells_run(host):
    host.reload()
    page = host.frame(TITLES[0]).content_frame
    expect(page.get_by_text("A still picture: run the cell to click in it.")).to_have_count(6)
    for title in TITLES:
        expect(page.get_by_text(title).first).to_be_visible()
    for picture in page.get_by_role("img").all():
        expect(picture).to_be_visible()
    host.run_again()
    switch_the_selected_head(host.see("Attention pattern"))


@pytest.mark.works(RELOAD)
@pytest.mark.parametrize("host", KEEPS_STATE, indirect=True)
def test_after_a_reload_the_saved_pictures_are_there_and_a_click_says_what_to_do(host):
    shown = predictions(host, 0)
    host.reload()
    for title in TITLES:
        assert host.see(title).root.get_by_role("grid").first.is_visible()
    assert predictions(host, 0) == shown
    widget = host.see("Attention pattern")
    widget.press("All heads", "Enter")
    expect(widget.root.get_by_role("alert")).to_contain_text("run the cell again", timeout=30_000)
    host.run_again()
    switch_the_selected_head(host.see("Attention pattern"))


@pytest.mark.parametrize("host", IMITATIONS, indirect=True)
def test_python_saves_what_a_frame_of_another_origin_shows(host, tmp_path):
    host.see("Attention pattern")
    attention, file = host.widgets[0], tmp_path / "seen.png"
    attention.wait()
    assert not attention.save_as_seen(file)  # it is this thread that takes the page's messages
    while attention._to_save:
        host.page.wait_for_timeout(20)
    assert attention._status["error"] is None
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.works(THEME)
def test_the_theme_follows_the_front_end(host):
    attention = host.see("Attention pattern")
    expect(attention.root).to_have_attribute("data-iw-theme", "light")
    host.go_dark()
    expect(attention.root).to_have_attribute("data-iw-theme", "dark", timeout=60_000)


def test_the_console_is_quiet(host):
    assert not host.complaints


@pytest.mark.parametrize("host", [KERNEL_6], indirect=True)
def test_the_kernel_of_that_name_is_of_ipykernel_6(host):
    assert isinstance(host, Jupyter)
    assert host.notebook.kernel_version() == 6


def test_a_front_end_that_loses_binary_values_shows_an_error_and_no_blank(browser, tmp_path):
    with vs_code(browser, tmp_path, "none", form="none") as host:
        for title in TITLES:
            host.frame(title).scroll_into_view_if_needed()
            widget = host.widget(title)
            expect(widget.root.get_by_role("alert")).to_contain_text("binary part", timeout=60_000)
            expect(widget.root).to_have_attribute("data-state", "stale")
        assert {complaint for complaint in host.complaints if "binary part" not in complaint} == set()


def switch(widget: Widget) -> Locator:
    """The button that ablates or restores the selected head."""
    return widget.root.get_by_role("button", name=re.compile(r"^(Ablate|Restore) L\dH\d$"))


def switch_the_selected_head(widget: Widget) -> None:
    before = switch(widget).inner_text()
    switch(widget).click()
    expect(switch(widget)).not_to_have_text(before)
    widget.fresh()


def predictions(host: Host, nth: int) -> dict[str, list[str]]:
    return host.see("Attention pattern", nth).table("Predictions")


def experiments(widget: Widget) -> Locator:
    return widget.root.get_by_role("list", name="Experiments").get_by_role("listitem")


def take_back_all(widget: Widget) -> None:
    """Remove the experiments one by one, as a user would."""
    remove = widget.root.get_by_role("button", name=re.compile(r"^Remove .*L\d"))
    for left in reversed(range(remove.count())):
        remove.first.click()
        expect(remove).to_have_count(left)
    widget.fresh()


def percents(shown: dict[str, str]) -> dict[str, float]:
    return {token: float(text.rstrip("%").lstrip("<")) for token, text in shown.items()}
