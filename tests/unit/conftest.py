"""What most of these tests run: a session on a tiny model with its widgets, new for each test, and long prompts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from transformers import PreTrainedModel

import interpwidgets as iw
from tests.clicks import CORRUPTED, PROMPT
from tests.models import tiny


@pytest.fixture
def session() -> Iterator[iw.Session]:
    with iw.Session(tiny("llama")) as session:
        yield session


@pytest.fixture
def attention(session: iw.Session) -> iw.AttentionPattern:
    widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2)
    widget.wait(30)
    return widget


@pytest.fixture
def lens(session: iw.Session) -> iw.LogitLens:
    widget = iw.LogitLens(session, PROMPT)
    widget.wait(30)
    return widget


@pytest.fixture
def heatmap(session: iw.Session) -> iw.PatchingHeatmap:
    widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED)
    widget.wait(30)
    return widget


@pytest.fixture(scope="module")
def long_model() -> PreTrainedModel:
    """A model of 512 positions."""
    return tiny("llama", max_position_embeddings=512)
