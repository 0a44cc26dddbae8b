"""README's table of front ends is that of the definitions, and says yes only where every test has passed."""

from __future__ import annotations

from tests import hosts_table
from tests.browser.front_ends import ABILITIES, CLICK, FRONT_ENDS, SOLARA, VIEWS


def test_readme_has_the_rows_and_columns_that_are_defined():
    header, *rows = hosts_table.written()
    assert header == ["front end", *ABILITIES]
    assert [name for name, *_ in rows] == list(FRONT_ENDS)
    assert {cell for _, *cells in rows for cell in cells} <= {hosts_table.WORKS, hosts_table.NOT_TRIED}


def test_a_cell_says_yes_only_if_every_test_of_it_passed():
    outcomes = {SOLARA: {CLICK: {"a": "passed"}, VIEWS: {"a": "passed", "b": "failed"}}}
    header, *rows = hosts_table.table(outcomes)
    row = dict(zip(header, next(row for row in rows if row[0] == SOLARA), strict=True))
    assert (row[CLICK], row[VIEWS], row[ABILITIES[0]]) == ("yes", "**no**", "not tried")
