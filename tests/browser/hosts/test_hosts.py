"""One scenario in every front end: the pictures, a click, the other widgets, the theme, a quiet console."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import Browser, expect

from tests.browser.front_ends import BUSY, CLICK, LINKED, PICTURES, RELOAD, THEME
from tests.browser.hosts.drivers import HOSTS, Host
from tests.browser.hosts.imitations import IMITATIONS
from tests.browser.hosts.scene import CLEAN, open_session

TITLES = ("Attention pattern", "Logit lens", "Patching heatmap")


EVERYWHERE = HOSTS | IMITATIONS


@pytest.fixture(scope="module", params=EVERYWHERE)
def host(request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with EVERYWHERE[request.param](browser, tmp_path_factory.mktemp("host"), request.param) as host:
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


@pytest.mark.works(BUSY)
@pytest.mark.parametrize("host", IMITATIONS, indirect=True)
def test_clicks_during_a_cell_all_count_once_it_has_ended(host):
    """The page sends one message at a time, and of what is said meanwhile only the last value of a trait."""
    host.session.interventions.clear()
    widget = host.see("Attention pattern")
    with host.kernel.running_a_cell():
        widget.press("All heads", "Enter", "ArrowRight", "Enter", "ArrowUp", "Enter", "ArrowLeft", "Enter")
        expect(widget.root).to_have_attribute("data-state", "pending")
        assert not host.session.interventions
    widget.fresh()
    heads = [(experiment.layer, experiment.head) for experiment in host.session.interventions]
    assert heads == [(2, 1), (3, 1), (3, 0), (2, 0)]
    expect(widget.root.get_by_role("list", name="Experiments").get_by_role("listitem")).to_have_count(4)


@pytest.mark.works(RELOAD)
@pytest.mark.parametrize("host", HOSTS, indirect=True)
def test_after_a_reload_the_widgets_are_there_and_live(host):
    host.save()
    host.page.reload()
    for title in reversed(TITLES):
        widget = host.see(title)
    # Some front ends go on with the kernel, some begin with a new one.
    ablated = widget.button("Restore L2H1").is_visible()
    before, after = ("Restore", "Ablate") if ablated else ("Ablate", "Restore")
    widget.button(f"{before} L2H1").click()
    expect(widget.button(f"{after} L2H1")).to_be_visible()
    widget.fresh()


@pytest.mark.works(THEME)
def test_the_theme_follows_the_front_end(host):
    attention = host.see("Attention pattern")
    expect(attention.root).to_have_attribute("data-iw-theme", "light")
    host.go_dark()
    expect(attention.root).to_have_attribute("data-iw-theme", "dark", timeout=60_000)


def test_the_console_is_quiet(host):
    assert not host.complaints


def percents(shown: dict[str, str]) -> dict[str, float]:
    return {token: float(text.rstrip("%").lstrip("<")) for token, text in shown.items()}
