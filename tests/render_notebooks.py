"""Runs notebooks, all by default, and keeps their static first frames, without widget state.

`python -m tests.render_notebooks [notebook ...]`
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


# A display waits a few seconds for its still picture; here it is the picture that counts.
_PATIENT = "from interpwidgets.widgets import base; base._FIRST_FRAME_SECONDS = 300.0"


def render(path: Path) -> None:
    """Execute a notebook in place; outputs keep what GitHub and nbviewer can show."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=[f"--IPKernelApp.exec_lines={_PATIENT}"], coalesce_streams=True,
    ).execute()  # fmt: skip
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _stays(output)]
    nbformat.write(notebook, path)


def _stays(output: dict) -> bool:
    """Drop what only the kernel that has ended could show: progress bars, notices, widgets without a still picture."""
    data = output.get("data", {})
    was_widget = data.pop("application/vnd.jupyter.widget-view+json", None) is not None
    return output.get("name") != "stderr" and not (was_widget and "text/html" not in data)


if __name__ == "__main__":
    for notebook_path in [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        render(notebook_path)
        print(notebook_path.name, f"{notebook_path.stat().st_size / 1000:.0f} kB")
