"""Without `--full`, few cases of a slow matrix run, in which each value of each parameter occurs."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
MATRIX = """
import pytest

@pytest.mark.sampled
@pytest.mark.parametrize("width", [420, 900])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("entry", "tokens"), [("attention", 15), ("lens", 15), ("heatmap", 128)])
def test_matrix(entry, tokens, dark, width):
    pass

@pytest.mark.parametrize("width", [420, 900])
@pytest.mark.parametrize("dark", [False, True])
def test_all(dark, width):
    pass

kernels = pytest.mark.parametrize("live_notebook", ["subshells", "main-thread", "ipykernel-6"])

@kernels
@pytest.mark.parametrize("kind", ["svg", "png"])
def test_lab_one(live_notebook, kind):
    pass

@kernels
def test_lab_two(live_notebook):
    pass

@pytest.mark.parametrize("live_notebook", ["ipykernel-6"])
def test_lab_three(live_notebook):
    pass
"""


@pytest.fixture
def collected(pytester):
    pytester.makeconftest("from tests.conftest import *")
    pytester.makeini("[pytest]\nmarkers = sampled")
    path = pytester.makepyfile(MATRIX)

    def collected(*arguments, part=""):
        lines = pytester.runpytest("--collect-only", "-q", f"{path}{part}", *arguments).outlines
        return [line.partition("::")[2] for line in lines if "::" in line]

    return collected


def test_a_sampled_matrix_has_each_value_of_each_parameter(collected):
    names = collected()
    matrix = [name for name in names if name.startswith("test_matrix")]
    assert len(matrix) == 3
    for value in ("attention-15", "lens-15", "heatmap-128", "False", "True", "420", "900"):
        assert any(value in name for name in matrix), value
    assert len([name for name in names if name.startswith("test_all")]) == 4


def test_of_jupyterlabs_kernels_a_test_has_the_first_and_another_in_turn(collected):
    assert sorted(name for name in collected() if name.startswith("test_lab")) == [
        "test_lab_one[png-main-thread]", "test_lab_one[png-subshells]", "test_lab_one[svg-main-thread]",
        "test_lab_one[svg-subshells]", "test_lab_three[ipykernel-6]", "test_lab_two[ipykernel-6]",
        "test_lab_two[subshells]",
    ]  # fmt: skip


def test_full_and_a_case_asked_for_by_name_leave_nothing_out(collected):
    assert len(collected("--full")) == 26
    assert len(collected(part="::test_matrix")) == 12
