"""One scenario in every front end: the pictures, a click, the other widgets, the theme, a quiet console."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import Browser, expect

from tests.browser.hosts.drivers import HOSTS, Host
from tests.browser.hosts.scene import CLEAN, open_session
from tests.browser.lab.jupyterlab import REPORT

TITLES = ("Attention pattern", "Logit lens", "Patching heatmap")


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    root = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    with HOSTS[request.param](browser, root) as host:
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


def test_three_widgets_show_their_pictures(host):
    for title in TITLES:
        widget = host.widget(title)
        widget.root.scroll_into_view_if_needed()
        widget.fresh()
        assert widget.root.get_by_role("grid").first.is_visible()


def test_a_click_runs_the_model_and_shows_what_hugging_face_predicts(host, probabilities):
    widget = host.widget("Attention pattern")
    before = {token: row[0] for token, row in widget.table("Predictions").items()}
    assert percents(before) == pytest.approx({token: probabilities[False][token] for token in before}, abs=0.06)
    widget.button("Ablate L2H1").click()
    expect(widget.button("Restore L2H1")).to_be_visible()
    widget.fresh()
    after = {token: row[1] for token, row in widget.table("Predictions").items()}
    assert percents(after) == pytest.approx({token: probabilities[True][token] for token in after}, abs=0.06)
    assert percents(after) != pytest.approx(percents(before), abs=0.5)


def test_the_other_widgets_of_the_session_follow(host):
    lens, heatmap = host.widget("Logit lens"), host.widget("Patching heatmap")
    expect(lens.root.get_by_role("region", name="With experiments")).to_be_visible()
    lens.fresh()
    expect(heatmap.root.get_by_role("list", name="Experiments")).to_contain_text("L2H1")
    heatmap.fresh()


def test_the_theme_follows_the_front_end(host):
    attention = host.widget("Attention pattern")
    expect(attention.root).to_have_attribute("data-iw-theme", "light")
    host.go_dark()
    expect(attention.root).to_have_attribute("data-iw-theme", "dark")


def test_the_console_is_quiet(host):
    assert not host.complaints


def percents(shown: dict[str, str]) -> dict[str, float]:
    return {token: float(text.rstrip("%").lstrip("<")) for token, text in shown.items()}
