"""Finds a Chromium for the browser tests, or installs one where that needs nobody's permission.

`python tests/provide_chromium.py` prints its path; tests import `find_chromium`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> Path | None:
    """The Chromium named by the environment variable CHROMIUM, on the PATH, or downloaded by Playwright."""
    named = os.environ.get("CHROMIUM")
    if named:
        if shutil.which(named) is None:
            raise SystemExit(f"CHROMIUM={named} is not a program.")
        return Path(named)
    on_path = next(filter(None, map(shutil.which, NAMES)), None)
    if on_path:
        return Path(on_path)
    with sync_playwright() as playwright:
        downloaded = Path(playwright.chromium.executable_path)
    return downloaded if downloaded.exists() else None


def install_chromium() -> None:
    """Install one: from Debian's packages as root on Debian, else with Playwright's own downloader."""
    if os.geteuid() == 0 and is_debian():
        run("apt-get", "update")
        run("apt-get", "install", "--yes", "--no-install-recommends", "chromium")
    else:
        run(sys.executable, "-m", "playwright", "install", "chromium")


def is_debian() -> bool:
    """Whether this is Debian itself: Ubuntu's chromium package is a snap, which containers cannot run."""
    return sys.platform == "linux" and platform.freedesktop_os_release().get("ID") == "debian"


def run(*command: str) -> None:
    """Run a command, its output on stderr; a failure is found by looking for the browser afterwards."""
    print("+", *command, file=sys.stderr)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, stdout=sys.stderr, env=environment, check=False)


def provide_chromium() -> Path:
    """A Chromium that starts. Exits with what to install where there is none."""
    if find_chromium() is None:
        install_chromium()
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(
            "The browser tests need Chromium or Chrome. Install one with your system's package manager\n"
            "(chromium, chromium-browser or google-chrome), or set CHROMIUM to its path, and run this again."
        )
    subprocess.run([chromium, "--version"], stdout=sys.stderr, check=True)
    return chromium


if __name__ == "__main__":
    print(provide_chromium())
