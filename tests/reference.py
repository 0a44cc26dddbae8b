"""What can be clicked, called and set in each widget, read from the code: `python -m tests.reference [--write]`."""

from __future__ import annotations

import argparse
import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import traitlets as t

import interpwidgets as iw
from interpwidgets.experiments import Experiments
from interpwidgets.widgets.base import LiveWidget
from interpwidgets.widgets.looks import CHIP_KEYS, KEYS, Looks
from tests import readme

COMMAND = "python -m tests.reference --write"
WIDGETS: tuple[type[LiveWidget], ...] = (iw.AttentionPattern, iw.LogitLens, iw.PatchingHeatmap)
_HOOKS = {"runs", "refresh", "rebuilt", "static_frame", "set_state", "get_state"}
"""Public methods that are there for ipywidgets and for subclasses."""

Row = tuple[str, ...]


def parts() -> dict[str, str]:
    """The parts of README's reference by name, as Markdown."""
    return {f"reference of {each.__name__}": of_widget(each) for each in WIDGETS} | {
        "reference of every widget": of_every_widget(),
        "reference of experiments": _table(("method", "what it does"), methods(Experiments)),
        "reference of Workbench": _table(("method", "what it does"), methods(iw.Workbench)),
    }


def of_widget(widget: type[LiveWidget]) -> str:
    """What a widget has beside the others."""
    return "\n\n".join(
        [
            _table(("click or key", "what it does"), widget.shortcuts),
            _table(("method", "what it does"), methods(widget)),
            _table(("trait", "values, the default first", "what it says"), traits(widget)),
        ]
    )


def of_every_widget() -> str:
    """What all widgets have."""
    settings = [row for each in (LiveWidget, Looks) for row in traits(each)]
    inside = [each for each in reversed(LiveWidget.__mro__) if each.__module__.startswith(iw.__name__)]
    calls = dict(row for each in inside for row in methods(each))  # what one promises, the other does
    return "\n\n".join(
        [
            _table(("key", "what it does"), [*KEYS, *CHIP_KEYS]),
            _table(("method or property", "what it does"), calls.items()),
            _table(("trait", "values, the default first", "what it says"), settings),
        ]
    )


def methods(of: type) -> Iterator[tuple[str, str]]:
    """Public methods and properties that a class adds, with the first sentence about each."""
    for name, value in vars(of).items():
        if name.startswith("_") or name in _HOOKS:
            continue
        made = value.__func__ if isinstance(value, classmethod) else value
        if isinstance(value, property) and value.__doc__:
            yield f"`{name}`", _first_sentence(value.__doc__)
        elif inspect.isfunction(made) and (said := inspect.getdoc(getattr(of, name))):
            yield f"`{name}({_arguments(made)})`", _first_sentence(said)


def traits(of: type[t.HasTraits]) -> Iterator[Row]:
    """Public traits that a class adds, with their values and what stands under each."""
    said = _said_under(of)
    for name, trait in vars(of).items():
        if isinstance(trait, t.TraitType) and not name.startswith("_"):
            yield f"`{name}`" + (" (read only)" if trait.read_only else ""), _values(trait), said[name]


def _values(trait: t.TraitType) -> str:
    if isinstance(trait, t.Instance) and not isinstance(trait, t.List):
        return f"`{trait.klass.__name__}`"
    default = trait.default_value
    if isinstance(trait, t.List):
        default = trait.make_dynamic_default() or []
    others = [v for v in getattr(trait, "values", (True, False) if isinstance(trait, t.Bool) else ()) if v != default]
    return ", ".join(f"`{value!r}`" for value in [default, *others]).replace("'", '"')


def _said_under(of: type) -> dict[str, str]:
    """The strings that stand under assignments in the body of a class, by the name that is assigned."""
    body = ast.parse(textwrap.dedent(inspect.getsource(of))).body[0].body
    found = {}
    for statement, after in pairwise(body):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if isinstance(target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[target.id] = " ".join(str(after.value.value).split())
    return found


def _arguments(function: Callable[..., object]) -> str:
    """The arguments as one writes them, without their types."""
    given = list(inspect.signature(function).parameters.values())[1:]
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in given]
    return str(inspect.Signature(bare))[1:-1]


def _first_sentence(said: str) -> str:
    return " ".join(said.split("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write README's parts")
    write = parser.parse_args().write
    for name, text in parts().items():
        if write:
            readme.write(name, COMMAND, text)
        else:
            print(f"{name}\n\n{text}\n")


if __name__ == "__main__":
    main()
