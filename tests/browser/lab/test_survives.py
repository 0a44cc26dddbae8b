"""A notebook's working day: several views, scrolling, a lost connection, another notebook, a dead kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.front_ends import RESTART, VIEWS
from tests.browser.hosts.scripts import CELLS
from tests.browser.lab.jupyterlab import Notebook, Server, as_notebook

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
_NEW_VIEW = """async (cell) => {
  const panel = window.jupyterapp.shell.currentWidget;
  panel.content.activeCellIndex = cell;
  await window.jupyterapp.commands.execute("notebook:create-output-view");
  return panel.id;
}"""


@pytest.fixture
def scene(notebook: Notebook) -> Notebook:
    """Three widgets of one session on a tiny model."""
    notebook.create(*CELLS)
    for title in TITLES:
        notebook.widget(title).fresh()
    return notebook


def ablated(notebook: Notebook) -> str:
    return notebook.execute("print([(e.layer, e.head) for e in session.interventions])").strip()


@pytest.mark.works(VIEWS)
def test_three_widgets_with_two_views_each_show_the_same(scene):
    for name in ("attention", "lens", "heatmap"):
        scene.append(name)
    for title in TITLES:
        expect(scene.page.get_by_role("figure", name=title)).to_have_count(2, timeout=60_000)
    first, second = (scene.widget("Attention pattern", nth) for nth in (0, 1))
    second.button("Ablate L2H1").click()
    expect(first.button("Restore L2H1")).to_be_visible()
    for title in TITLES:
        views = [scene.widget(title, nth) for nth in (0, 1)]
        for view in views:
            expect(view.root.get_by_role("list", name="Experiments")).to_contain_text("L2H1")
            view.fresh()
    tables = []
    for view in (first, second):
        view.root.scroll_into_view_if_needed()
        tables.append(view.table("Predictions"))
    assert len(tables[0]) == 10
    assert tables[0] == tables[1]


@pytest.mark.works(VIEWS)
def test_create_new_view_for_output_shows_a_live_widget(scene):
    panel = scene.page.evaluate(_NEW_VIEW, 1)
    views = scene.page.get_by_role("figure", name="Attention pattern")
    expect(views).to_have_count(2)
    new = scene.widget("Attention pattern", 1)
    new.fresh()
    new.button("Ablate L2H1").click()
    expect(scene.widget("Attention pattern", 0).button("Restore L2H1")).to_be_visible()
    scene.page.evaluate("(id) => window.jupyterapp.shell.activateById(id)", panel)
    assert ablated(scene) == "[(2, 1)]"


@pytest.fixture(params=["full", "contentVisibility"])
def windowed(request: pytest.FixtureRequest, subshell_server: Server) -> Iterator[str]:
    """JupyterLab's setting of what becomes of cells that are not on the screen: gone from the page, or not drawn."""
    settings = subshell_server.root / ".settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"windowingMode": request.param}))
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
    scene.page.evaluate(scroll, 33)
    expect(widget.root).not_to_be_in_viewport()
    scene.execute("attention.ablate(2, 1)")
    scene.page.evaluate(scroll, 1)
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
    context = scene.page.context
    path = scene.server.root / "other.ipynb"
    path.write_text(json.dumps(as_notebook(CELLS)))
    other = Notebook(context.new_page(), scene.server)
    other.page.set_default_timeout(60_000)
    other.open(path, workspace="other")
    other.run_all()
    widget = other.widget("Attention pattern")
    widget.fresh()
    widget.button("Ablate L2H1").click()
    expect(widget.button("Restore L2H1")).to_be_visible()
    assert (ablated(other), ablated(scene)) == ("[(2, 1)]", "[]")
    expect(scene.widget("Attention pattern").button("Ablate L2H1")).to_be_visible()
    assert not other.complaints


@pytest.mark.works(RESTART)
@pytest.mark.parametrize("end", ["restart", "kill -9"])
def test_after_the_kernel_has_ended_the_widget_says_so_and_a_new_run_brings_it_back(scene, end):
    widget = scene.widget("Attention pattern")
    if end == "restart":
        scene.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    else:
        scene.end_kernel()
    scene.wait_idle()
    widget.button("Ablate L2H1").click()
    expect(widget.root.get_by_role("alert")).to_contain_text("Not connected to a kernel", timeout=30_000)
    assert widget.grid("All heads").is_visible()
    scene.run_all()
    widget = scene.widget("Attention pattern")
    widget.fresh()
    expect(widget.root.get_by_role("alert")).to_have_count(0)
    widget.button("Ablate L2H1").click()
    expect(widget.button("Restore L2H1")).to_be_visible()
