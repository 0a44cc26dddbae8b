"""What a session says that it holds, and the budget that it keeps to."""

from __future__ import annotations

import warnings

import pytest

import interpwidgets as iw
from interpwidgets.engine.memory import BudgetWarning
from tests.models import tiny

PROMPT, OTHER = (5, 17, 3, 44, 17, 60), (5, 17, 9, 44, 17, 60)


def test_the_model_counts_once_however_its_weights_are_tied(session):
    tied = tiny("gpt2")
    own = {p.untyped_storage().data_ptr(): p.nbytes for p in tied.parameters()}
    with iw.Session(tied) as other:
        assert other.memory().model >= sum(own.values())
        assert other.memory().model < 2 * sum(own.values())
    assert session.memory().model >= sum(p.nbytes for p in session.model.parameters())


def test_a_captured_run_is_held_as_a_result_until_the_budget_is_lowered(session):
    before = session.memory().results
    run = session.run(PROMPT, capture=["resid_post"])
    held = session.memory().results - before
    assert held >= 4 * 4 * len(PROMPT) * 32  # float32 x layers x positions x width
    assert run["resid_post"].shape == (4, len(PROMPT), 32)
    session.memory_budget = 1000
    assert session.memory().results <= 500
    assert session.memory().budget == 1000


def test_captures_larger_than_the_budget_are_warned_of(session):
    session.memory_budget = 100_000
    with warnings.catch_warnings():
        warnings.simplefilter("error", BudgetWarning)
        session.run(PROMPT, capture="pattern")
    # 4 layers of 4 heads, 60 x 60 weights of 4 bytes; and 60 positions' logits of 97 tokens.
    with pytest.warns(BudgetWarning, match=r"holds 0\.2 MiB, more than the memory_budget of 0\.1 MiB: capture fewer"):
        session.run(tuple(range(3, 63)), capture="pattern")


def test_what_only_a_widget_holds_is_told_apart(session):
    widget = iw.AttentionPattern(session, PROMPT)
    widget.wait(60)
    assert session.memory().widgets == 0  # the same tensors as in the results
    session.memory_budget = 2
    assert session.memory().results == 0
    assert session.memory().widgets > 4 * 4 * len(PROMPT) ** 2 * 4
    widget.close()
    assert session.memory().widgets == 0


def test_a_small_budget_splits_a_sweep_and_changes_no_number(session):
    whole = iw.patch_sweep(session, PROMPT, OTHER, answer=7, foil=11, normalize=False)
    session.memory_budget = 100_000
    session._results.clear()
    passes = []
    split = iw.patch_sweep(
        session, PROMPT, OTHER, answer=7, foil=11, normalize=False, progress=lambda done, total: passes.append(done)
    )
    assert abs(split - whole).max() < 1e-5
    assert len(set(passes)) > 2


@pytest.mark.parametrize("budget", [0, -1, 1.5, "2GB", None])
def test_a_budget_that_is_no_number_of_bytes_is_refused(session, budget):
    before = session.memory_budget
    with pytest.raises(ValueError, match="a positive number of bytes is needed"):
        session.memory_budget = budget
    assert session.memory_budget == before


def test_memory_prints_as_a_table(session):
    lines = str(session.memory()).splitlines()
    assert [line.split()[0] for line in lines] == ["budget", "results", "widgets", "model"]
    assert all(line.endswith("MiB") for line in lines)
