"""`save_as_seen` without a browser: what a page is asked for, and what is written of what it answers."""

from __future__ import annotations

import base64
import threading
from types import SimpleNamespace

import pytest

import interpwidgets as iw
from interpwidgets.widgets import displaying, saving
from tests.clicks import PROMPT, click

PNG = b"\x89PNG\r\n\x1a\n..."


@pytest.fixture
def shown(session):
    """A widget that is displayed."""
    widget = iw.AttentionPattern(session, PROMPT)
    widget.wait(30)
    widget._repr_mimebundle_()
    return widget


def answer(widget, **content):
    """What a page sends of itself."""
    widget._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})


@pytest.fixture
def page(shown):
    """Has a page's messages come on a thread of their own; takes what it answers to the next request."""
    thread = []

    def send(make, request):
        answer(shown, **{"picture": request["id"]} | make(request))

    def answers(make):
        def on_request(change):
            for request in change["new"]:
                thread.append(threading.Thread(target=send, args=[make, request]))
                thread[-1].start()

        shown.observe(on_request, names="_to_save")

    first = threading.Thread(target=lambda: click(shown, "stop"))
    first.start()
    first.join()
    yield answers
    for each in thread:
        each.join()


def test_a_page_is_asked_and_its_picture_is_there_when_the_call_returns(shown, page, tmp_path):
    asked = []

    def drawn(request):
        asked.append(request)
        return {"data": "<svg>Ω</svg>" if request["kind"] == "svg" else base64.b64encode(PNG).decode()}

    page(drawn)
    assert shown.save_as_seen(tmp_path / "a.svg", width=640)
    assert shown.save_as_seen(str(tmp_path / "b.PNG"), scale=4)
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == "<svg>Ω</svg>"
    assert (tmp_path / "b.PNG").read_bytes() == PNG
    assert [{k: v for k, v in each.items() if k != "id"} for each in asked] == [
        {"kind": "svg", "width": 640, "scale": 2, "times": 1},
        {"kind": "png", "width": None, "scale": 4, "times": 1},
    ]
    assert shown._to_save == []


def test_what_ran_is_shown_before_the_page_is_asked(session, shown, page, tmp_path):
    states = []

    def drawn(request):
        states.append(shown._status["state"])
        return {"data": "<svg/>"}

    page(drawn)
    shown.ablate(1, 2)
    assert shown.save_as_seen(tmp_path / "a.svg")
    assert states == ["idle"]


def test_where_a_page_is_heard_after_the_cell_the_file_is_written_then(shown, tmp_path):
    click(shown, "stop")  # messages come on this thread
    assert not shown.save_as_seen(tmp_path / "a.svg")
    assert not shown.save_as_seen(tmp_path / "b.svg")
    first, second = shown._to_save
    for request, text in ((second, "<svg>b</svg>"), (first, "<svg>a</svg>")):
        answer(shown, picture=request["id"], data=text)
    assert [(tmp_path / name).read_text() for name in ("a.svg", "b.svg")] == ["<svg>a</svg>", "<svg>b</svg>"]
    assert shown._to_save == []
    assert shown._status["error"] is None


def test_the_first_of_several_views_is_saved_and_nothing_that_was_not_asked_for(shown, tmp_path):
    click(shown, "stop")
    shown.save_as_seen(tmp_path / "a.svg")
    (request,) = shown._to_save
    for number, text in ((request["id"] + 1, "<svg>not asked</svg>"), (request["id"], "<svg/>"), (request["id"], "no")):
        answer(shown, picture=number, data=text)
    assert (tmp_path / "a.svg").read_text() == "<svg/>"
    assert [file.name for file in tmp_path.iterdir()] == ["a.svg"]


NO_PICTURES = pytest.mark.parametrize(
    ("sent", "error"),
    [({"error": "no image of 9 pixels"}, "no image of 9 pixels"), ({}, "sent no picture"), ({"data": 3}, "sent no")],
)


@NO_PICTURES
def test_what_a_page_cannot_draw_is_raised(shown, page, tmp_path, sent, error):
    page(lambda request: sent)
    with pytest.raises((RuntimeError, ValueError), match=error):
        shown.save_as_seen(tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()


@NO_PICTURES
def test_what_a_page_cannot_draw_is_said_in_the_widget_once_the_cell_has_ended(shown, tmp_path, sent, error):
    click(shown, "stop")
    assert not shown.save_as_seen(tmp_path / "a.svg")
    answer(shown, picture=shown._to_save[0]["id"], **sent)
    assert shown._status["error"]["title"] == "The picture was not saved"
    assert error in shown._status["error"]["text"]
    assert not (tmp_path / "a.svg").exists()


def test_a_file_that_cannot_be_written_is_said(shown, page, tmp_path):
    (tmp_path / "a.svg").mkdir()
    page(lambda request: {"data": "<svg/>"})
    with pytest.raises(OSError, match=r"a\.svg"):
        shown.save_as_seen(tmp_path / "a.svg")


def test_a_page_whose_answer_was_lost_is_asked_again(shown, page, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_AGAIN", 0.01)
    shown.observe(lambda change: times.extend(each["times"] for each in change["new"]), names="_to_save")
    times = []
    page(lambda request: {"data": "<svg/>"} if request["times"] == 3 else {"picture": 0})
    assert shown.save_as_seen(tmp_path / "a.svg")
    assert times[:3] == [1, 2, 3]
    assert (tmp_path / "a.svg").read_text() == "<svg/>"


def test_a_page_whose_only_message_came_before_there_was_a_subshell_is_heard(shown, tmp_path, monkeypatch):
    click(shown, "stop")
    monkeypatch.setattr(displaying, "_subshell_manager", lambda: SimpleNamespace(list_subshell=lambda: ["subshell"]))

    def drawn(change):
        for request in change["new"]:
            threading.Thread(target=answer, args=[shown], kwargs={"picture": request["id"], "data": "<svg/>"}).start()

    shown.observe(drawn, names="_to_save")
    assert shown.save_as_seen(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == "<svg/>"


def test_a_page_that_does_not_answer_is_not_waited_for_for_ever(shown, page, tmp_path):
    with pytest.raises(TimeoutError, match=r"within 0.05 s.*in front"):
        shown.save_as_seen(tmp_path / "a.svg", timeout=0.05)
    assert shown._to_save == []


def test_bad_arguments_are_refused(session, shown, tmp_path):
    for name, arguments, error in (
        ("a.pdf", {}, r"a.pdf.*\.png or \.svg"),
        ("a.svg", {"width": 10}, "width=10: from 50 to 20000 pixels"),
        ("a.png", {"scale": 0}, "scale=0: a number above 0"),
        ("a.png", {"scale": float("nan")}, "scale=nan: a number above 0"),
    ):
        with pytest.raises(ValueError, match=error):
            shown.save_as_seen(tmp_path / name, **arguments)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        shown.save_as_seen(tmp_path / "nowhere" / "a.svg")
    hidden = iw.AttentionPattern(session, PROMPT)
    with pytest.raises(RuntimeError, match="no page shows this widget: display it first"):
        hidden.save_as_seen(tmp_path / "a.svg")
