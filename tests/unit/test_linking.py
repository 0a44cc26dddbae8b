"""Linked widgets follow each other: selection, prompt and baseline."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

import interpwidgets as iw
from tests.clicks import CORRUPTED, PROMPT
from tests.models import encoder_decoder, tiny

ABLATION = iw.Ablate("z", layer=1, head=2)


@pytest.fixture
def other():
    with iw.Session(tiny("gpt2")) as session:
        yield session


def three(session, **heatmap):
    widgets = (
        iw.AttentionPattern(session, PROMPT),
        iw.LogitLens(session, PROMPT),
        iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED, **heatmap),
    )
    for widget in widgets:
        widget.wait(30)
    return widgets


def place(widget):
    return {name: value for name, value in widget.selection.to_json().items() if name != "token"}


def test_a_head_takes_the_others_to_its_layer(session):
    attention, lens, heatmap = three(session, site="z")
    iw.link(attention, lens, heatmap)
    attention.select(2, 3)
    assert place(lens) == {"layer": 2, "position": len(PROMPT) - 1}
    assert place(heatmap) == {"layer": 2, "head": 3}
    heatmap.wait(30)
    assert heatmap._patched["cells"] == [{"site": "z", "layer": 2, "head": 3, "position": None}]


def test_a_cell_takes_the_others_to_its_layer_and_position(session):
    attention, lens, heatmap = three(session)
    attention.select(0, 3)
    iw.link(attention, lens, heatmap)
    lens.selection = iw.Selection(layer=1, position=4)
    assert place(attention) == {"layer": 1, "head": 3}  # its head stays
    assert place(heatmap) == {"layer": 1, "position": 4}
    heatmap.selection = iw.Selection(layer=2, position=5)
    assert place(lens) == {"layer": 2, "position": 5}
    assert place(attention) == {"layer": 2, "head": 3}


def test_an_edge_stands_for_its_query(session):
    attention, lens, _ = three(session)
    iw.link(attention, lens)
    attention.cut(2, 1, 6, 3)
    attention.select(2, 1)
    attention.edge = [6, 3]
    assert place(lens) == {"layer": 2, "position": 6}
    lens.selection = iw.Selection(layer=2, position=1)
    assert attention.edge == [6, 3]  # a position alone is no edge


def test_what_a_widget_has_no_place_for_leaves_it(session, other):
    attention, lens, heatmap = three(session)
    small = iw.AttentionPattern(other, PROMPT[:4])
    iw.link(attention, lens, heatmap, small)
    attention.select(3, 3)
    before = place(attention), place(small)
    lens.selection = iw.Selection(layer=-1, position=2)  # the embedding has no attention, and is no cell of the map
    assert (place(attention), place(small)) == before
    assert place(heatmap) == {}
    heatmap.patch([{"site": "resid_pre", "layer": 0, "position": 3}, {"site": "resid_pre", "layer": 1, "position": 3}])
    lens.selection = iw.Selection(layer=2, position=7)
    assert len(heatmap._cells) == 2  # what is patched jointly stays


def test_what_is_let_go_of_pulls_nobody(session):
    attention, lens, _ = three(session)
    attention.select(2, 1)
    attention.edge = [6, 3]
    iw.link(attention, lens)
    lens.selection = iw.Selection(layer=0, position=1)
    attention.select(0, 1)
    assert place(lens) == {"layer": 0, "position": 1}
    attention.edge = [6, 3]
    lens.selection = iw.Selection(layer=3, position=0)
    attention.edge = []
    assert place(lens)["position"] == 0


def test_prompts_follow_and_a_heatmap_only_a_pair(session):
    attention, lens, heatmap = three(session)
    iw.link(attention, lens, heatmap)
    other = [7, *PROMPT[1:]]
    attention.run(other)
    assert lens._tokens.ids == tuple(other)
    assert (heatmap._clean.ids, heatmap._corrupted.ids) == (tuple(other), tuple(CORRUPTED))
    lens.run(PROMPT[:5])
    assert attention._tokens.ids == tuple(PROMPT[:5])
    assert heatmap._clean.ids == tuple(other)  # no pair with its corrupted prompt
    heatmap.run(CORRUPTED, PROMPT)
    assert lens._tokens.ids == attention._tokens.ids == tuple(CORRUPTED)
    lens.replace(2, token=9)
    assert attention._tokens.ids[2] == heatmap._clean.ids[2] == 9
    for widget in (attention, lens, heatmap):
        widget.wait(30)


def test_a_state_that_is_set_takes_the_others_along(session):
    attention, lens, _ = three(session)
    state = attention.state
    iw.link(attention, lens)
    lens.run(CORRUPTED)
    attention.state = state
    assert lens._tokens.ids == tuple(PROMPT)


def test_the_baseline_follows_between_lists_of_experiments(session, other):
    attention, _, _ = three(session)
    apart = iw.LogitLens(session, PROMPT, linked=False)
    elsewhere = iw.AttentionPattern(other, PROMPT)
    iw.link(attention, apart, elsewhere)
    session.interventions.append(ABLATION)
    session.interventions.pin()
    assert apart.experiments.baseline == other.interventions.baseline == (ABLATION,)
    assert len(apart.experiments) == 0  # what acts stays each one's own
    apart.experiments.unpin()
    assert session.interventions.baseline == other.interventions.baseline == ()
    other.interventions.baseline = [ABLATION]
    other.interventions.undo()
    assert session.interventions.baseline == ()


def test_a_baseline_that_a_model_does_not_have_leaves_it(session):
    with iw.Session(tiny("llama", num_hidden_layers=1)) as shallow:
        deep, flat = iw.LogitLens(session, PROMPT), iw.LogitLens(shallow, PROMPT)
        iw.link(deep, flat)
        session.interventions.baseline = [ABLATION]
        assert shallow.interventions.baseline == ()
        flat.wait(30)


@pytest.mark.parametrize("what", ["selection", "prompt", "baseline", "hover"])
def test_each_can_be_left_out(session, what):
    attention = iw.AttentionPattern(session, PROMPT)
    lens = iw.LogitLens(session, PROMPT, linked=False)
    iw.link(attention, lens, **{what: False})
    attention.select(1, 1)
    attention.run(CORRUPTED)
    session.interventions.baseline = [ABLATION]
    followed = {
        "selection": lens.selection != iw.Selection(),
        "prompt": lens._tokens.ids == tuple(CORRUPTED),
        "baseline": lens.experiments.baseline == (ABLATION,),
        "hover": lens._links == attention._links != [],
    }
    assert followed == {name: name != what for name in followed}


def test_closing_ends_it_and_a_closed_widget_leaves_the_others_linked(session):
    attention, lens, heatmap = three(session)
    link = iw.link(attention, lens, heatmap)
    heatmap.close()
    attention.select(2, 1)
    assert place(lens)["layer"] == 2
    link.close()
    link.close()
    attention.select(1, 1)
    attention.run(CORRUPTED)
    assert place(lens)["layer"] == 2
    assert lens._tokens.ids == tuple(PROMPT)
    assert attention._links == lens._links == []


def test_links_that_meet_in_a_widget_pass_on_and_end(session):
    attention, lens, heatmap = three(session)
    links = [iw.link(attention, lens), iw.link(lens, heatmap), iw.link(heatmap, attention)]
    attention.select(2, 1)
    lens.selection = iw.Selection(layer=1, position=3)
    assert place(attention)["layer"] == place(heatmap)["layer"] == 1
    for link in links:
        link.close()


def test_what_another_thread_does_meanwhile_is_passed_on_too(session):
    attention, lens, heatmap = three(session)
    iw.link(attention, lens, heatmap)

    def run_on_another_thread(change):
        thread = threading.Thread(target=attention.run, args=[CORRUPTED])
        thread.start()
        thread.join(10)

    lens.observe(run_on_another_thread, names="cell")  # while the link passes the heatmap's cell on
    heatmap.selection = iw.Selection(layer=1, position=3)
    assert lens._tokens.ids == attention._tokens.ids == tuple(CORRUPTED)


def test_a_link_keeps_no_widget_alive(session):
    attention, lens, _ = three(session)
    iw.link(attention, lens)
    reference = weakref.ref(lens)
    del lens
    gc.collect()
    assert reference() is None
    attention.select(1, 1)


def test_what_cannot_be_linked_is_refused(session):
    lens = iw.LogitLens(session, PROMPT)
    with pytest.raises(TypeError, match="a widget is needed"):
        iw.link(lens, session)
    with pytest.raises(ValueError, match="two widgets or more"):
        iw.link(lens, lens)


def test_an_encoders_layers_and_positions_are_nobody_elses():
    with iw.Session(encoder_decoder("bart")) as session:
        prompt = iw.SourceTarget([5, 17, 3, 44], [2, 7, 9])
        attention, lens = iw.AttentionPattern(session, prompt, stack="encoder"), iw.LogitLens(session, prompt)
        iw.link(attention, lens)
        attention.select(1, 1)
        assert place(lens) == {}
        lens.selection = iw.Selection(layer=0, position=2)
        assert place(attention) == {"layer": 1, "head": 1}
        attention.select(2, 3, stack="cross")
        assert place(lens) == {"layer": 2, "position": 2}
