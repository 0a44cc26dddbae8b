"""Two front ends that cannot run here, imitated as far as a page of our own can be: VS Code and Colab.

Both put outputs into frames of another origin (here: sandboxed without `allow-same-origin`), keep no widget state of
their own, and hand the page's messages to the kernel only between cells. The kernel is this process: real widgets on a
real model. What is imitated, and how it is known:

- VS Code: one webview for all outputs, `data-vscode-theme-kind` and a class on its body, `--vscode-*` variables on its
  root (Visual Studio Code's webview API); no subshells and no saved state (vscode-jupyter issue 4404).
- Colab: a frame for each output, `html[theme=dark]`, ipywidgets 7 in the kernel, which echoes nothing; binary values as
  ArrayBuffers, and on some paths not at all, so that base64 has to do (issues 8 and 33 of colab-cdn-widget-manager).

Not imitated: how either finds anywidget's own code (VS Code in the kernel's environment or from a CDN, Colab from a
CDN), and content security policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets.widgets.widget
import pytest
from playwright.sync_api import Browser, Locator

import interpwidgets as iw
from tests.browser import front_ends as names
from tests.browser.harness.kernel import Kernel
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


class Framed(Host):
    """A host whose widgets are in frames, of which the nth has the nth of `titles`; or all in one."""

    kernel: Kernel
    session: iw.Session
    titles: list[str]
    per_output: bool

    def widget(self, title: str) -> Widget:
        return Widget(self.page, self._frame(title).content_frame.get_by_role("figure", name=title))

    def see(self, title: str) -> Widget:
        # Chromium stops the clock of drawing in a frame of another origin that is not on the screen.
        self._frame(title).scroll_into_view_if_needed()
        return super().see(title)

    def _frame(self, title: str) -> Locator:
        return self.page.locator("iframe").nth(self.titles.index(title) if self.per_output else 0)


@contextmanager
def framed(
    browser: Browser, _root: Path, front_end: str, *, theme: str, form: str, per_output: bool, echo: bool
) -> Iterator[Framed]:
    """A page of sandboxed outputs. `form`: of binary values; `echo`: whether the kernel repeats what the page says."""
    with pytest.MonkeyPatch.context() as patch, new_page(browser) as page:
        patch.setattr(ipywidgets.widgets.widget, "JUPYTER_WIDGETS_ECHO", echo)
        kernel = Kernel(patch)
        kernel.serve(page)
        session = open_session()
        widgets = make_widgets(session)
        for widget in widgets:
            widget._repr_mimebundle_()
        host = Framed(front_end, page, lambda: page.evaluate("window.setTheme(true)"))
        host.kernel, host.session, host.per_output = kernel, session, per_output
        host.titles = [widget.title for widget in widgets]
        page.set_content('<!doctype html><html lang="en"><title>notebook</title><body></body></html>')
        page.add_script_tag(content=(_HARNESS / "outputs.js").read_text(encoding="utf-8"))
        spec: dict[str, Any] = {
            "script": theme + (_HARNESS / "output_frame.js").read_text(encoding="utf-8"),
            "outputs": [widget.model_id for widget in widgets], "perOutput": per_output, "form": form,
        }  # fmt: skip
        page.evaluate("(spec) => void window.openNotebook(spec)", spec)
        page.evaluate("window.setTheme(false)")
        yield host
        session.close()


_COLAB = partial(framed, theme=_COLAB_THEME, per_output=True, echo=False)

IMITATIONS: dict[str, Driver] = {
    names.VS_CODE: partial(framed, theme=_VS_CODE_THEME, form="DataView", per_output=False, echo=True),
    names.COLAB: partial(_COLAB, form="ArrayBuffer"),
    names.COLAB_BASE64: partial(_COLAB, form="base64"),
}
