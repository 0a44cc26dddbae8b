"""The shared list of interventions: what acts, what is told to whom, and its history."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import interpwidgets as iw
from interpwidgets.experiments import Experiment, Experiments

A, B, C = (iw.Ablate("z", layer=layer, head=0) for layer in range(3))


@pytest.fixture
def experiments():
    experiments = Experiments()
    experiments.extend([A, B])
    return experiments


def test_iterating_gives_what_acts(experiments):
    experiments.toggle(0)
    assert list(experiments) == [B]
    assert len(experiments) == 2
    assert experiments.entries == (Experiment(A, on=False), Experiment(B))
    experiments.toggle(0)
    assert list(experiments) == [A, B]


def test_remove_takes_the_first_equal_one(experiments):
    experiments.append(A)
    experiments.remove(iw.Ablate("z", layer=0, head=0))
    assert list(experiments) == [B, A]
    with pytest.raises(ValueError, match="not in"):
        experiments.remove(C)


def test_pop_gives_back_what_it_removes(experiments):
    assert experiments.pop(0) == A
    assert list(experiments) == [B]
    with pytest.raises(IndexError):
        experiments.pop(5)
    assert list(experiments) == [B]


def test_each_change_is_one_step_of_the_history(experiments):
    experiments.append(C)
    experiments.toggle(1)
    experiments.pop(0)
    experiments.clear()
    seen = []
    while experiments.can_undo:
        experiments.undo()
        seen.append(list(experiments))
    assert seen == [[C], [A, C], [A, B, C], [A, B], []]
    while experiments.can_redo:
        experiments.redo()
    assert list(experiments) == []


def test_undo_restores_the_switch(experiments):
    experiments.toggle(0)
    experiments.undo()
    assert experiments.entries[0].on
    experiments.redo()
    assert not experiments.entries[0].on


def test_a_new_change_forgets_the_future(experiments):
    experiments.undo()
    experiments.append(C)
    assert not experiments.can_redo
    experiments.redo()
    assert list(experiments) == [C]


def test_clearing_nothing_is_no_change():
    experiments = Experiments()
    experiments.observe(lambda: pytest.fail("nothing changed"))
    experiments.clear()
    experiments.undo()
    experiments.redo()
    assert not experiments.can_undo


def test_observers_are_told_once_a_change_and_see_it(experiments):
    seen = []
    observer = lambda: seen.append(list(experiments))  # noqa: E731
    experiments.observe(observer)
    experiments.extend([C, C])
    experiments.undo()
    experiments.redo()
    assert seen == [[A, B, C, C], [A, B], [A, B, C, C]]
    experiments.unobserve(observer)
    experiments.clear()
    assert len(seen) == 3


def test_an_observer_may_change_the_list(experiments):
    def keep_two():
        if len(experiments) > 2:
            experiments.pop(0)

    experiments.observe(keep_two)
    experiments.append(C)
    assert list(experiments) == [B, C]


def test_only_interventions_are_taken(experiments):
    with pytest.raises(TypeError, match=r"iw\.Ablate"):
        experiments.append("z")
    with pytest.raises(TypeError):
        experiments.extend([C, None])
    assert list(experiments) == [A, B]


def test_no_change_is_lost_between_threads():
    experiments = Experiments()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: [experiments.append(A) for _ in range(100)], range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert len(experiments) == 800
