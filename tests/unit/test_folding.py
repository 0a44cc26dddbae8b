"""Pictures of more than fits lose no extreme, no last row or column, and say what a cell of several shows."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from itertools import pairwise

import numpy as np
import pytest

import interpwidgets as iw
from interpwidgets.widgets.colours import colour_at
from interpwidgets.widgets.folding import thinned
from interpwidgets.widgets.heatmap import Heatmap
from interpwidgets.widgets.scale import effect_scale
from interpwidgets.widgets.static import drawing
from tests.models import random_ids, tiny

SVG = "{http://www.w3.org/2000/svg}"
BLUE = "#{:02x}{:02x}{:02x}".format(*colour_at(1, "blue", diverging=True))
ORANGE = "#{:02x}{:02x}{:02x}".format(*colour_at(0, "blue", diverging=True))


def heatmap(values, *, kept="farthest", text=None):
    rows, columns = values.shape
    return Heatmap(
        values, [f"L{i}" for i in range(rows)], [f"token{i}" for i in range(columns)], title="title", row_title="layer",
        column_title="position", unit="unit", scale=effect_scale(1.0), kept=kept, text=text,
        column_names=[str(i) for i in range(columns)],
    )  # fmt: skip


def fills(svg):
    return {path.get("fill") for path in ET.fromstring(svg).iterfind(f".//{SVG}path[@fill]")}


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("row", [0, 1, 77, 119])
@pytest.mark.parametrize("column", [0, 1, 2, 3, 77, 118, 119])
@pytest.mark.parametrize("value", [1.0, -1.0])
def test_what_is_drawn_together_shows_the_largest_in_size_wherever_it_is(row, column, value):
    values = np.zeros((120, 120))
    values[row, column] = value
    svg = drawing(thinned(heatmap(values)))
    assert len(svg) < 60_000
    assert (BLUE if value > 0 else ORANGE) in fills(svg)


def test_the_last_row_and_column_stay_alone_and_the_picture_says_what_the_others_are():
    values = np.zeros((120, 120))
    values[118, 118] = 1.0
    few = thinned(heatmap(values))
    assert (few.rows[-1], few.columns[-1]) == ("L119", "token119")
    assert few.values[-1].tolist() == [0] * len(few.columns)
    assert few.values[-2, -2] == 1
    ends = [re.fullmatch(r"(\d+)–(\d+)", name) for name in few.columns[1:-1]]
    assert all(ends)
    assert int(ends[-1][2]) == 118
    assert "a cell is the largest in size of up to 3 layers × 3 positions" in texts(drawing(few))


@pytest.mark.parametrize(("kept", "shown"), [("farthest", -0.75), ("largest", 0.5), ("smallest", -0.75), ("mean", 0.0)])
def test_several_show_what_is_said_of_them(kept, shown):
    values = np.full((100, 100), 0.25)
    values[:, 40], values[:, 41] = -0.75, 0.5
    few = thinned(heatmap(values, kept=kept))
    assert few.values[3, list(few.columns).index("39–41")] == pytest.approx(shown)


def test_a_word_keeps_its_colour_and_the_first_and_last_rows_stay():
    values = np.arange(40 * 50, dtype=float).reshape(40, 50) / 2000
    text = np.array([[f"w{row}.{column}" for column in range(50)] for row in range(40)])
    few = thinned(heatmap(values, text=text))
    assert few.text is not None
    places = [tuple(map(int, word[1:].split("."))) for word in few.text.ravel()]
    assert [values[place] for place in places] == few.values.ravel().tolist()
    assert list(few.columns) == [f"token{i}" for i in range(50)]
    assert (few.rows[0], few.rows[-1]) == ("L0", "L39")
    (step,) = {int(b[1:]) - int(a[1:]) for a, b in pairwise(few.rows[1:])}
    assert step > 1
    assert f"rows: one layer of {step}, counted from the last" in texts(drawing(few))


def test_positions_of_words_are_drawn_together_last_and_are_narrow_without_words():
    text = np.full((40, 200), "word")
    values = np.zeros((40, 200))
    values[39, 100] = 0.5
    few = thinned(heatmap(values, text=text, kept="largest"))
    assert few.text is not None
    assert len(drawing(few)) < 60_000
    assert few.values.max() == 0.5
    assert few.columns[-1] == "token199"
    assert {bool(narrow): set(few.text[:, x]) for x, narrow in enumerate(few.narrow)} == {True: {""}, False: {"word"}}
    assert any(line.startswith("narrow columns: the largest of up to ") for line in texts(drawing(few)))


@pytest.mark.parametrize(("length", "cut"), [(33, None), (65, None), (300, "largest of up to")])
def test_the_still_picture_of_a_head_has_its_last_row(length, cut):
    with iw.Session(tiny("llama", max_position_embeddings=512)) as session:
        widget = iw.AttentionPattern(session, random_ids(length), layer=1, head=2)
        widget.wait(60)
        svg = still(widget)
        last = session.show_token(random_ids(length)[-1])
        assert texts(svg).count(last) >= 2
        assert any(cut in line for line in texts(svg)) if cut else not any("of up to" in line for line in texts(svg))


def test_pictures_of_a_deep_model_fold_layers_as_the_page_does_and_say_so():
    clean, corrupted = random_ids(6), [*random_ids(5), 40]
    with iw.Session(tiny("llama", num_hidden_layers=60)) as session:
        widget = iw.PatchingHeatmap(session, clean, corrupted, site="z")
        widget.wait(60)
        for svg in (still(widget), widget.to_svg()):
            said = texts(svg)
            assert {f"{layer}–{layer + 1}" for layer in range(0, 60, 2)} == {x for x in said if re.match(r"\d+–\d", x)}
            assert "rows of several: the largest in size of up to 2 layers" in said
        effect = widget.result["effect"].values
        strongest = effect.flat[np.abs(effect).argmax()]
        share = (1 + strongest / max(1, abs(strongest))) / 2
        assert "#{:02x}{:02x}{:02x}".format(*colour_at(share, "blue", diverging=True)) in fills(widget.to_svg())
        assert widget.figure().data[0].z.shape == effect.shape == (60, 4)


def still(widget):
    data = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", widget.static_frame())
    assert len(data) == 1
    return b64decode(data[0]).decode()


def test_what_is_not_finite_hides_nothing_beside_it():
    values = np.zeros((120, 120))
    values[3, 5], values[3, 4], values[4, 5] = 0.5, np.inf, np.nan
    values[118, :] = values[117, :] = values[116, :] = np.nan
    few = thinned(heatmap(values))
    assert np.nanmax(few.values) == 0.5
    assert np.isnan(few.values[-2]).all()
    assert not np.isnan(few.values[[*range(len(few.values) - 2), -1]]).any()
