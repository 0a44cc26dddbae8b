"""What most of these tests run: a session on a tiny model, new for each test, and one that reads long prompts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from transformers import PreTrainedModel

import interpwidgets as iw
from tests.models import tiny


@pytest.fixture
def session() -> Iterator[iw.Session]:
    with iw.Session(tiny("llama")) as session:
        yield session


@pytest.fixture(scope="module")
def long_model() -> PreTrainedModel:
    """A model of 512 positions."""
    return tiny("llama", max_position_embeddings=512)
