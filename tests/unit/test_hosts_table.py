"""README's table of front ends is that of the definitions, and says yes only where every test has passed."""

from __future__ import annotations

from tests import hosts_table, readme
from tests.browser.front_ends import (
    ABILITIES,
    BUSY,
    CANNOT_BE,
    CLICK,
    FRONT_ENDS,
    RELOAD,
    RESTART,
    SHOWS,
    SOLARA,
    VIEWS,
    VS_CODE,
)  # fmt: skip


def test_readme_has_the_rows_and_columns_that_are_defined():
    header, *rows = hosts_table.written()
    assert header == ["front end", *ABILITIES]
    assert [name for name, *_ in rows] == list(FRONT_ENDS)
    said = {hosts_table.WORKS, hosts_table.NOT_TRIED, *CANNOT_BE.values(), *SHOWS.values()}
    assert {cell for _, *cells in rows for cell in cells} <= said
    assert hosts_table.one_only() in readme.written(*hosts_table._PART)


def test_a_cell_says_yes_only_if_every_test_of_it_passed():
    outcomes = {SOLARA: {CLICK: {"a": "passed"}, VIEWS: {"a": "passed", "b": "failed"}}}
    header, *rows = hosts_table.table(outcomes)
    row = dict(zip(header, next(row for row in rows if row[0] == SOLARA), strict=True))
    assert (row[CLICK], row[VIEWS], row[ABILITIES[0]]) == ("yes", "**no**", "not tried")


def test_what_cannot_be_and_what_shows_less_is_said_in_a_word():
    outcomes = {VS_CODE: {RELOAD: {"a": "passed"}}, SOLARA: {RESTART: {"killed": "passed"}}}
    header, *rows = hosts_table.table(outcomes)
    cells = {name: dict(zip(header[1:], row, strict=True)) for name, *row in rows}
    assert cells[SOLARA][BUSY] == "has no cells"
    assert cells[VS_CODE][RELOAD] == "still picture"
    assert cells[SOLARA][RESTART] == "death"
    _, *rows = hosts_table.table({VS_CODE: {RELOAD: {"a": "failed"}}})
    assert next(row for name, *row in rows if name == VS_CODE)[ABILITIES.index(RELOAD)] == "**no**"
