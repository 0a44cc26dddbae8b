"""Text from the model or the user is displayed as text, and all of it can be seen."""

from __future__ import annotations

import sys
import unicodedata
from html.parser import HTMLParser

import pytest
from comm.base_comm import BaseComm
from ipywidgets.widgets.widget import _remove_buffers
from jupyter_client.session import json_packer

import interpwidgets as iw
from interpwidgets.tokens import elide, visible
from tests.clicks import click
from tests.embedded import opened
from tests.hostile import CORRUPTED, PROMPT, SHOWN, hostile_session
from tests.models import tiny
from tests.tiny_tokenizers import VOCABULARY, byte_level

LONE = "\ud83d"
KINDS = ("attention", "lens", "heatmap")


@pytest.fixture(scope="module")
def session():
    with hostile_session() as session:
        yield session


def make(kind, session, prompt=PROMPT, corrupted=CORRUPTED):
    widget = {
        "attention": lambda: iw.AttentionPattern(session, prompt, hide_bos=False),
        "lens": lambda: iw.LogitLens(session, prompt),
        "heatmap": lambda: iw.PatchingHeatmap(session, clean=prompt, corrupted=corrupted),
    }[kind]()
    widget.wait(30)
    return widget


class Page(HTMLParser):
    """What a browser makes of HTML: its elements, their attributes' names and the text of each element."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), set(), []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("kind", KINDS)
def test_the_static_frame_has_our_elements_only(session, kind):
    widget = make(kind, session)
    page = Page(opened(widget.static_frame()))
    assert page.tags <= {
        "div",
        "b",
        "button",
        "svg",
        "g",
        "lineargradient",
        "path",
        "details",
        "pre",
        "rect",
        "summary",
        "stop",
        "text",
        "table",
        "tr",
        "th",
        "td",
    }
    assert not {name for name in page.attributes if name.startswith("on") or name in ("src", "href")}
    for shown in SHOWN.values():
        assert any(elide(shown, length) in page.texts for length in (7, 8, 16, 64)), shown
    assert len(widget.static_frame()) < 100_000


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_in_the_display_bundle_is_text(session, kind):
    name, session.name = session.name, "<script>alert(1)</script>"
    try:
        data, _ = make(kind, session)._repr_mimebundle_()
    finally:
        session.name = name
    assert "<script" not in data["text/html"]
    assert "script" not in Page(data["text/html"]).tags


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_gives_plotly_no_markup_to_read(session, kind):
    figure = make(kind, session).figure()
    layout, trace = figure.layout, figure.data[0]
    labels = [*layout.xaxis.ticktext, *layout.yaxis.ticktext, *[t for row in trace.text or () for t in row]]
    assert not [label for label in labels if set(label) & set("<>$")]
    assert {"&lt;b&gt;bold&lt;/b&gt;", "&amp;lt;", "&#36;x^2&#36;"} <= set(labels)
    assert max(map(len, labels)) < 24 * len("&amp;")
    json_packer(figure.to_dict() | {"data": []})


def test_display_strings_are_those_that_were_meant(session):
    tokens = session.tokenize(PROMPT)
    assert tokens.strings == tuple(SHOWN.values())
    assert tokens.text == PROMPT


def test_no_character_is_blank_or_turns_the_line():
    unseen = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}
    characters = (chr(i) for i in range(sys.maxunicode + 1))
    for character in (c for c in characters if unicodedata.category(c) in unseen):
        shown = visible(character)
        assert shown.isprintable(), repr(character)
        assert shown.strip(), repr(character)
        shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u0301", "◌\u0301"),  # an accent without its letter
        ("e\u0301", "e\u0301"),
        ("❤\ufe0f", "❤⟨EF B8 8F⟩"),  # another token than ❤ alone
        ("\u115f", "⟨E1 85 9F⟩"),
        ("\u2800", "⟨E2 A0 80⟩"),
        ("\x00", "⟨00⟩"),
        (LONE, "⟨ED A0 BD⟩"),
        ("a b", "a␣b"),
        ("", ""),
    ],
)
def test_what_draws_nothing_shows_its_bytes(text, shown):
    assert visible(text) == shown


class Wire(BaseComm):
    """A channel that makes bytes of every message, as a kernel's does."""

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        packed.append(json_packer(data))


packed: list[bytes] = []


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_surrogate_pair_is_refused_and_drawn(session, kind):
    widget = make(kind, session)
    widget.comm = Wire(target_name="jupyter.widget")
    packed.clear()
    prompts = {"clean": f"the{LONE}", "corrupted": "a"} if kind == "heatmap" else {"prompt": f"the{LONE}"}
    click(widget, "run", **prompts)
    error = widget._status["error"]["text"]
    assert error.startswith(r"character 3 of the text, '\ud83d', is half of a surrogate pair, which no tokenizer reads")
    assert any(b"which no tokenizer reads" in message for message in packed)
    assert any(b"echo_update" in message for message in packed)


def test_an_error_hides_nothing_of_what_it_quotes(session):
    widget = make("attention", session)
    click(widget, "run", prompt=[0.5], **{"a\u202eb": 1})
    assert widget._status["error"]["text"].endswith(r"unexpected keyword argument 'a\u202eb'")


@pytest.mark.parametrize("text", [LONE, f"the {LONE}s", "\udc80"])
def test_half_a_surrogate_pair_is_refused_everywhere(session, text):
    for ask in (
        lambda: session.run(text),
        lambda: session.generate(text, 1),
        lambda: session.token_id(text),
        lambda: session.text_ids(text),
        lambda: iw.LogitLens(session, text),
    ):
        with pytest.raises(ValueError, match="is half of a surrogate pair"):
            ask()


class Surrogates:
    """A tokenizer in Python, whose pieces may be anything that Python calls text."""

    def __init__(self):
        self.inner = byte_level(add_bos=False)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __len__(self):
        return len(self.inner)

    def __call__(self, *arguments, **options):
        return self.inner(*arguments, **options)

    def convert_ids_to_tokens(self, token_id):
        return f"{LONE}{token_id}"

    def convert_tokens_to_string(self, pieces):
        return "".join(pieces)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_and_names_with_half_a_surrogate_pair_reach_the_page(kind):
    with iw.Session(tiny("llama", vocab_size=VOCABULARY), Surrogates()) as session:
        session.name = "caf\udce9"  # how Python spells a folder's name that is no UTF-8
        widget = make(kind, session, "a the", "s the")
        state, _, _ = _remove_buffers(widget.get_state())
        sent = json_packer(state).decode()
        assert "⟨ED A0 BD⟩261" in sent
        assert r"caf\\udce9" in sent
        data, _ = widget._repr_mimebundle_()
        assert r"caf\udce9" in data["text/html"]
        json_packer(data)


@pytest.mark.parametrize("kind", KINDS)
def test_very_long_tokens_are_sent_in_short(session, kind):
    widget = make(kind, session)
    state, _, _ = _remove_buffers(widget.get_state())

    def longest(value, key=""):
        if isinstance(value, str):
            return 0 if key in ("text", "raw", "_code", "_esm", "_css") and "y" * 10_000 in value else len(value)
        if isinstance(value, dict):
            return max((longest(v, k) for k, v in value.items() if k not in ("_esm", "_css")), default=0)
        return max((longest(v, key) for v in value), default=0) if isinstance(value, list | tuple) else 0

    assert longest(state) < 300
    shown = [t["text"] for t in (state.get("_prompt") or state["_prompts"]["clean"])["tokens"]]
    assert shown == list(SHOWN.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_a_hostile_prompt_rebuilds_the_view(session, kind):
    widget = make(kind, session)
    names = {"iw": iw, "session": session}
    exec(widget.code(), names)
    names["widget"].wait(30)
    assert names["widget"].code() == widget.code()
