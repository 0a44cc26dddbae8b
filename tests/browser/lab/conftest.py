"""Notebooks in JupyterLab: one for each way of delivering comm messages, and fresh ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.browser.front_ends import KERNELS, SUBSHELLS
from tests.browser.lab.jupyterlab import Notebook, open_page
from tests.browser.lab.servers import Server

SESSION = "import interpwidgets as iw\nsession = iw.load()"


@pytest.fixture
def notebook(jupyter: Callable[[str], Server]) -> Iterator[Notebook]:
    """A page and a kernel of its own, with nothing open."""
    with open_page(jupyter(SUBSHELLS)) as notebook:
        yield notebook
        assert not notebook.complaints, notebook.complaints


@pytest.fixture(scope="session", params=KERNELS)
def live_notebook(request: pytest.FixtureRequest, jupyter: Callable[[str], Server]) -> Iterator[Notebook]:
    """A notebook whose kernel has the demo session open, for each way of delivering comm messages."""
    with open_page(jupyter(KERNELS[request.param])) as notebook:
        notebook.create(SESSION)
        yield notebook


@pytest.fixture
def live_kernel(live_notebook: Notebook) -> str:
    """How the live notebook's kernel takes the page's messages, of `KERNELS`."""
    return next(name for name, front_end in KERNELS.items() if front_end == live_notebook.front_end)


@pytest.fixture
def any_notebook(live_notebook: Notebook) -> Iterator[Notebook]:
    """The live notebook; what its console complains about is asked after each test."""
    yield live_notebook
    assert not live_notebook.complaints, live_notebook.complaints
