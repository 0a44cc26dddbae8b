"""From a fresh clone to the first answered click, as README says it: `python -m tests.stopwatch`, with seconds.

Installs into a temporary folder, with a model cache of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import expect

from tests.browser.harness.chromium import chromium
from tests.browser.server import REPOSITORY, free_port

_URL = re.compile(r"http://\S+token=\w+")
_CELLS = 7  # of the tour, up to the first picture


def main() -> None:
    with TemporaryDirectory() as folder:
        started = time.monotonic()

        def say(what: str) -> None:
            print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)

        clone = Path(folder) / "interpwidgets"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        say("cloned")
        environment = os.environ | {
            "HEADLESS": "1",
            "PORT": str(free_port()),
            "INTERPWIDGETS_CACHE": str(clone.parent / "cache"),
        }
        with subprocess.Popen(
            ["make", "demo"], cwd=clone, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as demo:  # fmt: skip
            try:
                found = next(filter(None, map(_URL.search, demo.stdout or ())), None)
                if found is None:
                    raise RuntimeError("make demo ended without a URL")
                say("make demo: JupyterLab is up")
                _click(found[0], say)
            finally:
                os.killpg(demo.pid, signal.SIGTERM)


def _click(url: str, say) -> None:
    """Open the tour, run it up to the first picture, and press its button."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(url)
        page.locator(".jp-Notebook .jp-Cell").first.click()
        say("the tour is open")
        for _ in range(_CELLS):
            page.keyboard.press("Shift+Enter")
        page.get_by_role("button", name="Ablate L20H0", exact=True).click()
        say("Ablate L20H0 is pressed")
        widget = page.get_by_role("figure", name="Attention pattern").first
        expect(widget.get_by_role("button", name="Restore L20H0", exact=True)).to_be_visible(timeout=60_000)
        expect(widget).to_have_attribute("data-state", "fresh", timeout=60_000)
        mary = widget.get_by_role("table", name="Predictions").locator("tr", has_text="Mary")
        say("answered: " + " ".join(mary.inner_text().split()))


if __name__ == "__main__":
    main()
