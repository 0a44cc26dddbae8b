"""The browser of the tests and of the commands that draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.provide_chromium import find_chromium

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-lcd-text"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, as long as the block runs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=_FLAGS)
        yield browser
        browser.close()
