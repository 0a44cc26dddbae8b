"""The same three widgets, twice, as each front end wants them written: notebook cells, a marimo app, a Solara app."""

from __future__ import annotations

CELLS = (
    "from tests.browser.hosts.scene import make_widgets, open_session\n"
    "session = open_session()\nattention, lens, heatmap = make_widgets(session)",
    *2 * ("attention", "lens", "heatmap"),
)

MARIMO = """\
import marimo

app = marimo.App(width="full")


@app.cell
def _():
    import marimo as mo
    from tests.browser.hosts.scene import make_widgets, open_session

    attention, lens, heatmap = make_widgets(open_session())
    return attention, heatmap, lens, mo


@app.cell
def _(mo):
    keep = mo.ui.checkbox(label="Keep a cell running")
    keep
    return (keep,)


@app.cell
def _(keep):
    import pathlib
    import time

    if keep.value:
        print("the", "cell", "runs")
        while not pathlib.Path("gate").exists():
            time.sleep(0.02)
    return


@app.cell
def _(attention, mo):
    mo.ui.anywidget(attention)
    return


@app.cell
def _(lens, mo):
    mo.ui.anywidget(lens)
    return


@app.cell
def _(heatmap, mo):
    mo.ui.anywidget(heatmap)
    return


@app.cell
def _(attention, mo):
    mo.ui.anywidget(attention)
    return


@app.cell
def _(lens, mo):
    mo.ui.anywidget(lens)
    return


@app.cell
def _(heatmap, mo):
    mo.ui.anywidget(heatmap)
    return


if __name__ == "__main__":
    app.run()
"""

# One model for all readers, widgets for each: Solara runs every page's kernel in the one process of the server.
SOLARA = """\
import solara
import solara.lab
from tests.browser.hosts.scene import make_widgets, open_session

session = open_session()


@solara.component
def Page():
    widgets = solara.use_memo(lambda: make_widgets(session), [])
    solara.Button("Dark", on_click=lambda: setattr(solara.lab.theme, "dark", True))
    for widget in (*widgets, *widgets):
        solara.display(widget)
"""
