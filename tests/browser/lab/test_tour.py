"""The tour as a newcomer meets it: opened, run from the top, clicked through, photographed in both themes."""

from __future__ import annotations

import shutil

from playwright.sync_api import expect

from tests.browser.lab.jupyterlab import REPORT, REPOSITORY


def test_the_tour_runs_and_its_widgets_answer(notebook):
    path = notebook.server.root / "00_tour.ipynb"
    shutil.copy(REPOSITORY / "notebooks/00_tour.ipynb", path)
    notebook.open(path)
    notebook.run_all()
    page = notebook.page
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    attention, lens, heatmap = (notebook.widget(t) for t in ("Attention pattern", "Logit lens", "Patching heatmap"))
    for widget in (attention, lens, heatmap):
        widget.root.scroll_into_view_if_needed()
        widget.fresh()
    attention.button("Ablate L20H0").click()
    expect(attention.button("Restore L20H0")).to_be_visible()
    attention.fresh()
    assert attention.table("Predictions")["␣Mary"] == ["90.0%", "72.0%"]
    for widget in (attention, lens, heatmap):
        widget.root.scroll_into_view_if_needed()
        widget.fresh()
    page.set_viewport_size({"width": 1000, "height": 2600})
    notebook.command("application:toggle-left-area")
    photograph(notebook, attention_pattern=attention)
    attention.button("Undo").click()
    attention.fresh()
    for widget in (lens, heatmap):
        expect(widget.root.get_by_role("listitem").filter(has_text="L20H0")).to_have_count(0)
        widget.fresh()
    heatmap.press("resid_pre patching effect, layer by position", "End", *["ArrowUp"] * 22, "Enter")
    expect(heatmap.root).to_contain_text("with resid_pre L22 · position 14 patched")
    heatmap.fresh()
    photograph(notebook, logit_lens=lens, patching_heatmap=heatmap)


def photograph(notebook, **widgets):
    """Pictures to look at after a change."""
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("() => document.activeElement.blur()")
    for theme in ("dark", "light"):
        notebook.command("apputils:change-theme", theme=f"JupyterLab {theme.title()}")
        for name, widget in widgets.items():
            expect(widget.root).to_have_attribute("data-iw-theme", theme)
            widget.screenshot(REPORT / "screenshots" / f"{name}-{theme}.png")
