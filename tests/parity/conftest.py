"""The pairs of sessions and TransformerLens bridges that the parity tests share: six tiny families, the demo model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import interpwidgets as iw
from tests.models import tiny
from tests.parity.bridge import ANSWER, CLEAN, CORRUPTED, FOIL, IOI, Pair, paired

# GPT-NeoX has no key/value heads of their own, but TransformerLens would believe a config that names some.
SMALL: dict[str, dict[str, Any]] = {
    "gpt2": {}, "gpt_neox": {"num_key_value_heads": 4}, "gpt_neox-sequential": {"num_key_value_heads": 4},
    "llama": {}, "qwen3": {}, "gemma2": {},
}  # fmt: skip


@pytest.fixture(scope="session", params=SMALL)
def small(request: pytest.FixtureRequest) -> Iterator[Pair]:
    model = tiny(request.param, **SMALL[request.param])
    # Gemma 2's soft cap on scores is computed by eager attention only, which TransformerLens runs.
    if request.param == "gemma2":
        model.set_attn_implementation("eager")
    with iw.Session(model) as session:
        yield paired(request.param, session, CLEAN, CORRUPTED, ANSWER, FOIL)


@pytest.fixture(scope="session")
def demo() -> Iterator[Pair]:
    with iw.load() as session:
        clean, corrupted = (session.tokenize(IOI.format(name)).ids for name in ("Mary", "John"))
        yield paired("demo", session, clean, corrupted, session.token_id(" John"), session.token_id(" Mary"))
