"""One Chromium for all browser tests, and for each a fresh page whose console must stay free of errors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests import hosts_table
from tests.browser.harness.chromium import chromium
from tests.browser.lab.servers import SERVERS, Server, serve


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Keep how each test of README's table of front ends has ended."""
    report = yield
    mark = item.get_closest_marker("works")
    if mark is not None and (report.when == "call" or report.failed):
        used = getattr(item, "funcargs", {}).values()
        front_end = next((each.front_end for each in used if hasattr(each, "front_end")), None)
        if front_end is not None:
            hosts_table.record(front_end, mark.args[0], item.nodeid, report.outcome)
    return report


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def jupyter(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Gives the one server of a front end, started when a test first asks for it."""
    with ExitStack() as running:

        @cache
        def server(front_end: str) -> Server:
            root = tmp_path_factory.mktemp("jupyter")
            return running.enter_context(serve(browser, root, front_end, **SERVERS[front_end]))

        yield server


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 920, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(8000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert not complaints, complaints
