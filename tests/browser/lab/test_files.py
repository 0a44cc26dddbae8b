"""The Save menu in real JupyterLab: files come down, also while the kernel has nothing else to do than answer."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.lab.test_clicks import ATTENTION, ONE_KERNEL, ablated

ITEMS = {
    "Picture (PNG)": b"\x89PNG", "Picture (SVG)": b"<svg", "Numbers (CSV)": b"stack,layer,head",
    "Page without a kernel (HTML)": b"<!doctype html>",
}  # fmt: skip


@ONE_KERNEL
def test_every_kind_of_file_is_saved(any_notebook, tmp_path):
    notebook = any_notebook
    notebook.show(ATTENTION)
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    saved: dict[str, Path] = {}
    for item, start in ITEMS.items():
        widget.button("Save").click()
        with notebook.page.expect_download() as download:
            widget.root.get_by_role("dialog", name="Save as").get_by_role("button", name=item).click()
        saved[item] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[item])
        assert saved[item].read_bytes().startswith(start), item
    assert {file.suffix for file in saved.values()} == {".png", ".svg", ".csv", ".html"}
    with saved["Numbers (CSV)"].open(encoding="utf-8") as file:
        row = next(line for line in csv.DictReader(file) if (line["query"], line["key"]) == ("2", "1"))
    said = notebook.execute("print(repr(float(iw.attention_patterns(session, attention._tokens.given)[23, 3, 2, 1])))")
    assert abs(float(row["weight"]) - float(said)) < 1e-7
    assert notebook.execute("print(attention._saved)").strip() == "{}"


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_python_saves_what_is_seen_at_once_or_once_its_cell_has_ended(any_notebook, live_kernel, tmp_path, kind):
    notebook = any_notebook
    notebook.show(ATTENTION)
    widget, _ = ablated(notebook)
    widget.button("Save").click()
    with notebook.page.expect_download() as download:
        widget.root.get_by_role("button", name=f"Picture ({kind.upper()})").click()
    file = tmp_path / f"asked.{kind}"
    said = notebook.execute(
        f"print(attention.save_as_seen({str(file)!r}), __import__('os').path.exists({str(file)!r}))"
    )
    assert said.split() == 2 * [str(live_kernel == "subshells")]
    while notebook.execute("print(attention._to_save)").strip() != "[]":
        pass
    assert file.read_bytes() == Path(download.value.path()).read_bytes()


@ONE_KERNEL
def test_a_cell_shows_a_widget_and_saves_what_is_seen(any_notebook, tmp_path):
    notebook = any_notebook
    file = tmp_path / "seen.svg"
    # The page lets its subshell go with its last widget, and asks for another one when it is told of the next.
    notebook.execute("import ipywidgets; ipywidgets.Widget.close_all()")
    notebook.show(f"{ATTENTION.removesuffix('attention')}display(attention)\nattention.save_as_seen({str(file)!r})")
    expect(notebook.page.locator(".jp-OutputArea-output").last).to_have_text("True")
    assert file.read_text(encoding="utf-8").startswith("<svg")
    assert "When" in file.read_text(encoding="utf-8")
