"""What a page asks for: carried out once and in order, the newest wins, errors are drawn, from any thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import interpwidgets as iw
from tests.clicks import PROMPT, click
from tests.sent import array


def test_errors_are_drawn_with_what_would_be_right_and_the_picture_stays(attention):
    before = attention._overview
    number = click(attention, "select", layer=9, head=0)
    assert attention._status["state"] == "error"
    assert attention._status["id"] == number
    assert "layers 0 to 3, heads 0 to 3" in attention._status["error"]["text"]
    click(attention, "run", prompt="5, x, 3")
    assert "no tokenizer: type token ids" in attention._status["error"]["text"]
    click(attention, "explode")
    assert "unknown request 'explode'" in attention._status["error"]["text"]
    assert attention._overview is before
    click(attention, "run", prompt="5, 17, 3")
    attention.wait(30)
    assert attention._status["error"] is None
    assert [t["id"] for t in attention._prompt["tokens"]] == [5, 17, 3]


def test_prompts_that_the_page_sends_as_ids_are_ids_and_what_it_sends_as_text_is_text():
    with iw.load() as demo:
        asked = demo.tokenize("The cat sat").ids
        attention = iw.AttentionPattern(demo, list(asked))
        assert attention._header["tokenizer"] is True
        assert attention._prompt["text"] is None
        click(attention, "run", prompt=[*asked, 17])
        attention.wait(60)
        assert [token["id"] for token in attention._prompt["tokens"]] == [*asked, 17]
        click(attention, "run", prompt="5, 17")
        attention.wait(60)
        assert attention._prompt["text"] == "5, 17"
        heatmap = iw.PatchingHeatmap(demo, clean=list(asked), corrupted=list(asked))
        heatmap.wait(120)
        click(heatmap, "run", clean=list(asked), corrupted=[*asked[:-1], 17])
        heatmap.wait(120)
        assert heatmap._status["error"] is None
        assert [token["id"] for token in heatmap._prompts["corrupted"]["tokens"]] == [*asked[:-1], 17]
        for wrong in ([], [5.5], [-1], ["5"], [10**400]):
            click(attention, "run", prompt=wrong)
            assert attention._status["state"] == "error"


def test_a_session_without_a_tokenizer_says_so(attention):
    assert attention._header["tokenizer"] is False


def test_requests_that_a_busy_kernel_missed_are_carried_out_once_and_in_order(session, attention):
    first = {"id": 2001, "op": "ablate", "layer": 0, "head": 1}
    click(attention, **first)
    second = {"id": 2002, "op": "ablate", "layer": 1, "head": 0}
    nonsense = [{"id": "2003", "op": "clear"}, 5, {"op": "clear"}]
    click(attention, id=2004, op="ablate", layer=1, head=1, before=[first, second, *nonsense])
    assert [(e.layer, e.head) for e in session.interventions] == [(0, 1), (1, 0), (1, 1)]
    click(attention, id=2005, op="undo", before="clear")
    assert [(e.layer, e.head) for e in session.interventions] == [(0, 1), (1, 0)]


def said_again(widget, request):
    """A request as the page says it once more, past the trait that its host holds back."""
    widget._handle_msg({"content": {"data": {"method": "custom", "content": {"request": request}}}, "buffers": []})


def test_a_request_that_is_said_twice_is_carried_out_once_whichever_comes_first(session, attention):
    first = {"id": 5, "op": "ablate", "layer": 0, "head": 0}
    second = {"id": 6, "op": "ablate", "layer": 1, "head": 0, "before": [first]}
    said_again(attention, first)
    assert len(session.interventions) == 1
    said_again(attention, first)
    click(attention, **first)
    assert len(session.interventions) == 1
    said_again(attention, second)
    click(attention, **second)
    assert len(session.interventions) == 2
    third = {"id": 7, "op": "ablate", "layer": 0, "head": 0}
    click(attention, **third)
    said_again(attention, third)
    assert [e.intervention.layer for e in session.interventions.entries] == [1]
    attention.wait(60)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"request": 3},
        {"request": {"id": [1]}},
        {"request": {"op": "undo"}},
        {},
        {"picture": [1]},
        {"picture": 1},
    ],
)
def test_what_is_no_request_is_passed_over(session, attention, content):
    attention._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    assert not session.interventions.entries
    assert attention._status["error"] is None


def test_a_newer_request_wins_over_an_older_one(session, attention):
    release, entered = threading.Event(), threading.Event()

    def wait_in_block(module, args):
        if threading.current_thread().name == "interpwidgets-worker" and not entered.is_set():
            entered.set()
            release.wait(30)

    handle = session.model.model.layers[2].register_forward_pre_hook(wait_in_block)
    attention.run([7, 8, 9])
    assert entered.wait(30)
    attention.run([10, 11, 12, 13])
    release.set()
    attention.wait(30)
    handle.remove()
    assert [t["id"] for t in attention._prompt["tokens"]] == [10, 11, 12, 13]


def test_stop_keeps_the_last_picture(session, heatmap):
    release, entered = threading.Event(), threading.Event()

    def wait_in_block(module, args):
        if threading.current_thread().name == "interpwidgets-worker" and not entered.is_set():
            entered.set()
            release.wait(30)

    before = array(heatmap._sweep["values"]).copy()
    handle = session.model.model.layers[2].register_forward_pre_hook(wait_in_block)
    click(heatmap, "set", metric="probability")
    assert entered.wait(30)
    click(heatmap, "stop")
    release.set()
    heatmap.wait(30)
    handle.remove()
    assert heatmap._status["state"] == "cancelled"
    assert np.array_equal(array(heatmap._sweep["values"]), before)


def test_clicks_from_many_threads_end_in_one_consistent_picture(session, attention, lens, heatmap):
    def work(seed):
        draw = np.random.default_rng(seed)
        for _ in range(6):
            attention.ablate(int(draw.integers(4)), int(draw.integers(4)))
            lens.refresh()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for widget in (attention, lens, heatmap):
        widget.wait(60)
    logits = session.run(PROMPT, interventions=list(session.interventions)).logits.values[-1]
    probabilities = torch.from_numpy(logits).softmax(-1)
    for row in attention._predictions["rows"]:
        shown = row.get("now", row["baseline"])
        assert shown == pytest.approx(float(probabilities[row["id"]]), abs=1e-6)


def test_a_change_that_is_submitted_late_does_not_replace_the_picture_of_a_newer_one(session, attention):
    submit, stalled, go_on = attention._submit, threading.Event(), threading.Event()

    def submit_late(compute, lane="view"):
        attention._submit = submit
        stalled.set()
        go_on.wait(1)
        submit(compute, lane)

    attention._submit = submit_late
    first = threading.Thread(target=lambda: attention.ablate(0, 1))
    first.start()
    assert stalled.wait(30)
    attention.ablate(1, 2)
    go_on.set()
    first.join(30)
    attention.wait(30)
    assert attention._overview["ablated"] == [[0, 1, "zero"], [1, 2, "zero"]]
    logits = session.run(PROMPT, interventions=list(session.interventions)).logits.values[-1]
    probabilities = torch.from_numpy(logits).softmax(-1)
    assert attention._predictions["rows"]
    for row in attention._predictions["rows"]:
        assert row["now"] == pytest.approx(float(probabilities[row["id"]]), abs=1e-6)


def test_a_failed_run_is_drawn_until_it_has_run_whatever_is_clicked_meanwhile(session, attention):
    session.interventions.append(iw.Ablate("z", layer=1, head=0, position=6))
    click(attention, "run", prompt=PROMPT[:3])
    with pytest.raises(ValueError, match="position 6 is out of range"):
        attention.wait(30)
    click(attention, "select", layer=2, head=1)
    assert "position 6 is out of range" in attention._status["error"]["text"]
    click(attention, "select", layer=99, head=1)
    assert "no attention head 1 in layer 99" in attention._status["error"]["text"]
    click(attention, "select", layer=2, head=2)
    assert "position 6 is out of range" in attention._status["error"]["text"]
    with pytest.raises(ValueError, match="position 6 is out of range"):
        attention.wait(30)
    assert "The picture is from the run before" in attention.static_frame()
    click(attention, "clear")
    attention.wait(30)
    assert attention._status["error"] is None
    assert "from the run before" not in attention.static_frame()


def test_what_was_stopped_is_an_older_picture_until_it_has_run(session, attention):
    click(attention, "stop")
    assert attention._status["state"] == "idle"  # there was nothing to stop
    with session.publishing:  # the run cannot end
        click(attention, "ablate", layer=1, head=1)
        click(attention, "stop")
        assert attention._status["state"] == "cancelled"
        click(attention, "select", layer=1, head=3)
        assert attention._status["state"] == "cancelled"
    attention.refresh()
    attention.wait(30)
    assert attention._status["state"] == "idle"
