"""`--full` tries all combinations of the slow matrices; without it, each value of each parameter at least once.

Of JupyterLab's three kernels a test then has the first, and one of the others in turn.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.browser.front_ends import KERNELS

Case = frozenset[tuple[str, int]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="every combination of the matrices that are marked as sampled")


class LoadByPage(LoadFileScheduling):
    """A file's tests on one worker, and those of JupyterLab by their kernel: a notebook is opened once for each."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, case = nodeid.partition("[")
        kernel = next((name for name in KERNELS if name in case), None) if "/browser/lab/" in file else None
        return super()._split_scope(nodeid) if kernel is None else f"lab, {kernel}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadByPage:
    return LoadByPage(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # What is asked for by name is run.
    if config.getoption("--full") or any("::" in argument for argument in config.args):
        return
    matrices: dict[str, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("sampled"):
            matrices.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {item for matrix in matrices.values() for item in _sample(matrix)}
    left_out = {item for matrix in matrices.values() for item in matrix if item not in kept} | _other_kernels(items)
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def _sample(matrix: list[pytest.Function]) -> list[pytest.Function]:
    """Few of a matrix's cases, in which each value of each parameter occurs: the one with most new values first."""
    cases = {item: _values(item) for item in matrix}
    missing = Case().union(*cases.values())
    kept = matrix[:1]
    missing -= cases[kept[0]]
    while missing:
        best = max(matrix, key=lambda item: len(cases[item] & missing))
        kept.append(best)
        missing -= cases[best]
    return kept


def _other_kernels(items: list[pytest.Item]) -> set[pytest.Item]:
    """The cases that are left out of tests that have a case for each kernel."""
    by_test: dict[str, dict[pytest.Item, str]] = {}
    for item in items:
        kernel = getattr(getattr(item, "callspec", None), "params", {}).get("live_notebook")
        if kernel is not None:
            by_test.setdefault(item.nodeid.partition("[")[0], {})[item] = kernel
    first, *others = KERNELS
    of_all = [cases for cases in by_test.values() if set(cases.values()) == set(KERNELS)]
    return {
        item
        for turn, cases in enumerate(of_all)
        for item, kernel in cases.items()
        if kernel not in (first, others[turn % len(others)])
    }


def _values(item: pytest.Function) -> Case:
    call = getattr(item, "callspec", None)
    # pytest's own indices number the cases, not the values.
    return frozenset() if call is None else frozenset((name, id(value)) for name, value in call.params.items())
