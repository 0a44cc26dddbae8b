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
from tests.browser.lab.jupyterlab import Notebook, Widget, as_notebook, collect_complaints, serve
from tests.browser.server import free_port, serving


@dataclass
class Host:
    """A page of a front end on which the three widgets are."""

    front_end: str
    """Its row in README's table."""
    page: Page
    go_dark: Callable[[], Any]
    """Switches the front end to its dark theme, as its user would."""
    save: Callable[[], Any] = lambda: None
    """Saves the notebook, where that takes a command."""
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        collect_complaints(self.page, self.complaints)

    def widget(self, title: str) -> Widget:
        return Widget(self.page, self.page.get_by_role("figure", name=title))

    def see(self, title: str) -> Widget:
        """A widget, fresh, and on the screen: what is not may draw nothing."""
        widget = self.widget(title)
        expect(widget.root).to_be_attached(timeout=120_000)
        widget.root.scroll_into_view_if_needed()
        widget.fresh()
        return widget


@contextmanager
def jupyter(browser: Browser, root: Path, front_end: str, **server: Any) -> Iterator[Host]:
    """JupyterLab or Notebook 7, on a server with these settings."""
    with serve(root, front_end, **server) as running, new_page(browser) as page:
        notebook = Notebook(page, running)
        notebook.create(*CELLS)
        go_dark = partial(notebook.command, "apputils:change-theme", theme="JupyterLab Dark")
        save = partial(notebook.command, "docmanager:save")
        yield Host(front_end, page, go_dark, save)
        notebook.shut_down()


@contextmanager
def voila(browser: Browser, root: Path, front_end: str) -> Iterator[Host]:
    (root / "app.ipynb").write_text(json.dumps(as_notebook(CELLS)))
    arguments = ["app.ipynb", "--no-browser", "--Voila.ip=127.0.0.1", "--Voila.port={port}"]
    with _app(browser, root, "voila", arguments) as (page, url):
        yield Host(front_end, page, lambda: page.goto(f"{url}/?theme=dark"))


@contextmanager
def marimo(browser: Browser, root: Path, front_end: str, mode: str) -> Iterator[Host]:
    """`mode`: "run" shows the app, "edit" the notebook."""
    (root / "app.py").write_text(MARIMO)
    (root / "pyproject.toml").write_text(
        '[tool.marimo.display]\ntheme = "system"\n[tool.marimo.runtime]\nauto_instantiate = true\n'
    )
    arguments = [mode, "app.py", "--headless", "--no-token", "--host=127.0.0.1", "--port={port}"]
    with _app(browser, root, "marimo", arguments, XDG_CONFIG_HOME=str(root)) as (page, _):
        yield Host(front_end, page, lambda: page.emulate_media(color_scheme="dark"))


@contextmanager
def solara(browser: Browser, root: Path, front_end: str) -> Iterator[Host]:
    (root / "app.py").write_text(SOLARA)
    arguments = ["run", "app.py", "--no-open", "--host=127.0.0.1", "--port={port}", "--production"]
    with _app(browser, root, "solara", arguments) as (page, _):
        yield Host(front_end, page, page.get_by_role("button", name="Dark").click)


@contextmanager
def _app(
    browser: Browser, root: Path, module: str, arguments: list[str], **environment: str
) -> Iterator[tuple[Page, str]]:
    """A server of one app, and its page."""
    port = free_port()
    command = [sys.executable, "-m", module, *(argument.format(port=port) for argument in arguments)]
    url = f"http://127.0.0.1:{port}"
    with serving(command, url, root, **environment), new_page(browser) as page:
        page.goto(url)
        yield page, url


@contextmanager
def new_page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(30_000)
    yield page
    context.close()


Driver = Callable[[Browser, Path, str], AbstractContextManager[Host]]

HOSTS: dict[str, Driver] = {
    names.SUBSHELLS: jupyter,
    names.MAIN_THREAD: partial(jupyter, subshells=False),
    names.NOTEBOOK: partial(jupyter, app="notebook"),
    names.VOILA: voila,
    names.MARIMO_RUN: partial(marimo, mode="run"),
    names.MARIMO_EDIT: partial(marimo, mode="edit"),
    names.SOLARA: solara,
}
