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


SCALE, STEER, NOISE = iw.Scale("z", 0.5, layer=1), iw.Steer("resid_post", [1.0, 0.0], layer=1), iw.Noise("embed", 0.1)


def names(experiments):
    return [e.name or type(e.intervention).__name__ for e in experiments.entries]


def test_strength_is_the_number_of_an_intervention_that_has_one():
    experiments = Experiments()
    experiments.extend([SCALE, STEER, NOISE, A])
    for index, value in enumerate((2, -1.5, 0.0)):
        experiments.set_strength(index, value)
    assert list(experiments) == [
        iw.Scale("z", 2.0, layer=1), iw.Steer("resid_post", [1.0, 0.0], layer=1, strength=-1.5),
        iw.Noise("embed", 0.0), A,
    ]  # fmt: skip
    experiments.undo()
    assert list(experiments)[2] == NOISE
    with pytest.raises(ValueError, match="no strength to set; what has: Scale's factor"):
        experiments.set_strength(3, 1.0)
    for wrong in (float("nan"), "2", True, None):
        with pytest.raises(ValueError, match="a finite number is needed"):
            experiments.set_strength(0, wrong)
    assert next(iter(experiments)) == iw.Scale("z", 2.0, layer=1)


def test_order_is_the_list_and_a_move_is_one_step():
    experiments = Experiments()
    experiments.extend([A, B, C])
    experiments.move(2, 0)
    assert list(experiments) == [C, A, B]
    experiments.move(0, 2)
    assert list(experiments) == [A, B, C]
    experiments.undo()
    assert list(experiments) == [C, A, B]
    with pytest.raises(IndexError, match="to=3 is out of range: 3 experiments have places 0 to 2"):
        experiments.move(0, 3)
    with pytest.raises(IndexError, match="there is no experiment 7: the list has 3"):
        experiments.move(7, 0)


def test_a_group_stands_together_and_is_switched_as_one():
    experiments = Experiments()
    experiments.extend([A, B, C])
    experiments.group([0, 2], "movers")
    assert [e.group for e in experiments.entries] == ["movers", "movers", ""]
    assert list(experiments) == [A, C, B]
    experiments.toggle(0)
    experiments.toggle_group("movers")  # half of it was on
    assert list(experiments) == [B]
    experiments.toggle_group("movers")
    assert list(experiments) == [A, C, B]
    experiments.append(Experiment(SCALE, group="movers"))
    assert list(experiments) == [A, C, SCALE, B]
    experiments.rename_group("movers", "name movers")
    assert {e.group for e in experiments.entries} == {"name movers", ""}
    with pytest.raises(ValueError, match=r"unknown group 'movers'.*did you mean 'name movers'"):
        experiments.toggle_group("movers")
    experiments.remove_group("name movers")
    assert list(experiments) == [B]
    experiments.undo()
    experiments.rename_group("name movers", "")
    assert all(not e.group for e in experiments.entries)


def test_what_is_moved_into_a_group_joins_it_and_out_of_it_leaves():
    experiments = Experiments()
    experiments.extend([A, B, C])
    experiments.group([0, 1], "g")
    experiments.move(2, 1)
    assert [(i, e.group) for i, e in zip([A, C, B], experiments.entries, strict=True)] == [(A, "g"), (C, "g"), (B, "g")]
    experiments.append(SCALE)
    experiments.move(0, 3)
    assert [e.group for e in experiments.entries] == ["g", "g", "", ""]
    experiments.move(1, 0)  # within
    assert [e.group for e in experiments.entries] == ["g", "g", "", ""]


def test_a_name_stands_for_what_an_experiment_does():
    experiments = Experiments()
    experiments.append(A)
    experiments.rename(0, "S-inhibition")
    assert experiments.entries == (Experiment(A, name="S-inhibition"),)
    assert repr(experiments.entries[0]) == "iw.Experiment(iw.Ablate('z', layer=0, head=0), name='S-inhibition')"
    with pytest.raises(TypeError, match="name=3"):
        experiments.rename(0, 3)
    with pytest.raises(TypeError, match="an intervention is needed"):
        Experiment("z")


def test_an_observer_that_fails_keeps_no_other_from_the_news(experiments):
    seen = []

    def fail():
        raise ZeroDivisionError("an observer's own bug")

    experiments.observe(fail)
    experiments.observe(lambda: seen.append(list(experiments)))
    with pytest.raises(ZeroDivisionError, match="own bug"):
        experiments.append(C)
    assert seen == [[A, B, C]]


def test_what_changes_nothing_is_no_step_of_the_history(experiments):
    experiments.append(Experiment(SCALE, name="half", group="g"))
    experiments.pin()
    before = len(experiments._past)
    experiments.observe(lambda: pytest.fail("nothing changed"))
    experiments.pin()
    experiments.move(1, 1)
    experiments.rename(2, "half")
    experiments.set_strength(2, 0.5)
    experiments.group([2], "g")
    experiments.extend([])
    experiments.replace(experiments.entries, experiments.baseline)
    assert len(experiments._past) == before
