"""Pictures that Python draws follow the looks of the widget, and a long prompt's are no wider than its page's."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from base64 import b64decode

import numpy as np
import pytest

import interpwidgets as iw
from interpwidgets.widgets.colours import colour_at
from tests.clicks import CORRUPTED, PROMPT
from tests.models import random_ids
from tests.palettes import colours

SVG = "{http://www.w3.org/2000/svg}"


def hexes(palette, kind):
    found = colours("light", palette)
    stops = (np.rint(255 * found[f"{kind}-{i}"]).astype(int) for i in range(5))
    return ["#{:02x}{:02x}{:02x}".format(*stop) for stop in stops]


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


def boxes(svg):
    """Colours of cells by row and column, in pixels."""
    found = {}
    for path in ET.fromstring(svg).iterfind(f".//{SVG}path[@fill]"):
        for left, top in re.findall(r"M([\d.]+) ([\d.]+)h", path.get("d")):
            found[float(top), float(left)] = path.get("fill")
    return found


def dashes(svg):
    """How many cells have a dash for what is below zero."""
    return sum(path.get("d").count("M") for path in ET.fromstring(svg).iterfind(f".//{SVG}path[@stroke]"))


def still(widget):
    return b64decode(re.findall(r"svg\+xml;base64,([^\"]+)", widget.static_frame())[0]).decode()


WIDGETS = {
    "attention": lambda session: iw.AttentionPattern(session, PROMPT, layer=1, head=2),
    "lens": lambda session: iw.LogitLens(session, PROMPT),
    "heatmap": lambda session: iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED),
}


@pytest.mark.parametrize("kind", WIDGETS)
def test_every_picture_has_the_chosen_palette(session, kind):
    widget = WIDGETS[kind](session)
    widget.wait(30)
    for palette in ("blue", "cividis"):
        widget.palette = palette
        expected = hexes(palette, "div" if kind == "heatmap" else "seq")
        for svg in (widget.to_svg(), still(widget)):
            assert [stop.get("stop-color") for stop in ET.fromstring(svg).iter(f"{SVG}stop")] == expected
        scale = widget.figure().data[0].colorscale
        given = [scale[0][1], scale[-1][1]]
        assert given == ["rgb({},{},{})".format(*(int(end[i : i + 2], 16) for i in (1, 3, 5))) for end in expected[::4]]


def test_pictures_of_one_document_share_no_gradient_and_are_drawn_alike_each_time(session):
    head, lens = WIDGETS["attention"](session), WIDGETS["lens"](session)
    pictures = []
    for widget, palette in ((head, "blue"), (head, "cividis"), (lens, "blue")):
        widget.wait(30)
        widget.palette = palette
        pictures.append(widget.to_svg())
        assert widget.to_svg() == pictures[-1]
    names = [re.findall(r'\bid="([^"]+)"', svg) for svg in pictures]
    assert [len(own) for own in names] == [1, 1, 1]
    assert len({name for own in names for name in own}) == 3
    for svg, (name,) in zip(pictures, names, strict=True):
        assert re.findall(r"url\(#([^)]+)\)", svg) == [name]


def test_words_are_written_only_where_value_labels_are(session):
    lens = iw.LogitLens(session, PROMPT)
    lens.wait(30)
    tokens = iw.logit_lens(session, PROMPT)["top_token"].values[..., 0]
    words = [session.show_token(int(i)) for i in tokens.ravel()]
    assert sum(text in words for text in texts(lens.to_svg())) >= len(words)
    size = ET.fromstring(lens.to_svg()).get("viewBox")
    lens.value_labels = False
    for svg in (lens.to_svg(), still(lens)):
        assert sum(text in words for text in texts(svg)) <= len(PROMPT) + tokens.shape[0]
        assert len(boxes(svg)) == len(words)
    assert ET.fromstring(lens.to_svg()).get("viewBox") == size
    assert lens.figure().data[0].text is None


def test_weights_stand_in_cells_that_have_room_unless_value_labels_are_off(session):
    widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2, hide_bos=False)
    widget.wait(30)
    weights = iw.attention_patterns(session, PROMPT).sel(layer=1, head=2).values
    seen = weights[np.tril_indices(len(weights))]
    strong = [f"{w:.2f}".removeprefix("0") for w in seen if w >= 0.05 * seen.max()]
    in_cells = re.search(r'text-anchor="middle" font-size="10".*</g><g font-family', widget.to_svg())
    assert in_cells
    assert sorted(re.findall(r">([\d.]+)</text>", in_cells[0])) == sorted(strong)
    assert sorted(text for row in widget.figure().data[0].text for text in row if text) == sorted(strong)
    widget.value_labels = False
    assert 'font-size="10"' not in widget.to_svg()
    assert widget.figure().data[0].text is None


@pytest.mark.parametrize(("length", "root"), [(27, False), (28, True)])
def test_faint_weights_are_seen_where_numbers_have_no_room(session, length, root):
    prompt = random_ids(length)
    widget = iw.AttentionPattern(session, prompt, layer=1, head=2, hide_bos=False)
    widget.wait(30)
    weights = iw.attention_patterns(session, prompt).sel(layer=1, head=2).values.astype(float)
    seen = weights[np.tril_indices(length)]
    share = seen / seen.max()
    expected = [colour_at(float(s), "blue", diverging=False) for s in (np.sqrt(share) if root else share)]
    found = boxes(widget.to_svg())
    assert [found[place] for place in sorted(found)] == ["#{:02x}{:02x}{:02x}".format(*colour) for colour in expected]
    assert ("attention weight, square-root scale" in texts(widget.to_svg())) == root


def test_a_lens_of_a_long_prompt_is_as_wide_as_its_page_draws_it_with_the_last_band_open(long_model):
    prompt = random_ids(300)
    with iw.Session(long_model) as session:
        lens = iw.LogitLens(session, prompt, metric="kl")
        lens.wait(60)
        svg = lens.to_svg()
        values = iw.logit_lens(session, prompt, metric="kl")["kl"].values.astype(float)
        first = 300 // 16 * 16
        bands = [values[:, start : start + 16].max(1) for start in range(0, first, 16)]
        shown = np.column_stack([*bands, values[:, first:]])
        share = np.log1p(shown) / np.log1p(values.max())
        found = boxes(svg)
        expected = [colour_at(float(s), "blue", diverging=False) for s in share[::-1].ravel()]
        assert [found[at] for at in sorted(found)] == ["#{:02x}{:02x}{:02x}".format(*colour) for colour in expected]
        assert float(ET.fromstring(svg).get("width")) < 1500
        assert "0–15" in texts(svg)
        assert "narrow columns: the largest of up to 16 positions" in texts(svg)
        assert len(still(lens)) < 60_000
        lens.selection = iw.Selection(layer=0, position=20)
        assert {"0–15", "32–47", "288–299"} <= set(texts(lens.to_svg()))
        assert "16–31" not in texts(lens.to_svg())
        assert lens.figure().data[0].z.shape == values.shape


def test_a_head_and_a_map_of_a_long_prompt_are_binned_as_on_the_page(long_model):
    prompt = random_ids(300)
    other = [*prompt[:100], (prompt[100] + 1) % 90, *prompt[101:]]
    with iw.Session(long_model) as session:
        head = iw.AttentionPattern(session, prompt, layer=1, head=2, hide_bos=False)
        head.wait(60)
        svg = head.to_svg()
        # Position 0 alone, then pairs: 151 bins a side.
        assert len(boxes(svg)) == 151 * 152 // 2
        assert "a cell is the largest of up to 2 queries × 2 keys" in texts(svg)
        heatmap = iw.PatchingHeatmap(session, clean=prompt, corrupted=other)
        heatmap.wait(60)
        svg = heatmap.to_svg()
        assert len(boxes(svg)) == session.engine.architecture.n_layers * (1 + -(-200 // 16))
        assert {"0–99", "100–115"} <= set(texts(svg))
        assert "columns of several: the largest in size of up to 100 positions" in texts(svg)


def test_a_dash_says_that_a_cell_without_a_number_is_below_zero(session):
    widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED, site="z", normalize=False)
    widget.wait(30)
    effects = widget.result["effect"].values
    below = int((effects <= -0.05 * np.abs(effects).max()).sum())
    assert below > 1
    widget.value_labels = False
    assert dashes(widget.to_svg()) == below
    widget.value_labels = True
    assert dashes(widget.to_svg()) == 0
    attention = iw.AttentionPattern(session, PROMPT, value_labels=False)
    attention.wait(30)
    assert dashes(attention.to_svg()) == 0
