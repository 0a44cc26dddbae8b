"""One JupyterLab for each way of delivering comm messages, and a page in it for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser

from tests.browser.front_ends import MAIN_THREAD, SUBSHELLS
from tests.browser.lab.jupyterlab import Notebook, Server, serve


@pytest.fixture(scope="session")
def subshell_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("lab-subshells"), SUBSHELLS) as server:
        yield server


@pytest.fixture(scope="session")
def main_thread_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("lab-main"), MAIN_THREAD, subshells=False) as server:
        yield server


@pytest.fixture
def notebook(browser: Browser, subshell_server: Server) -> Iterator[Notebook]:
    """A page and a kernel of its own, with nothing open."""
    with opened(browser, subshell_server) as notebook:
        yield notebook


@pytest.fixture(scope="module", params=["subshells", "main-thread"])
def live_notebook(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Notebook]:
    """A notebook whose kernel has the demo session open; comm messages on a subshell, then on the main thread."""
    name = "subshell_server" if request.param == "subshells" else "main_thread_server"
    with opened(browser, request.getfixturevalue(name)) as notebook:
        notebook.create("import interpwidgets as iw\nsession = iw.load()")
        yield notebook


@pytest.fixture
def any_notebook(live_notebook: Notebook) -> Notebook:
    """The live notebook; what its console complains about is asked after each test."""
    assert not live_notebook.complaints, live_notebook.complaints
    return live_notebook


@contextmanager
def opened(browser: Browser, server: Server) -> Iterator[Notebook]:
    """A page on a server's notebooks."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(30_000)
    notebook = Notebook(page, server)
    yield notebook
    notebook.shut_down()
    context.close()
    assert not notebook.complaints, notebook.complaints
