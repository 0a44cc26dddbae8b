"""The workbench: three linked widgets in one figure."""

from __future__ import annotations

import gc
import json
import re
import weakref

import pytest
from ipywidgets.widgets.widget import _instances

import interpwidgets as iw
from tests.clicks import CORRUPTED, PROMPT, click


def opened(session, *arguments, **named):
    workbench = iw.Workbench(session, *arguments, **named)
    workbench.wait(60)
    return workbench


def test_it_is_three_linked_widgets_of_one_prompt(session):
    workbench = opened(session, PROMPT, CORRUPTED, answer=5, foil=6)
    widgets = [workbench.attention, workbench.lens, workbench.heatmap]
    assert list(workbench.children) == widgets
    assert [w._embedded for w in widgets] == [False, True, True]
    assert workbench.heatmap._task["answer"]["id"] == 5
    workbench.attention.select(2, 1)
    assert workbench.lens.selection.layer == 2
    workbench.lens.run([7, *PROMPT[1:]])
    assert workbench.attention._tokens.ids == workbench.heatmap._clean.ids == (7, *PROMPT[1:])
    session.interventions.append(iw.Ablate("z", layer=1, head=2))
    workbench.wait(60)
    assert [len(w._experiments) for w in widgets] == [1, 1, 1]


def test_without_a_corrupted_prompt_the_heatmap_waits_for_compare(session):
    workbench = opened(session, PROMPT)
    assert workbench.heatmap is None
    assert "workbench.compare(corrupted)" in workbench.children[-1].value
    workbench.lens.run(CORRUPTED)
    workbench.compare(PROMPT)
    workbench.wait(60)
    assert workbench.heatmap._clean.ids == tuple(CORRUPTED)  # the prompt that is shown
    assert list(workbench.children) == [workbench.attention, workbench.lens, workbench.heatmap]
    first = workbench.heatmap
    with pytest.raises(ValueError, match="same number of tokens"):
        workbench.compare(PROMPT[:3])
    assert workbench.heatmap is first
    workbench.compare([9, *CORRUPTED[1:]])
    assert first not in session.widgets
    workbench.attention.select(2, 1)
    assert workbench.lens.selection.layer == 2


def test_a_pair_that_cannot_be_leaves_no_widget_behind(session):
    with pytest.raises(ValueError, match="same number of tokens"):
        iw.Workbench(session, PROMPT, PROMPT[:3])
    with pytest.raises(ValueError, match="10000"):
        iw.Workbench(session, [10_000])
    assert len(session.widgets) == 0


def test_closing_it_closes_all(session):
    workbench = opened(session, PROMPT, CORRUPTED)
    workbench.close()
    workbench.close()
    assert len(session.widgets) == 0
    assert workbench.comm is None


def test_it_is_held_only_while_it_can_be_seen(session):
    gc.collect()
    before = set(_instances)
    workbench = opened(session, PROMPT)
    workbench._view_count = 1
    alive = weakref.ref(workbench)
    del workbench
    gc.collect()
    assert alive() is not None
    alive()._view_count = 0
    gc.collect()
    assert alive() is None
    assert len(session.widgets) == 0
    assert set(_instances) <= before


def test_its_widgets_are_displayed_with_it(session, tmp_path):
    workbench = opened(session, PROMPT)
    with pytest.raises(RuntimeError, match="no page shows this widget"):
        workbench.lens.save_as_seen(tmp_path / "lens.svg")
    workbench._repr_mimebundle_()
    assert not workbench.lens.save_as_seen(tmp_path / "lens.svg")
    workbench.close()


def test_its_still_picture_is_that_of_the_three(session):
    workbench = opened(session, PROMPT, CORRUPTED)
    data, _ = workbench._repr_mimebundle_()
    for title in ("Attention pattern", "Logit lens", "Patching heatmap"):
        assert f"<b>{title}</b>" in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


LOOKS = {"palette": "cividis", "value_labels": False, "size": "presenter", "figure_mode": "page", "teaching": True}


def looks_of(*widgets):
    """Each look, by the values that it has in these."""
    return {name: {getattr(widget, name) for widget in widgets} for name in LOOKS}


def results_of(page):
    """Of each widget of a page, what acts in its results and the prompt, or the clean one, that they are of."""

    def said(experiments, question, **_):
        return [entry["code"] for entry in experiments], question.get("prompt") or question["clean"]

    data = json.loads(re.search(r'id="iw-page-data">(.*?)</script>', page, re.S)[1])
    return [[said(**result) for result in part["results"]] for part in data["widgets"]]


def test_its_page_has_the_runs_that_all_three_have_shown_of_their_prompts(session, tmp_path):
    workbench = opened(session, CORRUPTED, PROMPT)
    workbench.attention.run(PROMPT)
    workbench.wait(60)
    # Too many for the heatmap, whose other maps are results too; the first of its results goes.
    for head in range(2):
        workbench.attention.ablate(1, head)
        workbench.wait(60)
    first, second = (f"iw.Ablate('z', layer=1, head={head})" for head in range(2))
    for site in ("z", "q", "k", "v", "attn_out", "mlp_out"):
        workbench.heatmap.site = site
        workbench.wait(60)
    page = workbench.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    with_one, with_both = ([first], PROMPT), ([first, second], PROMPT)
    attention, lens, heatmap = results_of(page)
    assert attention == lens == [with_one, with_both]
    assert heatmap == [with_one, *7 * [with_both]]


def test_a_click_on_save_in_its_header_saves_the_page_of_all_three(session):
    workbench = opened(session, PROMPT, CORRUPTED)
    for widget, name, widgets in ((workbench.attention, "workbench.html", 3), (workbench.lens, "logit-lens.html", 1)):
        sent = []
        widget.observe(lambda change, sent=sent: sent.append(change["new"]), names="_saved")
        click(widget, "to_html")
        assert sent[0]["name"] == name
        assert len(results_of(sent[0]["text"])) == widgets


def code_in(page):
    return json.loads(re.search(r'id="iw-page-data">(.*?)</script>', page, re.S)[1])["code"]


def test_its_page_has_the_code_of_all_three_if_it_opens_on_what_is_asked(session):
    workbench = opened(session, PROMPT, CORRUPTED)
    assert code_in(workbench.to_html()) == workbench.code()
    assert code_in(workbench.lens.to_html()) is None
    sent = []
    workbench.attention.observe(lambda change: sent.append(change["new"]), names="_saved")
    with session.publishing:  # the run cannot end
        workbench.attention.ablate(1, 2)
        click(workbench.attention, "to_html")
    assert code_in(sent[0]["text"]) is None
    workbench.wait(60)


def test_before_all_three_have_shown_what_is_asked_there_is_no_page_to_save(session):
    workbench = opened(session, PROMPT, CORRUPTED)
    with session.publishing:  # the run cannot end
        workbench.attention.run(CORRUPTED)
        workbench.lens.stop()
    with pytest.raises(RuntimeError, match="no run of what is asked has finished in all three"):
        workbench.to_html()


def test_a_look_that_is_chosen_in_one_of_its_widgets_holds_for_all(session):
    workbench = opened(session, PROMPT, CORRUPTED)
    apart = iw.LogitLens(session, PROMPT)
    of_all = [workbench, workbench.attention, workbench.lens, workbench.heatmap]
    for name, value in LOOKS.items():
        workbench.lens.set_state({name: value})  # as its page does
        assert looks_of(*of_all)[name] == {value}
    workbench.heatmap.size = "normal"
    workbench.palette = "blue"
    assert looks_of(*of_all) == {name: {v} for name, v in (LOOKS | {"size": "normal", "palette": "blue"}).items()}
    assert apart.size == "normal"
    assert not apart.teaching
    assert all(widget._help["terms"] for widget in of_all[1:])


def test_looks_are_given_to_a_workbench_as_to_a_widget(session):
    workbench = opened(session, PROMPT, **LOOKS)
    workbench.compare(CORRUPTED)
    before = workbench.heatmap
    workbench.compare(CORRUPTED)
    before.size = "normal"  # closed by then
    given = {name: {value} for name, value in LOOKS.items()}
    assert looks_of(workbench, workbench.attention, workbench.lens, workbench.heatmap) == given
    count = len(session.widgets)
    with pytest.raises(ValueError, match="unknown setting 'sise'; did you mean 'size'"):
        iw.Workbench(session, PROMPT, sise="presenter")
    assert len(session.widgets) == count


@pytest.fixture(scope="module")
def demo():
    with iw.load() as session:
        yield session


def test_a_preset_adds_the_heatmap_that_was_missing(demo):
    workbench = opened(demo, "The cat sat on the")
    assert workbench.heatmap is None
    preset = iw.PRESETS[1]
    workbench.lens.preset(preset.name)
    workbench.wait(120)
    assert workbench.children == (workbench.attention, workbench.lens, workbench.heatmap)
    assert (workbench.heatmap._clean.text, workbench.heatmap._corrupted.text) == (preset.clean, preset.corrupted)
    assert workbench.attention._tokens.text == workbench.lens._tokens.text == preset.clean
    workbench.attention.select(3, 1)
    assert workbench.heatmap._links == workbench.lens._links == workbench.attention._links
    workbench.close()


def test_a_presets_prompt_brings_its_pair_and_others_follow_it(demo):
    first, other = iw.PRESETS[:2]
    workbench = opened(demo, first.clean)
    assert workbench.heatmap._corrupted.text == first.corrupted
    assert workbench.heatmap._task["answer"]["id"] == demo.token_id(first.answer)
    workbench.attention.preset(other.name)
    workbench.wait(60)
    assert workbench.lens._tokens.text == other.clean
    assert (workbench.heatmap._clean.text, workbench.heatmap._corrupted.text) == (other.clean, other.corrupted)
    assert workbench.heatmap._task["foil"]["id"] == demo.token_id(other.foil)
    workbench.close()


def test_another_prompt_than_the_presets_is_measured_by_what_the_two_predict(demo):
    workbench = opened(demo, iw.PRESETS[0].clean)
    workbench.attention.run(iw.PRESETS[0].clean.replace("Mary", "Kate"))
    workbench.wait(60)
    task = workbench.heatmap._task
    assert [task[side]["text"] for side in ("answer", "foil")] == ["␣Kate", "␣John"]
    workbench.close()


def test_a_workbench_whose_session_was_closed_says_so(session):
    workbench = opened(session, PROMPT, CORRUPTED)
    session.close()
    with pytest.raises(RuntimeError, match="this workbench is closed: make a new one"):
        workbench.compare(PROMPT)
    workbench.close()
