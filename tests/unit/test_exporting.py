"""What leaves the notebook from Python: numbers, pictures, pages, and what a page may ask for."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import interpwidgets as iw
from interpwidgets.widgets.colours import colour_at
from tests.clicks import CORRUPTED, PROMPT, click

SVG = "{http://www.w3.org/2000/svg}"


def attention(session, **settings):
    widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2, **settings)
    widget.wait(30)
    return widget


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_of_a_head_holds_its_weights_exactly(session, tmp_path):
    file = tmp_path / "head.csv"
    rows = rows_of(attention(session).to_csv(file))
    assert rows == rows_of(file.read_text(encoding="utf-8"))
    expected = iw.attention_patterns(session, PROMPT).sel(layer=1, head=2).values
    assert len(rows) == len(PROMPT) * (len(PROMPT) + 1) // 2
    for row in rows:
        assert np.float32(row["weight"]) == expected[int(row["query"]), int(row["key"])]
        assert row["query_token"] == session.show_token(PROMPT[int(row["query"])])


def test_csv_has_baseline_and_now_side_by_side_under_an_experiment(session):
    widget = attention(session)
    widget.cut(1, 2, 5, 3)
    row = next(r for r in rows_of(widget.to_csv()) if (r["query"], r["key"]) == ("5", "3"))
    assert float(row["now"]) == 0 < float(row["baseline"])


def test_the_picture_of_a_lens_is_that_with_the_experiments(session):
    lens = iw.LogitLens(session, PROMPT)
    lens.wait(30)
    assert "with experiments" not in lens.static_frame()
    lens.transplant((0, 1), (1, 3))
    now = iw.logit_lens(session, PROMPT, metric="probability", interventions=list(lens.experiments))
    assert lens.figure().data[0].z == pytest.approx(now["probability"].values, abs=1e-5)
    assert "with experiments" in lens.static_frame()
    assert "with experiments" in lens.to_svg()


def test_csv_of_a_lens_has_every_metric_of_every_cell_and_both_runs(session):
    widget = iw.LogitLens(session, PROMPT)
    widget.transplant((0, 2), (1, 5))
    rows = rows_of(widget.to_csv())
    layers = session.engine.architecture.n_layers + 1
    assert len(rows) == 2 * layers * len(PROMPT)
    read = iw.logit_lens(session, PROMPT, metric=["probability", "entropy"])
    for row in rows[: layers * len(PROMPT)]:
        cell = read.sel(layer=int(row["layer"]), position=int(row["position"]))
        assert row["run"] == "baseline"
        assert np.isclose(float(row["entropy"]), float(cell["entropy"]), atol=1e-5)


def test_csv_of_a_map_has_values_and_effects(session):
    widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED, site="z")
    rows = rows_of(widget.to_csv())
    share = iw.patch_sweep(session, PROMPT, CORRUPTED, site="z")
    for row in rows:
        effect = float(share.sel(layer=int(row["layer"]), head=int(row["head"])))
        assert float(row["effect"]) == pytest.approx(effect, abs=1e-5)
    gap = float(rows[0]["clean"]) - float(rows[0]["corrupted"])
    assert (float(rows[0]["value"]) - float(rows[0]["corrupted"])) / gap == pytest.approx(
        float(rows[0]["effect"]), abs=1e-4
    )


def test_svg_has_a_cell_for_each_weight_labels_and_a_legend(session):
    widget = attention(session, hide_bos=False)
    root = ET.fromstring(widget.to_svg())
    texts = [element.text for element in root.iter(f"{SVG}text")]
    weights = iw.attention_patterns(session, PROMPT).sel(layer=1, head=2).values
    boxes = sum((path.get("d") or "").count("M") for path in root.iterfind(f".//{SVG}path[@fill]"))
    assert boxes == len(PROMPT) * (len(PROMPT) + 1) // 2
    assert {"attention weight", f"{weights.max():.2f}", *map(str, PROMPT)} <= set(texts)


def test_svg_is_as_wide_as_asked_and_keeps_its_shape(session):
    widget = attention(session)
    own, wide = (ET.fromstring(svg) for svg in (widget.to_svg(), widget.to_svg(width=1234)))
    assert wide.get("width") == "1234"
    ratios = [float(root.get("height")) / float(root.get("width")) for root in (own, wide)]
    assert ratios[0] == pytest.approx(ratios[1], abs=1e-3)
    with pytest.raises(ValueError, match="width=0"):
        widget.to_svg(width=0)


def test_png_is_as_large_as_the_svg_times_its_scale(session, tmp_path):
    widget = attention(session)
    data = widget.to_png(tmp_path / "head.png", width=500, scale=3)
    assert (tmp_path / "head.png").read_bytes() == data
    assert struct.unpack(">I", data[16:20]) == (1500,)


def test_palettes_are_those_of_the_page_neutral_at_zero():
    assert colour_at(0.5, "blue", diverging=True) == pytest.approx((0xF1, 0xF2, 0xF4), abs=1)
    assert colour_at(0, "blue", diverging=False) == (0xF0, 0xF3, 0xF7)
    assert colour_at(1, "blue", diverging=False) == (0x08, 0x30, 0x6B)
    assert colour_at(0, "cividis", diverging=False) == (0x00, 0x22, 0x4E)
    assert colour_at(1, "cividis", diverging=True) == (0x00, 0x22, 0x4E)


def test_what_is_seen_of_a_head_is_what_is_drawn(session):
    widget = attention(session)
    widget.cut(1, 2, 5, 3)
    widget.wait(30)
    widget.view = "difference"
    assert "now − baseline" in widget.to_svg()
    assert ", position 0 hidden" in widget.to_svg()


def test_a_page_is_sent_its_file_once_and_the_file_does_not_stay(session):
    widget = attention(session)
    sent = []
    widget.observe(lambda change: sent.append(change["new"]), names="_saved")
    number = click(widget, "to_csv")
    assert [file.get("id") for file in sent] == [number, None]
    assert sent[0]["text"] == widget.to_csv()
    assert (sent[0]["name"], sent[0]["mime"]) == ("attention-pattern.csv", "text/csv")
    assert widget._saved == {}


def test_a_page_cannot_name_a_file_of_the_machine(session, tmp_path):
    widget = attention(session)
    for operation in ("to_csv", "to_html"):
        click(widget, operation, path=str(tmp_path / "written"))
        assert "takes nothing from a page" in widget._status["error"]["text"]
    click(widget, "to_svg")
    assert "unknown request" in widget._status["error"]["text"]
    assert list(tmp_path.iterdir()) == []


def test_a_page_may_ask_while_the_model_runs(session):
    widget = attention(session)
    with session.publishing:
        widget.cut(1, 2, 5, 3)  # cannot publish while this thread holds the lock
        click(widget, "to_html")
    assert widget._status["error"] is None
    widget.wait(30)


class Watched(iw.AttentionPattern):
    """Notes whether a click on another thread could be carried out while what is shown is read."""

    def __init__(self, *args, **kwargs):
        self.open_to_clicks = set()
        super().__init__(*args, **kwargs)

    def _note(self):
        def click_on_another_thread():
            taken = self.session.publishing.acquire(blocking=False)
            if taken:
                self.session.publishing.release()
            return taken

        with ThreadPoolExecutor(1) as others:
            self.open_to_clicks.add(others.submit(click_on_another_thread).result())

    def _depends_on(self):
        self._note()
        return super()._depends_on()

    def _answers(self):
        self._note()
        return super()._answers()

    def _numbers(self):
        self._note()
        return super()._numbers()

    def _heatmap(self, *, whole=False):
        self._note()
        return super()._heatmap(whole=whole)


@pytest.mark.parametrize("save", ["to_html", "to_csv", "to_svg", "figure"])
def test_no_click_comes_between_the_parts_of_what_is_saved(session, save):
    widget = Watched(session, PROMPT, layer=1, head=2)
    widget.wait(30)
    widget.open_to_clicks.clear()
    getattr(widget, save)()
    assert widget.open_to_clicks == {False}


def test_what_is_asked_for_at_the_last_moment_is_waited_for(session):
    class Late(iw.AttentionPattern):
        clicked = True

        def _ready(self):
            super()._ready()
            if not self.clicked:
                self.clicked = True
                self.cut(1, 2, 5, 3)

    widget = Late(session, PROMPT, layer=1, head=2)
    widget.clicked = False
    assert "baseline,now" in widget.to_csv()


def test_no_click_comes_between_the_three_of_a_workbench_that_is_saved(session):
    workbench = iw.Workbench.of(Watched(session, PROMPT), iw.LogitLens(session, PROMPT))
    workbench.wait(30)
    workbench.attention.open_to_clicks.clear()
    workbench.to_html()
    assert workbench.attention.open_to_clicks == {False}


def test_saved_page_is_one_file_with_nothing_to_fetch(session):
    page = attention(session).to_html()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page.split('id="iw-page-data"')[0])
    data = json.loads(re.search(r'id="iw-page-data">(.*?)</script>', page, re.S)[1])
    assert set(data) == {"values", "widgets", "code"}
    (part,) = data["widgets"]
    assert set(part) == {"name", "esm", "results", "answers", "makes", "chooses", "owners", "table"}
    assert "connect-src" not in page
    assert "default-src &#x27;none&#x27;" in page


def test_a_saved_page_files_no_older_picture_under_a_question_whose_run_was_stopped(session):
    widget = attention(session)
    with session.publishing:  # the run cannot end
        click(widget, "run", prompt=CORRUPTED)
        click(widget, "stop")
    widget.wait(30)
    data = json.loads(re.search(r'id="iw-page-data">(.*?)</script>', widget.to_html(), re.S)[1])
    assert [result["question"]["prompt"] for result in data["widgets"][0]["results"]] == [PROMPT]
    assert "The picture is from the run before" in widget.static_frame()
    widget.refresh()
    widget.wait(30)
    assert "The picture is from the run before" not in widget.static_frame()


def test_before_any_run_has_finished_there_is_nothing_to_save(session):
    with session.publishing:
        widget = iw.LogitLens(session, PROMPT)
        click(widget, "stop")
    for save in (widget.to_html, widget.to_csv, widget.to_svg):
        with pytest.raises(RuntimeError, match="no run has finished"):
            save()
    assert "from the run before" not in widget.static_frame()
