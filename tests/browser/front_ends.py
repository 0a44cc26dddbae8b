"""The front ends and what is tried in them: the rows and columns of README's table."""

from __future__ import annotations

SUBSHELLS = "JupyterLab 4, ipykernel 7 on subshells"
MAIN_THREAD = "JupyterLab 4, ipykernel 7 on the main thread"
KERNEL_6 = "JupyterLab 4, ipykernel 6"
NOTEBOOK = "Notebook 7"
VOILA = "Voila"
MARIMO_RUN = "marimo run"
MARIMO_EDIT = "marimo edit"
SOLARA = "Solara"
VS_CODE = "VS Code (imitated)"
COLAB = "Colab (imitated)"
COLAB_BASE64 = "Colab (imitated), buffers as base64"

FRONT_ENDS = (
    SUBSHELLS, MAIN_THREAD, KERNEL_6, NOTEBOOK, VOILA, MARIMO_RUN, MARIMO_EDIT, SOLARA, VS_CODE, COLAB,
    COLAB_BASE64,
)  # fmt: skip

KERNELS = {"subshells": SUBSHELLS, "main-thread": MAIN_THREAD, "ipykernel-6": KERNEL_6}
"""How a kernel takes a page's messages in JupyterLab, by the names of the tests' cases."""

PICTURES = "pictures"
CLICK = "a click runs the model"
LINKED = "widgets follow each other"
THEME = "dark theme"
RELOAD = "page reload"
BUSY = "clicks during a cell"
VIEWS = "two views of each"
RESTART = "kernel restart and death"

ABILITIES = (PICTURES, CLICK, LINKED, THEME, RELOAD, BUSY, VIEWS, RESTART)

CANNOT_BE = {(front_end, BUSY): "has no cells" for front_end in (VOILA, MARIMO_RUN, SOLARA)}
"""Why a cell of the table is not tried: the front end has no such thing."""

SHOWS = {
    (VS_CODE, RELOAD): "still picture",
    (COLAB, RELOAD): "saved picture",
    (COLAB_BASE64, RELOAD): "saved picture",
    **{(front_end, RESTART): "death" for front_end in (VOILA, MARIMO_RUN, MARIMO_EDIT, SOLARA)},
}
"""What the tests of a cell show where that is less than in the other front ends."""

IN_JUPYTERLAB_ONLY = (
    "*Create New View for Output*",
    "cells that are scrolled out of the window and back",
    "a connection that drops and comes back",
    "a second notebook on the same server",
    "a `Workbench`, and with it `iw.link`",
)
"""What has no column, because it is tried in one front end alone (tests/browser/lab)."""
