"""What widgets add to a saved notebook: twenty of them, on the demo model, with and without widget state."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient

REPORT = Path(__file__).parents[2] / "test-report" / "notebook-growth.md"
IOI = "When John and Mary went to the store, John gave a drink to"
CLEAN = "When John and Mary went to the store, Mary gave the bag to"
SETUP = f"import interpwidgets as iw\nsession = iw.load()\nIOI, CLEAN = {IOI!r}, {CLEAN!r}\nkept = []"
CELLS = [
    "w = iw.AttentionPattern(session, IOI, layer={i}, head=3); w.wait(60); kept.append(w)\nw",
    "w = iw.LogitLens(session, IOI, tracked=[session.token_id(' Mary')]); w.wait(60); kept.append(w)\nw",
    "w = iw.PatchingHeatmap(session, clean=CLEAN, corrupted=CLEAN.replace('Mary gave', 'John gave'), site='attn_out')\n"
    "w.wait(120); kept.append(w)\nw",
]
MOST = 3_000_000
MOST_WITH_STATE = 4_000_000  # every widget's state has its module and style sheet once more


class Growth(NamedTuple):
    """What widgets add to a saved notebook."""

    widgets: int
    shown: int
    """Widgets with a still picture."""
    without: int
    """Bytes, without the widgets' state."""
    with_state: int

    def __str__(self) -> str:
        return (
            f"{self.widgets} widgets of 15 tokens on the demo model, a head ablated, add {self.without / 1e6:.2f} MB "
            f"to a saved notebook, and {self.with_state / 1e6:.2f} MB if the widgets' state is saved too."
        )


def growth(folder: Path, widgets: int = 20) -> Growth:
    """Run a notebook with this many widgets, and save it in the folder."""
    sources = [SETUP, "session.interventions.append(iw.Ablate('z', layer=23, head=3))"]
    sources += [CELLS[i % 3].format(i=i) for i in range(widgets)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    file = folder / "widgets.ipynb"
    nbformat.write(notebook, file)
    before = file.stat().st_size
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    nbformat.write(notebook, file)
    with_state = file.stat().st_size - before
    notebook.metadata.pop("widgets")
    nbformat.write(notebook, file)
    shown = sum("text/html" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    return Growth(widgets, shown, file.stat().st_size - before, with_state)


def test_twenty_widgets_add_less_than_three_megabytes_to_a_notebook(tmp_path: Path) -> None:
    found = growth(tmp_path)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(f"{found}\n", encoding="utf-8")
    print(found)
    assert found.shown == 20
    assert found.without < MOST
    assert found.with_state < MOST_WITH_STATE
