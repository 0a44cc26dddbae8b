"""Starts each front end on the three widgets and opens it in a page."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.browser import front_ends as names
from tests.browser.hosts.scripts import CELLS, MARIMO, SOLARA
from tests.browser.lab.jupyterlab import Notebook, Widget, as_notebook, collect_complaints, open_page
from tests.browser.lab.servers import Server
from tests.browser.server import Process, free_port, serving


@dataclass(kw_only=True)
class Host:
    """A page of a front end on which the three widgets are, with two views each."""

    front_end: str
    """Its row in README's table."""
    page: Page
    go_dark: Callable[[], Any]
    """Switches the front end to its dark theme, as its user would."""
    at_once: bool = False
    """Whether clicks are answered while a cell runs."""
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        collect_complaints(self.page, self.complaints)

    def widget(self, title: str, nth: int = 0) -> Widget:
        """The nth view of a widget."""
        return Widget(self.page, self.page.get_by_role("figure", name=title).nth(nth))

    def see(self, title: str, nth: int = 0) -> Widget:
        """A view, fresh, and on the screen: what is not may draw nothing."""
        widget = self.widget(title, nth)
        expect(widget.root).to_be_attached(timeout=120_000)
        widget.root.scroll_into_view_if_needed()
        widget.fresh()
        return widget

    def reload(self) -> None:
        self.page.reload()

    def running_a_cell(self) -> AbstractContextManager[None]:
        """Until the block ends, a cell runs."""
        raise NotImplementedError

    def end_kernel(self, how: str) -> None:
        """End what answers the widgets, by "restart" or "kill -9"."""
        raise NotImplementedError

    def run_again(self) -> None:
        """Show the widgets anew, after the kernel has ended."""
        raise NotImplementedError


@dataclass(kw_only=True)
class Jupyter(Host):
    """JupyterLab or Notebook 7."""

    notebook: Notebook

    def reload(self) -> None:
        self.notebook.reload()

    def running_a_cell(self) -> AbstractContextManager[None]:
        return self.notebook.running_a_cell()

    def end_kernel(self, how: str) -> None:
        {"restart": self.notebook.restart_kernel, "kill -9": self.notebook.kill_kernel}[how]()

    def run_again(self) -> None:
        self.notebook.run_all()


@contextmanager
def jupyter(server: Server) -> Iterator[Host]:
    with open_page(server) as notebook:
        notebook.create(*CELLS)
        go_dark = partial(notebook.command, "apputils:change-theme", theme="JupyterLab Dark")
        at_once = server.front_end in (names.SUBSHELLS, names.NOTEBOOK)
        page, front_end = notebook.page, server.front_end
        yield Jupyter(front_end=front_end, page=page, go_dark=go_dark, at_once=at_once, notebook=notebook)
        go_dark(theme="JupyterLab Light")


@dataclass(kw_only=True)
class App(Host):
    """What a server of its own shows."""

    server: Process
    url: str

    def end_kernel(self, how: str) -> None:
        self.server.kill()

    def run_again(self) -> None:
        self.server.start()
        self.page.goto(self.url)


class MarimoNotebook(App):
    """marimo where cells can be run: a checkbox keeps one running."""

    @contextmanager
    def running_a_cell(self) -> Iterator[None]:
        gate = self.server.folder / "gate"
        gate.unlink(missing_ok=True)
        keep = self.page.get_by_role("checkbox", name="Keep a cell running")
        keep.click()
        self.page.get_by_text("the cell runs").wait_for()
        try:
            yield
        finally:
            gate.touch()
        keep.click()


@contextmanager
def voila(browser: Browser, root: Path, front_end: str) -> Iterator[Host]:
    (root / "app.ipynb").write_text(json.dumps(as_notebook(CELLS)))
    arguments = ["app.ipynb", "--no-browser", "--Voila.ip=127.0.0.1", "--Voila.port={port}"]
    with _app(browser, root, "voila", arguments) as app:
        page, url = app["page"], app["url"]
        yield App(front_end=front_end, go_dark=lambda: page.goto(f"{url}/?theme=dark"), **app)


@contextmanager
def marimo(browser: Browser, root: Path, front_end: str, mode: str) -> Iterator[Host]:
    """`mode`: "run" shows the app, "edit" the notebook."""
    (root / "app.py").write_text(MARIMO)
    (root / "pyproject.toml").write_text(
        '[tool.marimo.display]\ntheme = "system"\n[tool.marimo.runtime]\nauto_instantiate = true\n'
    )
    arguments = [mode, "app.py", "--headless", "--no-token", "--host=127.0.0.1", "--port={port}"]
    kind = {"run": App, "edit": MarimoNotebook}[mode]
    with _app(browser, root, "marimo", arguments, XDG_CONFIG_HOME=str(root)) as app:
        page = app["page"]
        yield kind(front_end=front_end, go_dark=lambda: page.emulate_media(color_scheme="dark"), **app)


@contextmanager
def solara(browser: Browser, root: Path, front_end: str) -> Iterator[Host]:
    (root / "app.py").write_text(SOLARA)
    arguments = ["run", "app.py", "--no-open", "--host=127.0.0.1", "--port={port}", "--production"]
    with _app(browser, root, "solara", arguments) as app:
        yield App(front_end=front_end, go_dark=app["page"].get_by_role("button", name="Dark").click, **app)


@contextmanager
def _app(
    browser: Browser, root: Path, module: str, arguments: list[str], **environment: str
) -> Iterator[dict[str, Any]]:
    """A server of one app, its address, and its page."""
    port = free_port()
    command = [sys.executable, "-m", module, *(argument.format(port=port) for argument in arguments)]
    url = f"http://127.0.0.1:{port}"
    with serving(command, url, root, **environment) as server, new_page(browser) as page:
        page.goto(url)
        yield {"server": server, "url": url, "page": page}


@contextmanager
def new_page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.set_default_navigation_timeout(120_000)  # Voila sends a page once all of its cells have run
    yield page
    context.close()


Driver = Callable[[Browser, Path, str], AbstractContextManager[Host]]

APPS: dict[str, Driver] = {
    names.VOILA: voila,
    names.MARIMO_RUN: partial(marimo, mode="run"),
    names.MARIMO_EDIT: partial(marimo, mode="edit"),
    names.SOLARA: solara,
}
