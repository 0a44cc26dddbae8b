"""The list of interventions that the widgets of a session share: observable, each switched on or off, with undo."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .engine.interventions import Intervention


@dataclass(frozen=True)
class Experiment:
    """One intervention in the list, and whether it acts."""

    intervention: Intervention
    on: bool = True


Entries = tuple[Experiment, ...]


class Experiments:
    """An observable list of interventions with a history.

    Iterating gives the interventions that act. `observe(callback)` calls back, without arguments, after every change.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entries: Entries = ()
        self._past: list[Entries] = []
        self._future: list[Entries] = []
        self._observers: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[Intervention]:
        return iter([e.intervention for e in self._entries if e.on])

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Experiments({[e.intervention for e in self._entries]})"

    @property
    def entries(self) -> Entries:
        """All experiments, also those switched off."""
        return self._entries

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    def append(self, intervention: Intervention) -> None:
        """Add an intervention, switched on."""
        self.extend([intervention])

    def extend(self, interventions: Iterable[Intervention]) -> None:
        """Add several interventions as one step of the history."""
        added = [Experiment(checked(i)) for i in interventions]
        self._change(lambda entries: (*entries, *added))

    def remove(self, intervention: Intervention) -> None:
        """Remove an intervention; raises ValueError if it is not in the list."""

        def without(entries: Entries) -> Entries:
            index = [e.intervention for e in entries].index(intervention)
            return (*entries[:index], *entries[index + 1 :])

        self._change(without)

    def pop(self, index: int) -> Intervention:
        """Remove and give back the intervention at `index`."""
        gone = []

        def without(entries: Entries) -> Entries:
            kept = list(entries)
            gone.append(kept.pop(index))
            return tuple(kept)

        self._change(without)
        return gone[0].intervention

    def toggle(self, index: int) -> None:
        """Switch the experiment at `index` off or on."""

        def toggled(entries: Entries) -> Entries:
            changed = list(entries)
            changed[index] = replace(changed[index], on=not changed[index].on)
            return tuple(changed)

        self._change(toggled)

    def clear(self) -> None:
        """Remove all."""
        if self._entries:
            self._change(lambda entries: ())

    def undo(self) -> None:
        """Go back one change; nothing happens if there is none."""
        self._step(self._past, self._future)

    def redo(self) -> None:
        """Go forward one change; nothing happens if there is none."""
        self._step(self._future, self._past)

    def observe(self, callback: Callable[[], None]) -> None:
        """Call back after every change, on the thread that made it."""
        self._observers.append(callback)

    def unobserve(self, callback: Callable[[], None]) -> None:
        """Stop calling back."""
        self._observers.remove(callback)

    def _change(self, edit: Callable[[Entries], Entries]) -> None:
        # Read and written in one hold of the lock: a click and a cell may change the list at the same time.
        with self._lock:
            entries = edit(self._entries)
            self._past.append(self._entries)
            self._future.clear()
            self._entries = entries
        self._tell()

    def _step(self, source: list[Entries], other: list[Entries]) -> None:
        with self._lock:
            if not source:
                return
            other.append(self._entries)
            self._entries = source.pop()
        self._tell()

    def _tell(self) -> None:
        for callback in list(self._observers):
            callback()


def checked(intervention: Any) -> Intervention:
    """The intervention itself. Raises TypeError for anything else."""
    if not isinstance(intervention, Intervention):
        raise TypeError(f"an intervention is needed, such as iw.Ablate('z', layer=0, head=0); got {intervention!r}")
    return intervention
