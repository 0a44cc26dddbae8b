"""Opens the harness page, mounts a widget's module on a state, and reads back what it sent."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from interpwidgets.widgets.esm import bundle, stylesheet

SCREENSHOTS = Path(__file__).parents[1] / "screenshots"
_PAGE = """<!doctype html><html lang="en"><title>harness</title>
<body data-jp-theme-light="true" style="margin: 8px"><main></main></body></html>"""


@dataclass
class Mounted:
    """A widget on the harness page."""

    page: Page

    def push(self, **traits: Any) -> None:
        """Python changes these traits in one message."""
        self.page.evaluate("(traits) => harness.model.push(traits)", traits)

    def sent(self, name: str) -> list[Any]:
        """Every value of this trait that the widget sent to Python, oldest first."""
        messages = self.page.evaluate("() => harness.model.sent")
        return [message[name] for message in messages if name in message]

    def requests(self) -> list[dict[str, Any]]:
        """The requests that were sent, oldest first, without the unanswered ones that each carries along."""
        return [{k: v for k, v in request.items() if k != "before"} for request in self.sent("_request")]

    def answer(self, state: str = "idle", **more: Any) -> None:
        """Python acknowledges the newest request."""
        self.push(_status={**IDLE, "id": self.requests()[-1]["id"], "state": state, **more})

    def theme(self, dark: bool) -> None:
        """The host changes its theme, as JupyterLab does."""
        self.page.evaluate(
            "(dark) => { document.body.dataset.jpThemeLight = String(!dark);"
            " document.body.style.background = dark ? '#0e1115' : '#fff'; }",
            dark,
        )

    def settle(self) -> None:
        """Wait until what was asked for has been drawn."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
        )

    def pixel(self, label: str, x: float, y: float) -> list[int]:
        """RGBA of a grid's canvas at a point in CSS pixels."""
        return (
            self.page.get_by_role("grid", name=label)
            .locator("canvas")
            .evaluate(
                "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData("
                "x * devicePixelRatio, y * devicePixelRatio, 1, 1).data]",
                [x, y],
            )
        )

    def screenshot(self, name: str) -> None:
        """Keep a picture for people to look at."""
        self.settle()
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


IDLE: dict[str, Any] = {
    "id": 0,
    "state": "idle",
    "done": 0,
    "total": 0,
    "message": "",
    "ms": 0,
    "error": None,
}


def mount(page: Page, entry: str, state: dict[str, Any], **options: Any) -> Mounted:
    """Show `entry`'s widget on `state`; options are `form` (of binary traits) and `signal`."""
    page.set_content(_PAGE)
    page.add_script_tag(content=(Path(__file__).parent / "page.js").read_text(encoding="utf-8"))
    return mount_beside(page, entry, state, **options)


def mount_beside(page: Page, entry: str, state: dict[str, Any], **options: Any) -> Mounted:
    """Show another widget below those that are there; `Mounted` speaks to the newest."""
    spec = {"esm": bundle(entry), "css": stylesheet(entry.replace(".js", ".css")), "state": state, **options}
    page.evaluate("(spec) => harness.mount(spec)", spec)
    mounted = Mounted(page)
    mounted.settle()
    return mounted


def state_of(widget: Any) -> dict[str, Any]:
    """A real widget's traits, as the harness page takes them."""
    return {k: as_sent(v) for k, v in widget.get_state().items() if k not in ("_esm", "_css")}


def as_sent(value: Any) -> Any:
    """A trait's value as the harness page takes it."""
    if isinstance(value, dict) and "view" in value:
        rest = {k: v for k, v in value.items() if k != "view"}
        return rest | {"base64": base64.b64encode(value["view"]).decode()}
    if isinstance(value, dict):
        return {k: as_sent(v) for k, v in value.items()}
    return [as_sent(v) for v in value] if isinstance(value, list | tuple) else value
