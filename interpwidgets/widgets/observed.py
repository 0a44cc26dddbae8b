"""A trait whose every new value is news."""

from __future__ import annotations

from typing import Any

import traitlets as t


class Observed(t.Instance):
    """An object that may be large, and whose `==` gives arrays: observers are told whenever another one is set."""

    def set(self, obj: Any, value: Any) -> None:
        new, old = self._validate(obj, value), self.get(obj)
        obj._trait_values[self.name] = new
        if new is not old:
            obj._notify_trait(self.name, old, new)
