"""What is chosen in a widget, in one form for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..engine.names import unknown


@dataclass(frozen=True, repr=False)
class Selection:
    """A place in a model's run, as `widget.selection` has it; a field is None where nothing of its kind is chosen.

    `layer` counts as in `iw.logit_lens`: -1 is the embedding. `query` and `key` are the ends of an attention edge,
    `token` is the id of the prompt's token at `position`: it follows from that, whatever is given.

    Example: `widget.selection = iw.Selection(layer=3, head=1)`
    """

    layer: int | None = None
    head: int | None = None
    position: int | None = None
    query: int | None = None
    key: int | None = None
    token: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__")):
                raise TypeError(f"{field.name}={value!r}: a whole number or None is needed")
            object.__setattr__(self, field.name, None if value is None else value.__index__())

    def __repr__(self) -> str:
        return f"iw.Selection({', '.join(f'{name}={value}' for name, value in self.to_json().items())})"

    def to_json(self) -> dict[str, int]:
        """The fields that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, given: Any) -> Selection:
        """What `to_json` wrote. Raises TypeError or ValueError for anything else."""
        if not isinstance(given, Mapping):
            raise TypeError(f"selection={given!r}: an object is needed, such as {{'layer': 3, 'head': 1}}")
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("field of a selection", name, names)
        return cls(**given)

    def only(self, *names: str) -> Selection:
        """The selection itself. Raises ValueError for a field that is none of `names`, or a token without a place."""
        if self.to_json().keys() == {"token"}:
            raise ValueError(f"{self!r}: a token follows from its place: say one of {', '.join(names)}")
        for name in self.to_json():
            if name not in (*names, "token"):
                raise ValueError(f"{self!r}: this widget chooses by {', '.join(names)}, and has no {name} to choose")
        return self
