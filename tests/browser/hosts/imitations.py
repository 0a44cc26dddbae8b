"""Two front ends that cannot run here, imitated as far as a page of our own can be: VS Code and Colab.

Both put outputs into frames of another origin (here: sandboxed without `allow-same-origin`), and hand the page's
messages to the kernel only between cells. The kernel is this process: real widgets on a real model. What is imitated,
and how it is known:

- VS Code: one webview for all outputs, `data-vscode-theme-kind` and a class on its body, `--vscode-*` variables on its
  root (Visual Studio Code's webview API); no subshells and no saved state (vscode-jupyter issue 4404). A widget that
  the kernel has not told this window of is shown as its output's next MIME type, our HTML (`FallbackRenderer` in
  vscode-jupyter, src/webviews/webview-side/ipywidgets/renderer/index.ts).
- Colab: a frame for each output, each with models of its own, `html[theme=dark]`, ipywidgets 7 in the kernel, which
  echoes nothing; binary values as ArrayBuffers, and on some paths not at all, so that base64 has to do (issues 8 and 33
  of colab-cdn-widget-manager). A notebook that is opened again has its models' state from its file, and no comm
  (`ModelState` in that project's src/api.ts): ipywidgets then sends nothing.

Not imitated: how either finds anywidget's own code (VS Code in the kernel's environment or from a CDN, Colab from a
CDN), and content security policies.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets.widgets.widget
import pytest
from playwright.sync_api import Browser, Locator

import interpwidgets as iw
from interpwidgets.widgets.base import LiveWidget
from tests.browser import front_ends as names
from tests.browser.harness.kernel import Kernel, Message
from tests.browser.hosts.drivers import Driver, Host, new_page
from tests.browser.hosts.scene import make_widgets, open_session
from tests.browser.lab.jupyterlab import Widget

_HARNESS = Path(__file__).parents[1] / "harness"
_VS_CODE_THEME = """
window.setTheme = (dark) => {
  const { body, documentElement: html } = document;
  body.className = `vscode-body ${dark ? "vscode-dark" : "vscode-light"}`;
  body.dataset.vscodeThemeKind = dark ? "vscode-dark" : "vscode-light";
  html.style.setProperty("--vscode-editor-background", dark ? "#1f1f1f" : "#ffffff");
  html.style.setProperty("--vscode-foreground", dark ? "#cccccc" : "#3b3b3b");
};
"""
_COLAB_THEME = """
window.setTheme = (dark) => {
  document.documentElement.toggleAttribute("theme", dark);
  if (dark) document.documentElement.setAttribute("theme", "dark");
};
"""


@dataclass(kw_only=True)
class Framed(Host):
    """A host whose widgets are in frames: one for each view (`per_output`), or one for all."""

    kernel: Kernel
    theme: str
    form: str
    """Of binary values: "DataView", "ArrayBuffer", "base64", or "none" where they get lost."""
    per_output: bool
    keeps_state: bool
    """Whether a notebook's file has the state of its widgets."""
    session: iw.Session = field(default_factory=open_session)
    widgets: tuple[LiveWidget, ...] = ()

    def widget(self, title: str, nth: int = 0) -> Widget:
        figures = self.frame(title, nth).content_frame.get_by_role("figure", name=title)
        return Widget(self.page, figures.nth(0 if self.per_output else nth))

    def see(self, title: str, nth: int = 0) -> Widget:
        # Chromium stops the clock of drawing in a frame of another origin that is not on the screen.
        self.frame(title, nth).scroll_into_view_if_needed()
        return super().see(title, nth)

    def frame(self, title: str, nth: int = 0) -> Locator:
        """The frame of a widget's nth view."""
        place = [widget.title for widget in self.widgets].index(title) + nth * len(self.widgets)
        return self.page.locator("iframe").nth(place if self.per_output else 0)

    def running_a_cell(self) -> AbstractContextManager[None]:
        return self.kernel.running_a_cell()

    def end_kernel(self, how: str) -> None:
        self.kernel.end(restarted=how == "restart")
        self.session.close()

    def run_again(self) -> None:
        # Or it would take what is said to the new one.
        self.page.goto("about:blank")
        if self.kernel.ended:
            self.kernel.start()
            self.session = open_session()
        self.widgets = make_widgets(self.session)
        for widget in self.widgets:
            widget._repr_mimebundle_()
        self._open([{"id": widget.model_id} for widget in self.widgets])

    def reload(self) -> None:
        self.page.goto("about:blank")
        if self.keeps_state:
            self._open([{"id": widget.model_id} for widget in self.widgets], [*map(_saved, self.widgets)])
        else:
            bundles = (widget._repr_mimebundle_() for widget in self.widgets)
            self._open([{"html": data["text/html"]} for data, _ in bundles], [])

    def _open(self, outputs: list[dict[str, str]], saved: list[Message] | None = None) -> None:
        """Open the notebook, with two views of each output; `saved`: without a kernel, on what its file says."""
        self.page.set_content('<!doctype html><html lang="en"><title>notebook</title><body></body></html>')
        self.page.add_script_tag(content=(_HARNESS / "outputs.js").read_text(encoding="utf-8"))
        spec: dict[str, Any] = {
            "script": self.theme + (_HARNESS / "output_frame.js").read_text(encoding="utf-8"),
            "outputs": 2 * outputs, "perOutput": self.per_output, "form": self.form, "saved": saved,
        }  # fmt: skip
        self.page.evaluate("(spec) => void window.openNotebook(spec)", spec)
        self.page.evaluate("window.setTheme(false)")


def _saved(widget: LiveWidget) -> Message:
    """What a notebook's file says of a widget."""
    state, paths, buffers = ipywidgets.widgets.widget._remove_buffers(widget.get_state())
    encoded = [base64.b64encode(buffer).decode() for buffer in buffers]
    data = {"state": state, "buffer_paths": paths}
    return {"type": "comm_open", "comm": widget.model_id, "data": data, "buffers": encoded}


@contextmanager
def framed(browser: Browser, _root: Path, front_end: str, *, echo: bool, **kind: Any) -> Iterator[Framed]:
    """A page of sandboxed outputs; `echo`: whether the kernel repeats what the page says."""
    with pytest.MonkeyPatch.context() as patch, new_page(browser) as page:
        patch.setattr(ipywidgets.widgets.widget, "JUPYTER_WIDGETS_ECHO", echo)
        kernel = Kernel(patch)
        kernel.serve(page)
        go_dark = partial(page.evaluate, "window.setTheme(true)")
        host = Framed(front_end=front_end, page=page, go_dark=go_dark, kernel=kernel, **kind)
        host.run_again()
        yield host
        host.session.close()


vs_code = partial(framed, theme=_VS_CODE_THEME, form="DataView", per_output=False, echo=True, keeps_state=False)
_COLAB = partial(framed, theme=_COLAB_THEME, per_output=True, echo=False, keeps_state=True)

KEEPS_NO_STATE: dict[str, Driver] = {names.VS_CODE: vs_code}
KEEPS_STATE: dict[str, Driver] = {
    names.COLAB: partial(_COLAB, form="ArrayBuffer"),
    names.COLAB_BASE64: partial(_COLAB, form="base64"),
}
IMITATIONS = KEEPS_NO_STATE | KEEPS_STATE
