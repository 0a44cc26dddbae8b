"""Drives notebooks in JupyterLab, as a user would with mouse and keyboard."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.browser.lab.servers import Server
from tests.browser.server import REPOSITORY

REPORT = REPOSITORY / "test-report"

_STARTED = "() => window.jupyterapp?.started"
_IDLE = "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
_ALL_RUN = """(first) => window.jupyterapp.shell.currentWidget.content.widgets.slice(first ?? 0)
  .filter((cell) => cell.model.type === "code" && cell.model.sharedModel.getSource().trim())
  .every((cell) => cell.model.executionCount !== null)"""
_EXECUTE = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  let text = "";
  const future = kernel.requestExecute({ code, store_history: false });
  future.onIOPub = (message) => {
    if (message.header.msg_type === "stream") text += message.content.text;
    if (message.header.msg_type === "error") text += message.content.traceback.join("\\n");
  };
  await future.done;
  return text;
}"""
_START = """(code) => new Promise((running) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  kernel.requestExecute({ code, store_history: false }).onIOPub = ({ header }) => {
    if (header.msg_type === "stream") running();
  };
})"""
_APPEND = """async (code) => {
  const panel = window.jupyterapp.shell.currentWidget;
  const model = panel.content.model.sharedModel;
  model.insertCell(model.cells.length, { cell_type: "code", source: code });
  panel.content.activeCellIndex = model.cells.length - 1;
  window.jupyterapp.commands.execute("notebook:run-cell");
}"""
_REPLACE = """async (cells) => {
  const panel = window.jupyterapp.shell.currentWidget;
  const model = panel.content.model.sharedModel;
  while (model.cells.length > 1) model.deleteCell(1);
  cells.forEach((source, index) => model.insertCell(index + 1, { cell_type: "code", source }));
  panel.content.activeCellIndex = 1;
  window.jupyterapp.commands.execute("notebook:run-all-below");
}"""
_AUTORESTARTING = """() => {
  window.restarted = false;
  window.jupyterapp.shell.currentWidget.sessionContext.statusChanged.connect((_, status) => {
    if (status === "autorestarting" || status === "restarting") window.restarted = true;
  });
}"""
_RESTART = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
_SHUT_DOWN = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()"
_BUSY = """print("busy")
import pathlib, time
while not pathlib.Path({!r}).exists():
    time.sleep(0.02)"""


def collect_complaints(page: Page, complaints: list[str]) -> None:
    """Keep what goes wrong in the page, but for what the front end itself complains of."""

    def on_error(error: Any) -> None:
        # Notebook 7.6 itself, with settings of JupyterLab's that it does not have; marimo's page, whose server is gone.
        if not any(own in str(error) for own in ("reading 'schema'", "Failed to fetch")):
            complaints.append(str(error))

    def on_console(message: Any) -> None:
        # JupyterLab asks for files that need not be there, and complains while a kernel restarts.
        about_us = "interpwidgets" in message.text or "anywidget" in message.text or "blob:" in message.text
        if message.type == "error" and about_us:
            complaints.append(message.text)

    page.on("pageerror", on_error)
    page.on("console", on_console)


@dataclass
class Notebook:
    """One page of a server; problems of the browser's console are collected and asked about at the end."""

    page: Page
    server: Server
    complaints: list[str] = field(default_factory=list)
    path: Path = field(default_factory=Path)
    """The file that is open."""

    def __post_init__(self) -> None:
        collect_complaints(self.page, self.complaints)

    @property
    def front_end(self) -> str:
        return self.server.front_end

    def open(self, path: Path) -> None:
        """Open a notebook file of the server's folder."""
        self.path = path
        name = path.relative_to(self.server.root)
        where = f"lab/workspaces/{path.stem}/tree/{name}?reset" if self.server.app == "lab" else f"notebooks/{name}"
        self.page.goto(f"{self.server.url}/{where}")
        self._wait_for_notebook()

    def reload(self) -> None:
        """Save the notebook and load the page again, on the same kernel."""
        self.command("docmanager:save")
        self.page.reload()
        self._wait_for_notebook()

    def _wait_for_notebook(self) -> None:
        self.page.wait_for_function(_STARTED)
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.page.wait_for_function(_IDLE, timeout=60_000)

    def create(self, *cells: str) -> Path:
        """Write a notebook with these cells, open and run it."""
        path = self.server.root / f"test-{len(list(self.server.root.glob('*.ipynb')))}.ipynb"
        path.write_text(json.dumps(as_notebook(cells)))
        self.open(path)
        self.run_all()
        return path

    def show(self, *cells: str) -> None:
        """Replace all cells but the first by these and run them, on a session without widgets and experiments."""
        self.execute("for _w in list(session.widgets): _w.close()\nsession.interventions.clear()")
        self.page.evaluate(_REPLACE, list(cells))
        self.page.wait_for_function(_ALL_RUN, arg=1, timeout=180_000)
        self.page.wait_for_function(_IDLE, timeout=180_000)

    def run_all(self) -> None:
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        self.page.wait_for_function(_ALL_RUN, timeout=180_000)
        self.page.wait_for_function(_IDLE, timeout=180_000)

    def append(self, code: str) -> None:
        """Add a cell and start it; does not wait for its end."""
        self.page.evaluate(_APPEND, code)

    def execute(self, code: str) -> str:
        """Run code in the kernel behind the notebook's back; gives what it printed."""
        return self.page.evaluate(_EXECUTE, code)

    @contextmanager
    def running_a_cell(self) -> Iterator[None]:
        """Until the block ends, the kernel is busy, as with a cell; but no cell takes the keyboard."""
        gate = self.server.root / "gate"
        gate.unlink(missing_ok=True)
        self.page.evaluate(_START, _BUSY.format(str(gate)))
        try:
            yield
        finally:
            gate.touch()
        self.wait_idle()

    def kernel_version(self) -> int:
        """The major version of ipykernel, as the kernel says it."""
        return int(self.execute("import ipykernel; print(ipykernel.version_info[0])"))

    def restart_kernel(self) -> None:
        self.page.evaluate(_RESTART)
        self.wait_idle()

    def kill_kernel(self) -> None:
        """Kill the kernel's process; the server starts another in its place. Comes back when the page knows."""
        number = self.execute("import os; print(os.getpid())")
        self.page.evaluate(_AUTORESTARTING)
        os.kill(int(number), signal.SIGKILL)
        self.page.wait_for_function("() => window.restarted", timeout=60_000)
        self.page.get_by_role("dialog", name="Kernel Restarting").get_by_role("button").first.click()
        self.wait_idle()

    def wait_idle(self) -> None:
        self.page.wait_for_function(_IDLE, timeout=120_000)

    def command(self, name: str, **arguments: Any) -> None:
        self.page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments])

    def widget(self, title: str, nth: int = 0) -> Widget:
        return Widget(self.page, self.page.get_by_role("figure", name=title).nth(nth))

    def shut_down(self) -> None:
        """End its kernel."""
        self.page.evaluate(_SHUT_DOWN)


@contextmanager
def open_page(server: Server) -> Iterator[Notebook]:
    """A page in the server's window, with nothing open; its kernel ends with it."""
    page = server.context.new_page()
    page.set_default_timeout(30_000)
    page.set_default_navigation_timeout(120_000)
    notebook = Notebook(page, server)
    yield notebook
    notebook.shut_down()
    page.close()


@dataclass
class Widget:
    """One view of a widget on the page."""

    page: Page
    root: Locator

    def fresh(self, timeout: float = 60_000) -> None:
        """Wait until the picture answers the last request."""
        expect(self.root).to_have_attribute("data-state", "fresh", timeout=timeout)

    def grid(self, name: str) -> Locator:
        return self.root.get_by_role("grid", name=name)

    def press(self, grid: str, *keys: str) -> None:
        """Press keys with the focus in a grid."""
        self.grid(grid).first.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def cell(self, grid: str) -> Locator:
        """A grid's active cell, as a screen reader hears it."""
        return self.grid(grid).first.get_by_role("gridcell")

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def table(self, name: str) -> dict[str, list[str]]:
        """A table's rows by their first cell."""
        rows = self.root.get_by_role("table", name=name).locator("tbody tr").all()
        cells = [row.locator("th, td").all_inner_texts() for row in rows]
        return {first: rest for first, *rest in cells}

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.root.scroll_into_view_if_needed()
        self.root.screenshot(path=path)


def as_notebook(cells: tuple[str, ...]) -> dict[str, Any]:
    """A notebook file's content."""
    code = [
        {"cell_type": "code", "id": f"c{i}", "source": source, "metadata": {}, "outputs": [], "execution_count": None}
        for i, source in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
