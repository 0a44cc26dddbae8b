"""A notebook's working day in JupyterLab: another view, scrolling, a lost connection, another notebook."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.front_ends import SUBSHELLS, VIEWS
from tests.browser.lab.jupyterlab import Notebook, open_page
from tests.browser.lab.servers import Server

OPENING = "from tests.browser.hosts.scene import make_widgets, open_session\nsession = open_session()"
WIDGETS = ("attention, lens, heatmap = make_widgets(session)", "attention", "lens", "heatmap")
TITLES = ("Attention pattern", "Logit lens", "Patching heatmap")
_RECONNECT = """async () => {
  const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
  const seen = (status) => new Promise((done) => {
    const look = () => {
      if (kernel.connectionStatus !== status) return;
      kernel.connectionStatusChanged.disconnect(look);
      done();
    };
    kernel.connectionStatusChanged.connect(look);
    look();
  });
  kernel._ws.close(4000);
  await seen("connecting");
  await seen("connected");
}"""
_CLOSE_OTHERS = """(panel) => [...window.jupyterapp.shell.widgets("main")]
  .filter(({ id }) => id !== panel).forEach((each) => each.close())"""
_NEW_VIEW = """async (cell) => {
  const panel = window.jupyterapp.shell.currentWidget;
  panel.content.activeCellIndex = cell;
  await window.jupyterapp.commands.execute("notebook:create-output-view");
  return panel.id;
}"""


@pytest.fixture(scope="module")
def tiny_notebook(jupyter: Callable[[str], Server]) -> Iterator[Notebook]:
    with open_page(jupyter(SUBSHELLS)) as notebook:
        notebook.create(OPENING)
        yield notebook


@pytest.fixture
def scene(tiny_notebook: Notebook) -> Iterator[Notebook]:
    """Three widgets of one session on a tiny model."""
    tiny_notebook.show(*WIDGETS)
    for title in TITLES:
        tiny_notebook.widget(title).fresh()
    yield tiny_notebook
    assert not tiny_notebook.complaints, tiny_notebook.complaints


def ablated(notebook: Notebook) -> str:
    return notebook.execute("print([(e.layer, e.head) for e in session.interventions])").strip()


@pytest.mark.works(VIEWS)
def test_create_new_view_for_output_shows_a_live_widget(scene):
    panel = scene.page.evaluate(_NEW_VIEW, 2)
    views = scene.page.get_by_role("figure", name="Attention pattern")
    expect(views).to_have_count(2)
    new = scene.widget("Attention pattern", 1)
    new.fresh()
    new.button("Ablate L2H1").click()
    expect(scene.widget("Attention pattern", 0).button("Restore L2H1")).to_be_visible()
    scene.page.evaluate("(id) => window.jupyterapp.shell.activateById(id)", panel)
    assert ablated(scene) == "[(2, 1)]"
    scene.page.evaluate(_CLOSE_OTHERS, panel)
    expect(views).to_have_count(1)


@pytest.fixture(params=["full", "contentVisibility"])
def windowed(request: pytest.FixtureRequest, tiny_notebook: Notebook) -> Iterator[str]:
    """JupyterLab's setting of what becomes of cells that are not on the screen: gone from the page, or not drawn."""
    folder = tiny_notebook.server.root / ".settings/@jupyterlab/notebook-extension"
    settings = folder / "tracker.jupyterlab-settings"
    folder.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"windowingMode": request.param}))
    tiny_notebook.reload()
    yield request.param
    settings.unlink()


def test_cells_scrolled_out_of_the_window_come_back_as_they_were(windowed, scene):
    content = "window.jupyterapp.shell.currentWidget.content"
    assert scene.page.evaluate(f"() => {content}.notebookConfig.windowingMode") == windowed
    for _ in range(30):
        scene.append("print('\\n' * 30)")
    scene.wait_idle()
    widget = scene.widget("Attention pattern")
    scroll = f"(to) => {content}.scrollToItem(to, 'smart')"
    scene.page.evaluate(scroll, 34)
    expect(widget.root).not_to_be_in_viewport()
    scene.execute("attention.ablate(2, 1)")
    scene.page.evaluate(scroll, 2)
    expect(widget.root).to_be_in_viewport()
    widget.fresh()
    expect(widget.button("Restore L2H1")).to_be_visible()
    painted = "(canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((v) => v)"
    assert widget.grid("All heads").locator("canvas").first.evaluate(painted)
    widget.button("Restore L2H1").click()
    expect(widget.button("Ablate L2H1")).to_be_visible()


def test_a_dropped_connection_comes_back_and_nothing_is_lost(scene):
    scene.page.evaluate(_RECONNECT)
    widget = scene.widget("Attention pattern")
    widget.button("Ablate L2H1").click()
    expect(widget.button("Restore L2H1")).to_be_visible(timeout=30_000)
    widget.fresh()
    assert ablated(scene) == "[(2, 1)]"


def test_a_second_notebook_on_the_same_server_has_its_own_kernel_and_experiments(scene):
    with open_page(scene.server) as other:
        other.create(OPENING, *WIDGETS)
        widget = other.widget("Attention pattern")
        widget.fresh()
        widget.button("Ablate L2H1").click()
        expect(widget.button("Restore L2H1")).to_be_visible()
        assert (ablated(other), ablated(scene)) == ("[(2, 1)]", "[]")
        expect(scene.widget("Attention pattern").button("Ablate L2H1")).to_be_visible()
        assert not other.complaints
