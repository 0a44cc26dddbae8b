"""What is chosen and what is shown, as Python reads, sets and observes them."""

from __future__ import annotations

import numpy as np
import pytest
import traitlets

import interpwidgets as iw
from tests.clicks import CORRUPTED, PROMPT, click
from tests.sent import array, head


def ready(widget):
    widget.wait(30)
    return widget


def seen(widget, name):
    values = []
    widget.observe(lambda change: values.append(change["new"]), names=name)
    return values


@pytest.mark.parametrize("way", ["select", "layer and head", "selection", "click"])
def test_a_head_is_shown_in_whichever_way_it_is_chosen(session, way):
    widget = ready(iw.AttentionPattern(session, PROMPT))
    chosen = seen(widget, "selection")
    if way == "select":
        widget.select(2, 3)
    elif way == "layer and head":
        widget.layer = 2
        widget.head = 3
    elif way == "selection":
        widget.selection = iw.Selection(layer=2, head=3)
    else:
        click(widget, "select", layer=2, head=3)
    assert (widget.layer, widget.head) == (2, 3)
    assert np.array_equal(head(widget), iw.attention_patterns(session, PROMPT).sel(layer=2, head=3))
    assert widget.selection == chosen[-1] == iw.Selection(layer=2, head=3)
    assert len(chosen) == (2 if way == "layer and head" else 1)


def test_an_edge_is_chosen_by_cutting_it_and_let_go_with_its_head(session):
    widget = ready(iw.AttentionPattern(session, PROMPT, layer=1, head=2))
    click(widget, "cut", layer=1, head=2, query=6, key=3)
    assert widget.selection == iw.Selection(layer=1, head=2, query=6, key=3)
    assert widget.edge == [6, 3]
    widget.selection = iw.Selection(layer=1, head=2, query=4, key=4)
    assert widget.edge == [4, 4]
    assert len(session.interventions) == 1  # to choose an edge is not to cut it
    widget.select(3, 0)
    assert widget.selection == iw.Selection(layer=3, head=0)
    widget.edge = [2, 1]
    widget.run(PROMPT[:2])
    assert widget.selection.query is None


def test_the_lens_cell_and_its_selection_are_one(session):
    widget = ready(iw.LogitLens(session, PROMPT))
    assert widget.selection == iw.Selection()
    widget.cell = [0, 5]
    assert widget.selection == iw.Selection(layer=-1, position=5, token=PROMPT[5])
    widget.selection = iw.Selection(layer=2, position=3)
    assert widget.cell == [3, 3]
    assert widget.selection.token == PROMPT[3]
    widget.replace(3, token=9)
    assert widget.selection.token == 9
    widget.run(PROMPT[:2])
    assert widget.selection == iw.Selection(layer=2, position=1, token=PROMPT[1])
    widget.selection = iw.Selection()
    assert widget.cell == []


def test_choosing_a_cell_of_the_heatmap_patches_it(session):
    widget = ready(iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED))
    widget.selection = iw.Selection(layer=2, position=3)
    ready(widget)
    assert widget.selection == iw.Selection(layer=2, position=3, token=PROMPT[3])
    assert widget._patched["cells"] == [{"site": "resid_pre", "layer": 2, "head": None, "position": 3}]
    cells = [{"site": "resid_pre", "layer": layer, "position": 6} for layer in (0, 1)]
    click(widget, "patch", cells=cells)
    assert widget.selection == iw.Selection(layer=1, position=6, token=PROMPT[6])
    widget.set(site="z")
    assert widget.selection == iw.Selection()
    widget.selection = iw.Selection(layer=0, head=2)
    ready(widget)
    assert widget._patched["cells"] == [{"site": "z", "layer": 0, "head": 2, "position": None}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"layer": 9, "head": 0}, "no attention head 0 in layer 9"),
        ({"layer": 1}, "head=None: a whole number"),
        ({"layer": 1, "head": 0, "query": 1, "key": 2}, "keys come before queries"),
        ({"layer": 1, "head": 0, "query": 1}, "key=None"),
        ({"layer": 1, "head": 0, "position": 1}, "has no position to choose"),
    ],
)
def test_what_cannot_be_chosen_is_refused_and_nothing_changes(session, given, said):
    widget = ready(iw.AttentionPattern(session, PROMPT, layer=1, head=2))
    with pytest.raises(traitlets.TraitError, match=said):
        widget.selection = iw.Selection(**given)
    assert widget.selection == iw.Selection(layer=1, head=2)
    assert (widget.layer, widget.head, widget.edge) == (1, 2, [])


def test_selections_of_the_wrong_kind_are_refused(session):
    lens = ready(iw.LogitLens(session, PROMPT))
    heatmap = ready(iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED))
    for widget, given in ((lens, {"layer": 1}), (lens, {"layer": 4, "position": 0}), (lens, {"layer": 1, "head": 1})):
        with pytest.raises(traitlets.TraitError):
            widget.selection = iw.Selection(**given)
    for given in ({"position": 3}, {"layer": 0, "head": 1}, {"layer": 4, "position": 0}, {"layer": 0, "query": 0}):
        with pytest.raises(traitlets.TraitError):
            heatmap.selection = iw.Selection(**given)
    for widget in (lens, heatmap):
        with pytest.raises(traitlets.TraitError, match=r"iw\.Selection\(token=5\): a token follows from its place"):
            widget.selection = iw.Selection(token=5)
    with pytest.raises(TypeError, match=r"layer=1\.5: a whole number"):
        iw.Selection(layer=1.5)
    assert (lens.selection, heatmap.selection) == (iw.Selection(), iw.Selection())
    assert iw.Selection.from_json(iw.Selection(layer=-1, position=2).to_json()) == iw.Selection(layer=-1, position=2)
    assert eval(repr(iw.Selection(layer=1, head=0)), {"iw": iw}) == iw.Selection(layer=1, head=0)


def test_the_result_of_attention_is_the_selected_heads_pattern_and_its_baseline(session):
    widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2)
    results = seen(widget, "result")
    ready(widget)
    plain = iw.attention_patterns(session, PROMPT)
    assert np.array_equal(widget.result["pattern"], plain.sel(layer=1, head=2))
    widget.ablate(0, 1)
    ready(widget)
    now = iw.attention_patterns(session, PROMPT, list(session.interventions))
    widget.selection = iw.Selection(layer=3, head=0)
    assert results[-1] is widget.result
    assert np.allclose(widget.result["pattern"], now.sel(layer=3, head=0), atol=1e-6)
    assert np.array_equal(widget.result["baseline"], plain.sel(layer=3, head=0))
    assert (int(widget.result["layer"]), int(widget.result["head"])) == (3, 0)
    frame = widget.result.to_dataframe()
    assert list(frame.index.names) == ["query", "key"]
    assert frame.loc[(5, 2), "baseline"] == float(plain.sel(layer=3, head=0, query=5, key=2))


def test_the_result_of_the_lens_has_both_runs(session):
    widget = ready(iw.LogitLens(session, PROMPT, tracked=[5, 7]))
    results = seen(widget, "result")
    assert widget.result.sel(run="now").equals(widget.result.sel(run="baseline").assign_coords(run="now"))
    widget.transplant((1, 1), (2, 5))
    ready(widget)
    assert len(results) == 1
    now = iw.logit_lens(session, PROMPT, interventions=list(session.interventions), track=[5, 7])
    assert np.array_equal(widget.result["top_token"].sel(run="now"), now["top_token"])
    assert np.allclose(widget.result["tracked_probability"].sel(run="now"), now["tracked_probability"], atol=1e-6)
    assert not np.array_equal(widget.result["probability"][0], widget.result["probability"][1])
    assert {"run", "layer", "position", "k", "token"} == set(widget.result.to_dataframe().index.names)


def test_the_result_of_the_heatmap_is_its_map(session):
    widget = ready(iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED))
    results = seen(widget, "result")
    expected = iw.patch_sweep(session, PROMPT, CORRUPTED, normalize=False)
    share = iw.patch_sweep(session, PROMPT, CORRUPTED)
    assert np.allclose(widget.result["value"], expected, atol=1e-5)
    assert np.allclose(widget.result["effect"], share, atol=1e-5)
    assert widget.result.attrs["metric"] == "logit_diff"
    assert np.array_equal(array(widget._sweep["values"]), widget.result["value"].astype("float32"))
    widget.set(normalize=False)
    assert np.allclose(widget.result["effect"], expected - widget.result.attrs["corrupted"], atol=1e-5)
    widget.set(site="z")
    ready(widget)
    assert widget.result["value"].dims == ("layer", "head")
    assert len(results) == 2
    assert list(widget.result.to_dataframe().columns) == ["effect", "value"]
