"""Clicks in real JupyterLab run the model: with comms on a subshell, on the main thread, and with ipykernel 6."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser import front_ends
from tests.browser.lab.conftest import SESSION
from tests.browser.lab.jupyterlab import REPORT

IOI = "When John and Mary went to the store, John gave a drink to"
ATTENTION = f"attention = iw.AttentionPattern(session, {IOI!r}, layer=23, head=3)\nattention"
CLEAN = "When John and Mary went to the store, Mary gave the bag to"
CORRUPTED = CLEAN.replace("Mary gave", "John gave")
HEATMAP = f"heatmap = iw.PatchingHeatmap(session, clean={CLEAN!r}, corrupted={CORRUPTED!r})\nheatmap"
LENS = 'lens = iw.LogitLens(session, "The Eiffel Tower is in the city of")\nlens'
PREDICTIONS = "Predictions"
# What only the page takes part in.
ONE_KERNEL = pytest.mark.parametrize("live_notebook", ["subshells"], indirect=True)


def percent(text: str) -> float:
    return float(text.rstrip("%").lstrip("<"))


def probability(notebook, token, interventions="", prompt=IOI):
    """What Python answers to the same question: the session's run itself is compared with Hugging Face elsewhere."""
    code = (
        f"_l = session.run({prompt!r}, interventions=[{interventions}]).logits[-1].values.astype('float64')\n"
        "import numpy as _np\n_p = _np.exp(_l - _l.max()); _p /= _p.sum()\n"
        f"print(_p[session.token_id({token!r})])"
    )
    return 100 * float(notebook.execute(code))


def ablated(notebook):
    """The attention widget that is shown, once a click has ablated its head, and its predictions then."""
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    widget.button("Ablate L23H3").click()
    expect(widget.button("Restore L23H3")).to_be_visible()
    widget.fresh()
    return widget, widget.table(PREDICTIONS)


def test_ablating_a_head_by_click_changes_the_predictions_to_what_python_says(any_notebook):
    notebook = any_notebook
    notebook.show(ATTENTION)
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    before = widget.table(PREDICTIONS)["␣Mary"]
    assert percent(before[0]) == pytest.approx(probability(notebook, " Mary"), abs=0.06)
    widget.button("Ablate L23H3").click()
    expect(widget.button("Restore L23H3")).to_be_visible()
    widget.fresh()
    after = widget.table(PREDICTIONS)["␣Mary"]
    expected = probability(notebook, " Mary", 'iw.Ablate("z", layer=23, head=3)')
    assert percent(after[1]) == pytest.approx(expected, abs=0.06)
    assert percent(after[0]) - percent(after[1]) > 1
    assert notebook.execute("print(list(session.interventions))").strip() == "[iw.Ablate('z', layer=23, head=3)]"
    widget.button("Undo").click()
    expect(widget.button("Ablate L23H3")).to_be_visible()
    assert notebook.execute("print(len(session.interventions))").strip() == "0"


def test_selecting_a_head_and_cutting_an_edge_by_keyboard(any_notebook):
    notebook = any_notebook
    notebook.show(ATTENTION)
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    widget.press("All heads", "ArrowRight", "ArrowDown")
    expect(widget.grid("L24H4 attention pattern")).to_be_visible()
    widget.press("L24H4 attention pattern", "End", *["PageDown"] * 3, "Home", "ArrowRight", "Enter")
    expect(widget.root.get_by_role("listitem").filter(has_text="cut")).to_be_visible()
    widget.fresh()
    cut = notebook.execute("print(list(session.interventions)[0])")
    assert re.match(r"iw.CutEdge\(layer=24, head=4, query=\d+, key=\d+\)", cut)
    # The notebook below did not take the keys: no cell was added or deleted.
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == 2


@ONE_KERNEL
def test_letters_pressed_in_a_widget_are_not_the_notebooks_and_ctrl_s_saves(any_notebook):
    """JupyterLab waits a second for a chord (d d deletes a cell), and plays its first key again after that."""
    notebook = any_notebook
    notebook.show(ATTENTION)
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    notebook.page.evaluate("""() => {
      window.heard = [];
      document.querySelector(".iw-root").addEventListener("keydown", (event) => window.heard.push(event.key));
    }""")
    widget.press("L23H3 attention pattern", *"abxmdd")
    notebook.page.wait_for_timeout(1300)
    assert notebook.page.evaluate("window.heard.join('')") == "abxmdd"
    assert notebook.page.locator(".jp-Notebook .jp-CodeCell").count() == 2
    notebook.page.keyboard.press("Control+s")
    notebook.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")


@ONE_KERNEL
def test_undo_in_a_text_field_is_the_fields(any_notebook):
    """JupyterLab would take Ctrl+Z for the notebook, and the field would keep what was typed."""
    notebook = any_notebook
    notebook.show(ATTENTION)
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    widget.button("Edit prompt").click()
    typed = widget.root.get_by_role("textbox", name="prompt")
    before = typed.input_value()
    notebook.page.keyboard.type("x")
    assert typed.input_value() != before
    notebook.page.keyboard.press("Control+z")
    assert typed.input_value() == before
    assert notebook.page.locator(".jp-Notebook .jp-CodeCell").count() == 2
    typed.press("Escape")


MAP = "resid_pre patching effect, layer by position"
PATCH = f"iw.Patch('resid_pre', layer={{}}, position=14, source={CLEAN!r})"


def patched(notebook, *layers):
    """What Python answers to the same patch: the probability of " John" in the corrupted run, in percent."""
    patches = ", ".join(PATCH.format(layer) for layer in layers)
    return probability(notebook, " John", patches, prompt=CORRUPTED)


def shown(table, token, column):
    """A prediction table's cell."""
    return percent(table.get_by_role("row").filter(has_text=token).locator("th, td").nth(column).inner_text())


def test_clicking_patching_cells_shows_the_patched_run_and_shift_patches_jointly(any_notebook):
    notebook = any_notebook
    notebook.show(HEATMAP)
    widget = notebook.widget("Patching heatmap")
    widget.fresh()
    widget.press(MAP, "End", *["ArrowUp"] * 24)
    expect(widget.cell(MAP)).to_contain_text("L24 · position 14")
    notebook.page.keyboard.press("Enter")
    table = widget.root.get_by_role("table").filter(has_text="patched")
    expect(table.get_by_role("row").filter(has_text="␣John")).to_be_visible()
    widget.fresh()
    assert shown(table, "␣John", 3) == pytest.approx(patched(notebook, 24), abs=0.06)
    widget.press(MAP, *["ArrowDown"] * 8, "Shift+Enter")
    expect(widget.root).to_contain_text("with 2 cells patched jointly")
    widget.fresh()
    # The later layer overwrites what the earlier one restored: the joint run must be asked for, not added up.
    joint = patched(notebook, 16, 24)
    assert shown(table, "␣John", 3) == pytest.approx(joint, abs=0.06)
    widget.button("Clear the 2 patched cells").click()
    expect(widget.root).to_contain_text("click a cell to run that patch")


def test_descending_from_a_layer_to_its_heads_by_position(any_notebook):
    notebook = any_notebook
    notebook.show(HEATMAP)
    widget = notebook.widget("Patching heatmap")
    widget.fresh()
    widget.button("attn_out").click()
    rows = "attn_out patching effect, layer by position"
    expect(widget.grid(rows)).to_be_visible()
    widget.fresh()
    widget.press(rows, "End", *["ArrowUp"] * 23)
    expect(widget.cell(rows)).to_contain_text("L23 · position 14")
    notebook.page.keyboard.press("d")
    heads = "z patching effect of L23, head by position"
    expect(widget.grid(heads)).to_be_visible()
    widget.fresh()
    widget.press(heads, "End", "ArrowDown", "ArrowDown", "ArrowDown")
    expect(widget.cell(heads)).to_contain_text("L23H3 · position 14")
    notebook.page.keyboard.press("Enter")
    expect(widget.root).to_contain_text("with z L23H3 · position 14 patched")
    widget.fresh()
    table = widget.root.get_by_role("table").filter(has_text="patched")
    patch = f"iw.Patch('z', layer=23, head=3, position=14, source={CLEAN!r})"
    expected = probability(notebook, " John", patch, prompt=CORRUPTED)
    assert shown(table, "␣John", 3) == pytest.approx(expected, abs=0.06)
    widget.button("Close").click()
    expect(widget.grid(heads)).to_be_hidden()


def test_a_hidden_state_is_transplanted_and_a_token_replaced(any_notebook):
    notebook = any_notebook
    notebook.show(LENS)
    widget = notebook.widget("Logit lens")
    widget.fresh()
    # From the last position of layer 20 down to layer 2 of the position before it.
    grid = "logit lens, layer by position"
    widget.press(grid, "End", *["PageDown"] * 4, *["ArrowUp"] * 21)
    expect(widget.cell(grid)).to_contain_text("L20 position 9")
    notebook.page.keyboard.press("t")
    for key in ("ArrowLeft", *["ArrowDown"] * 18):
        notebook.page.keyboard.press(key)
    expect(widget.cell(grid)).to_contain_text("L2 position 8")
    notebook.page.keyboard.press("Enter")
    second = widget.root.get_by_role("region", name="With experiments")
    expect(second).to_contain_text("untouched: the experiments do not reach it")
    widget.fresh()
    experiment = notebook.execute("print(list(session.interventions))").strip()
    assert re.search(r"layer=2, position=8, .*source_layer=20, source_position=9", experiment), experiment
    widget.press("with experiments, layer by position", "End", *["PageUp"] * 4)
    expect(widget.cell("with experiments, layer by position")).to_contain_text("L29 position 9")
    table = widget.root.get_by_role("table", name="Top 10 of this cell")
    best = table.locator("tbody tr").first.locator("th, td")
    token = best.first.inner_text().replace("␣", " ")
    now = best.nth(2).inner_text()
    expected = probability(notebook, token, "*session.interventions", prompt="The Eiffel Tower is in the city of")
    assert percent(now) == pytest.approx(expected, abs=0.06)
    widget.button("Undo").click()
    expect(second).to_be_hidden()

    widget.root.get_by_role("list", name="prompt tokens").get_by_role("button", name="␣Tower").click()
    typed = widget.root.get_by_role("dialog").get_by_role("textbox")
    typed.fill(" Bridge")
    typed.press("Enter")
    expect(widget.root.get_by_role("list", name="prompt tokens")).to_contain_text("␣Bridge")
    widget.fresh()
    assert "The Eiffel Bridge is in the city of" in notebook.execute("print(lens.code())")


def test_experiments_are_shared_by_linked_widgets(any_notebook):
    notebook = any_notebook
    notebook.show(ATTENTION, LENS)
    attention, lens = notebook.widget("Attention pattern"), notebook.widget("Logit lens")
    attention.fresh()
    lens.fresh()
    attention.button("Ablate L23H3").click()
    lens.root.get_by_role("listitem").filter(has_text="L23H3").wait_for()
    expect(lens.root.get_by_role("region", name="With experiments")).to_be_visible()
    lens.fresh()


BUSY = f"""
import threading, torch
_ids = torch.tensor([session.tokenize({IOI!r}).ids])
with torch.no_grad():
    _first = session.model(_ids).logits
    _same, _runs = True, 0
    print("busy")
    while not list(session.interventions) and _runs < 40:
        _same &= bool(torch.equal(session.model(_ids).logits, _first)); _runs += 1
    for _ in range(5):
        _same &= bool(torch.equal(session.model(_ids).logits, _first)); _runs += 1
print("same" if _same else "DIFFERENT", _runs)
"""


@pytest.mark.works(front_ends.BUSY)
def test_a_click_during_a_busy_cell_leaves_the_cells_own_runs_alone(any_notebook):
    """With subshells the click is answered while the cell runs; on the main thread right after it."""
    notebook = any_notebook
    notebook.show(ATTENTION)
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    notebook.append(BUSY)
    output = notebook.page.locator(".jp-OutputArea-output").filter(has_text="busy")
    output.wait_for()
    widget.button("Ablate L23H3").click()
    expect(widget.button("Restore L23H3")).to_be_visible(timeout=60_000)
    notebook.wait_idle()
    expect(output).to_contain_text("same", timeout=60_000)
    widget.fresh()
    assert notebook.execute("print(list(session.interventions))").strip() == "[iw.Ablate('z', layer=23, head=3)]"


@pytest.mark.parametrize("meanwhile", ["", "attention.wait()", "attention.layer = 22"])
def test_a_widget_that_a_running_cell_made_answers_clicks(any_notebook, tmp_path, meanwhile):
    any_notebook.show()
    _click_while_its_cell_runs(any_notebook, tmp_path / "end", meanwhile)


_ASTRAY = """
  const Real = window.WebSocket;
  const read = (data) => (typeof data === "string" ? data : new TextDecoder("latin1").decode(data));
  if (sessionStorage.astray) window.WebSocket = class extends Real {
    send(data) {
      const text = read(data);
      if (sessionStorage.astray === "first" && text.includes('"comm_msg"') && text.includes('"_view_count"')) return;
      const gone = sessionStorage.astray === "gone" && text.includes('"comm_msg"') && text.match(/"subshell_id":"([-0-9a-f]+)"/);
      if (gone) data = Uint8Array.from(text.replace(gone[1], gone[1].replace(/[0-9a-f]/g, "0")), (letter) => letter.charCodeAt(0));
      super.send(data);
    }
    set onmessage(handle) {
      super.onmessage = async (event) => {
        if (sessionStorage.astray === "late" && read(event.data).includes('"create_subshell_reply"')) await new Promise(() => {});
        handle(event);
      };
    }
    get onmessage() { return super.onmessage; }
  };
"""  # noqa: E501


@pytest.mark.parametrize("astray", ["late", "gone", "first"])
def test_a_page_whose_messages_go_astray_at_first_has_its_clicks_answered(any_notebook, tmp_path, astray):
    """It knows no subshell, or one that is gone; or its first message stands behind the cell, and holds up the rest."""
    any_notebook.show()
    page = any_notebook.page
    page.add_init_script(_ASTRAY)
    page.evaluate(f"sessionStorage.astray = '{astray}'")
    any_notebook.reload()
    try:
        _click_while_its_cell_runs(any_notebook, tmp_path / "end")
    finally:
        page.evaluate("sessionStorage.removeItem('astray')")
        any_notebook.reload()


def _click_while_its_cell_runs(notebook, end, meanwhile=""):
    """Answered while the cell runs where there are subshells; on the main thread right after it."""
    notebook.append(
        f"import pathlib, time\n{ATTENTION}\ndisplay(attention)\n{meanwhile}\nprint('shown')\n"
        f"while not pathlib.Path({str(end)!r}).exists():\n    time.sleep(0.02)"
    )
    notebook.page.locator(".jp-OutputArea-output").filter(has_text="shown").wait_for()
    widget = notebook.widget("Attention pattern")
    restore = widget.root.get_by_role("button", name=re.compile("Restore L2.H3"))
    try:
        widget.root.get_by_role("button", name=re.compile("Ablate L2.H3")).click()
        if notebook.front_end == front_ends.SUBSHELLS:
            expect(restore).to_be_visible(timeout=20_000)
    finally:
        end.touch()
    expect(restore).to_be_visible(timeout=20_000)
    notebook.wait_idle()


LONG = "the quick brown fox jumps over the lazy dog and runs away from here " * 12


def test_stop_cancels_a_running_sweep_and_the_model_is_as_before(any_notebook):
    notebook = any_notebook
    other = LONG.replace("quick", "slow", 1)
    notebook.show(f"heatmap = iw.PatchingHeatmap(session, clean={LONG!r}, corrupted={other!r})\nheatmap")
    widget = notebook.widget("Patching heatmap")
    widget.root.get_by_role("button", name="Stop").click(timeout=60_000)
    expect(widget.root).to_have_attribute("data-state", "stale", timeout=20_000)
    # The run ends within one block's time, and nothing of it stays.
    assert "sdpa" in notebook.execute("heatmap.wait(20); print(session.model.config._attn_implementation)")
    assert "ok" in notebook.execute("print('ok' if session.check().ok else 'broken')")


def test_a_bad_prompt_is_drawn_as_an_error_and_nothing_is_lost(any_notebook):
    notebook = any_notebook
    notebook.show(HEATMAP)
    widget = notebook.widget("Patching heatmap")
    widget.fresh()
    widget.button("Edit corrupted").click()
    notebook.page.keyboard.press("Control+a")
    notebook.page.keyboard.type("When John and Mary went to the store, John")
    notebook.page.keyboard.press("Enter")
    alert = widget.root.get_by_role("alert")
    expect(alert).to_contain_text("same number of tokens: clean has 15, corrupted has 11")
    assert widget.root.get_by_role("grid").first.is_visible()


def test_reload_restores_the_picture_and_it_is_still_live(any_notebook):
    notebook = any_notebook
    notebook.show(ATTENTION)
    widget, shown = ablated(notebook)
    notebook.reload()
    widget = notebook.widget("Attention pattern")
    expect(widget.button("Restore L23H3")).to_be_visible(timeout=60_000)
    assert widget.table(PREDICTIONS) == shown
    widget.button("Restore L23H3").click()
    expect(widget.button("Ablate L23H3")).to_be_visible()


def test_a_saved_notebook_opens_with_its_picture_and_running_the_cell_makes_it_live(notebook):
    path = notebook.create(SESSION, ATTENTION)
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    shown = widget.table(PREDICTIONS)
    still = notebook.page.get_by_text("A still picture: run the cell to click in it.")
    expect(still).to_have_count(1)
    expect(still).to_be_hidden()
    notebook.command("docmanager:save")
    notebook.shut_down()
    notebook.page.goto("about:blank")
    notebook.open(path)
    expect(still).to_be_visible()
    picture = notebook.page.get_by_role(
        "img", name="attention of L23H3, query (row) to key (column), position 0 hidden"
    )
    expect(picture).to_be_visible()
    notebook.page.get_by_text("Python that shows this picture live again").click()
    expect(notebook.page.get_by_text("widget = iw.AttentionPattern(session,")).to_be_visible()
    notebook.page.screenshot(path=REPORT / "reopened.png")
    notebook.run_all()
    widget.fresh()
    assert widget.table(PREDICTIONS) == shown
    expect(still).to_be_hidden()


def test_clearing_outputs_puts_the_widget_to_sleep_and_two_views_show_the_same(any_notebook):
    notebook = any_notebook
    notebook.show(ATTENTION, "attention")
    views = [notebook.widget("Attention pattern", i) for i in (0, 1)]
    for view in views:
        view.fresh()
    views[0].button("Ablate L23H3").click()
    expect(views[1].button("Restore L23H3")).to_be_visible()
    notebook.command("notebook:clear-all-cell-outputs")
    expect(notebook.page.get_by_role("figure", name="Attention pattern")).to_have_count(0)
    # The page is empty before the kernel has heard of it, and without subshells it hears nothing while a cell runs.
    asleep = (notebook.execute("print(attention._now is None)").strip() == "True" for _ in range(200))
    assert any(asleep)
    before = notebook.execute("print(attention._overview['id'])")
    notebook.execute("session.interventions.clear()")
    assert notebook.execute("print(attention._overview['id'], attention._now)") == before.replace("\n", " None\n")


def test_a_channel_that_closes_without_a_word_takes_its_view_away_quietly(any_notebook):
    """As when the last reference to a widget goes, or its last message is lost."""
    notebook = any_notebook
    notebook.show(ATTENTION)
    notebook.widget("Attention pattern").fresh()
    notebook.execute("attention.comm.close()")
    expect(notebook.page.get_by_role("figure", name="Attention pattern")).to_have_count(0)
    assert not notebook.complaints


# A widget says "fresh" after the frame that draws the answer was painted.
REPAINT = """async (root) => {
  const button = root.querySelector(".iw-attention__ablate button");
  const started = performance.now();
  const painted = new Promise((done) => {
    const watcher = new MutationObserver(() => {
      if (root.dataset.state !== "fresh") return;
      watcher.disconnect();
      done(performance.now() - started);
    });
    watcher.observe(root, { attributes: true, attributeFilter: ["data-state"] });
  });
  button.click();
  return painted;
}"""
FORWARD = """
import time as _time, torch
_ids = torch.tensor([attention._tokens.ids])
_t = []
with torch.no_grad():
    for _ in range(3):
        _s = _time.perf_counter(); session.model(_ids, use_cache=False); _t.append(_time.perf_counter() - _s)
print(1000 * sorted(_t)[1])
"""
AS_LONG = "attention = iw.AttentionPattern(session, [1, *range(40, 39 + {})], layer=20)\nattention"


@pytest.mark.parametrize("live_notebook", ["subshells", "main-thread"], indirect=True)
@pytest.mark.parametrize("length", [15, 128])
def test_time_from_click_to_repaint_is_measured(any_notebook, request, length):
    """A figure for the report, not an assertion on time: machines differ, and so does what else they do."""
    notebook = any_notebook
    notebook.show(ATTENTION if length == 15 else AS_LONG.format(length))
    widget = notebook.widget("Attention pattern")
    widget.fresh()
    # Warm up, then pairs: each click is a new experiment, whose run no cache holds. Layer 0 goes on from no other run.
    figures = {"tokens": length}
    for layer in (0, 20):
        times, forwards, runs = [], [], []
        for head in range(6):
            notebook.execute(f"attention.clear(); attention.select({layer}, {head}); attention.wait()")
            expect(widget.button(f"Ablate L{layer}H{head}")).to_be_visible()
            widget.fresh()
            forwards.append(float(notebook.execute(FORWARD)))
            times.append(float(widget.root.evaluate(REPAINT)))
            expect(widget.button(f"Restore L{layer}H{head}")).to_be_visible()
            runs.append(float(notebook.execute("print(attention._status['ms'])")))
        repaint, forward, run = (sorted(each[1:])[2] for each in (times, forwards, runs))
        figures[f"ablate in layer {layer}"] = {
            "click_to_repaint_ms": repaint, "bare_forward_ms": forward, "difference_ms": repaint - forward,
            "run_and_pictures_ms": run,
        }  # fmt: skip
        assert repaint > 0
    REPORT.mkdir(exist_ok=True)
    comms = request.node.callspec.params["live_notebook"]
    (REPORT / f"click_to_repaint_{comms}_{length}.json").write_text(json.dumps(figures, indent=1))
    print(comms, figures)
