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

from playwright.sync_api import Browser, Page

from tests.browser.hosts.scripts import CELLS, MARIMO, SOLARA
from tests.browser.lab.jupyterlab import Notebook, Widget, as_notebook, serve
from tests.browser.server import free_port, serving


@dataclass
class Host:
    """A page of a front end on which the three widgets are."""

    page: Page
    go_dark: Callable[[], Any]
    """Switches the front end to its dark theme, as its user would."""
    complaints: list[str] = field(default_factory=list)

    def widget(self, title: str) -> Widget:
        return Widget(self.page, self.page.get_by_role("figure", name=title))


@contextmanager
def jupyter(browser: Browser, root: Path, **server: Any) -> Iterator[Host]:
    """JupyterLab or Notebook 7, on a server with these settings."""
    with serve(root, **server) as running, _page(browser) as page:
        notebook = Notebook(page, running)
        notebook.create(*CELLS)
        go_dark = partial(notebook.command, "apputils:change-theme", theme="JupyterLab Dark")
        yield Host(page, go_dark, notebook.complaints)
        notebook.shut_down()


@contextmanager
def voila(browser: Browser, root: Path) -> Iterator[Host]:
    (root / "app.ipynb").write_text(json.dumps(as_notebook(CELLS)))
    arguments = ["app.ipynb", "--no-browser", "--Voila.ip=127.0.0.1", "--Voila.port={port}"]
    with _app(browser, root, "voila", arguments) as (page, url):
        yield _host(page, lambda: page.goto(f"{url}/?theme=dark"))


@contextmanager
def marimo(browser: Browser, root: Path, mode: str) -> Iterator[Host]:
    """`mode`: "run" shows the app, "edit" the notebook."""
    (root / "app.py").write_text(MARIMO)
    (root / "pyproject.toml").write_text('[tool.marimo.display]\ntheme = "system"\n[tool.marimo.runtime]\nauto_instantiate = true\n')
    arguments = [mode, "app.py", "--headless", "--no-token", "--host=127.0.0.1", "--port={port}"]
    with _app(browser, root, "marimo", arguments, XDG_CONFIG_HOME=str(root)) as (page, _):
        yield _host(page, lambda: page.emulate_media(color_scheme="dark"))


@contextmanager
def solara(browser: Browser, root: Path) -> Iterator[Host]:
    (root / "app.py").write_text(SOLARA)
    arguments = ["run", "app.py", "--no-open", "--host=127.0.0.1", "--port={port}", "--production"]
    with _app(browser, root, "solara", arguments) as (page, _):
        yield _host(page, page.get_by_role("button").first.click)


@contextmanager
def _app(
    browser: Browser, root: Path, module: str, arguments: list[str], **environment: str
) -> Iterator[tuple[Page, str]]:
    """A server of one app, and its page."""
    port = free_port()
    command = [sys.executable, "-m", module, *(argument.format(port=port) for argument in arguments)]
    url = f"http://127.0.0.1:{port}"
    with serving(command, url, root, **environment), _page(browser) as page:
        page.goto(url)
        yield page, url


@contextmanager
def _page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(30_000)
    yield page
    context.close()


def _host(page: Page, go_dark: Callable[[], Any]) -> Host:
    host = Host(page, go_dark)
    page.on("pageerror", lambda error: host.complaints.append(str(error)))
    page.on("console", lambda m: host.complaints.append(m.text) if m.type == "error" else None)
    return host


Driver = Callable[[Browser, Path], AbstractContextManager[Host]]

HOSTS: dict[str, Driver] = {
    "JupyterLab 4": partial(jupyter, subshells=True),
    "Notebook 7": partial(jupyter, subshells=True, app="notebook"),
    "Voila": voila,
    "marimo run": partial(marimo, mode="run"),
    "marimo edit": partial(marimo, mode="edit"),
    "Solara": solara,
}
