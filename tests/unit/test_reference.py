"""README's reference says what the code has."""

from __future__ import annotations

import anywidget
import pytest

from tests import readme, reference

PARTS = reference.parts()


@pytest.mark.parametrize("name", PARTS)
def test_readme_is_what_the_command_writes(name: str) -> None:
    assert readme.written(name, reference.COMMAND) == PARTS[name], f"run `{reference.COMMAND}`"


@pytest.mark.parametrize("widget", reference.WIDGETS)
def test_every_click_of_a_widget_is_a_method_in_the_reference(widget: type) -> None:
    said = reference.of_widget(widget)
    assert [name for name in widget.operations if f"`{name}(" not in said] == []


@pytest.mark.parametrize("widget", reference.WIDGETS)
def test_every_public_trait_of_a_widget_is_explained(widget: type) -> None:
    said = reference.of_widget(widget) + reference.of_every_widget()
    own = set(widget.class_traits(sync=True)) - set(anywidget.AnyWidget.class_trait_names())
    assert [name for name in sorted(own) if not name.startswith("_") and f"`{name}`" not in said] == []


def test_a_part_that_readme_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README\.md has no part"):
        readme.written("reference of nothing", reference.COMMAND)
