"""The list of interventions that the widgets of a session share: observable, each switched on or off, with undo."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .engine.interventions import Intervention, Noise, Scale, Steer
from .engine.names import unknown


@dataclass(frozen=True)
class Experiment:
    """One intervention in the list, and whether it acts.

    `name`: what to call it, in place of what it does; `group`: the group that it is in. A group's members stand
    together in the list.
    """

    intervention: Intervention
    on: bool = True
    name: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        checked(self.intervention)
        for what in ("name", "group"):
            if not isinstance(getattr(self, what), str):
                raise TypeError(f"{what}={getattr(self, what)!r}: a text is needed")

    def __repr__(self) -> str:
        return self._around(repr(self.intervention))

    def code(self) -> str:
        """The Python that makes it, arrays and all."""
        return self._around(self.intervention.code())

    def _around(self, intervention: str) -> str:
        default = Experiment(self.intervention)
        rest = (f", {k}={v!r}" for k, v in vars(self).items() if v != getattr(default, k))
        return f"iw.Experiment({intervention}{''.join(rest)})"


STRENGTHS: dict[type[Intervention], str] = {Scale: "factor", Steer: "strength", Noise: "std"}
"""Interventions with one number that says how strong they are, and its name."""

Entries = tuple[Experiment, ...]
Interventions = tuple[Intervention, ...]


class Experiments:
    """An observable list of interventions with a history.

    Iterating gives the interventions that act. `observe(callback)` calls back, without arguments, after every change.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entries: Entries = ()
        self._baseline: Interventions = ()
        self._past: list[tuple[Entries, Interventions]] = []
        self._future: list[tuple[Entries, Interventions]] = []
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
    def baseline(self) -> Interventions:
        """The interventions under which the model is compared with: none, unless a state has been pinned.

        To set it takes one step of the history.
        """
        return self._baseline

    @baseline.setter
    def baseline(self, interventions: Iterable[Intervention]) -> None:
        pinned = tuple(checked(i) for i in interventions)
        self._change(lambda entries: entries, pinned)

    def pin(self) -> None:
        """Compare with what acts now: it is the baseline of all widgets from here on."""
        self.baseline = tuple(self)

    def unpin(self) -> None:
        """Compare with the model as it is."""
        self.baseline = ()

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    def append(self, intervention: Intervention | Experiment) -> None:
        """Add an intervention, switched on; an Experiment as it is."""
        self.extend([intervention])

    def extend(self, interventions: Iterable[Intervention | Experiment]) -> None:
        """Add several as one step of the history."""
        added = _experiments(interventions)
        self._change(lambda entries: _together((*entries, *added)))

    def replace(
        self, interventions: Iterable[Intervention | Experiment], baseline: Iterable[Intervention] | None = None
    ) -> None:
        """Put these in the place of all, and another baseline if one is given, as one step of the history."""
        instead = _together(_experiments(interventions))
        self._change(lambda entries: instead, None if baseline is None else tuple(checked(i) for i in baseline))

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
            gone.append(kept.pop(_place(entries, index)))
            return tuple(kept)

        self._change(without)
        return gone[0].intervention

    def toggle(self, index: int) -> None:
        """Switch the experiment at `index` off or on."""
        self._edit(lambda entries: [index], lambda e: replace(e, on=not e.on))

    def move(self, index: int, to: int) -> None:
        """Put the experiment at `index` at the place `to`, in the order of those that stay.

        Interventions at the same site of the same layer act in the order of the list. What is moved in between two
        members of a group joins it; what is moved away from its group leaves it.
        """

        def moved(entries: Entries) -> Entries:
            kept = list(entries)
            one = kept.pop(_place(entries, index))
            if not 0 <= to <= len(kept):
                raise IndexError(f"to={to} is out of range: {len(entries)} experiments have places 0 to {len(kept)}")
            before = kept[to - 1].group if to else ""
            after = kept[to].group if to < len(kept) else ""
            group = before if before == after or before == one.group else after if after == one.group else ""
            kept.insert(to, replace(one, group=group))
            return tuple(kept)

        self._change(moved)

    def rename(self, index: int, name: str) -> None:
        """Call the experiment at `index` something; "" calls it what it does."""
        self._edit(lambda entries: [index], lambda e: replace(e, name=name))

    def set_strength(self, index: int, value: float) -> None:
        """Change an intervention's strength: a Scale's factor, a Steer's strength, a Noise's std.

        Raises ValueError for an intervention that has none, and for what is no finite number.
        """
        self._edit(lambda entries: [index], lambda e: replace(e, intervention=_with_strength(e.intervention, value)))

    def group(self, indices: Iterable[int], name: str) -> None:
        """Put the experiments at `indices` together under a name, where the first of them stands.

        "" takes them out of their groups.
        """
        chosen = list(indices)
        self._edit(lambda entries: chosen, lambda e: replace(e, group=name))

    def rename_group(self, group: str, name: str) -> None:
        """Call a group something else; "" takes it apart."""
        self._edit(lambda entries: _members(entries, group), lambda e: replace(e, group=name))

    def toggle_group(self, group: str) -> None:
        """Switch a group off; on, if all of it is off."""

        def toggled(entries: Entries) -> Entries:
            on = not any(entries[i].on for i in _members(entries, group))
            return tuple(replace(e, on=on) if e.group == group else e for e in entries)

        self._change(toggled)

    def remove_group(self, group: str) -> None:
        """Remove a group and all that is in it."""

        def without(entries: Entries) -> Entries:
            gone = _members(entries, group)
            return tuple(e for i, e in enumerate(entries) if i not in gone)

        self._change(without)

    def clear(self) -> None:
        """Remove all."""
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
        """Stop calling back; nothing happens if it is not called."""
        if callback in self._observers:
            self._observers.remove(callback)

    def _edit(self, which: Callable[[Entries], list[int]], change: Callable[[Experiment], Experiment]) -> None:
        def edited(entries: Entries) -> Entries:
            changed = list(entries)
            for i in which(entries):
                changed[i] = change(changed[_place(entries, i)])
            return _together(tuple(changed))

        self._change(edited)

    def _change(self, edit: Callable[[Entries], Entries], baseline: Interventions | None = None) -> None:
        # Read and written in one hold of the lock: a click and a cell may change the list at the same time.
        with self._lock:
            before = self._entries, self._baseline
            after = edit(self._entries), self._baseline if baseline is None else baseline
            if after == before:  # an undo that changes nothing would look broken
                return
            self._past.append(before)
            self._future.clear()
            self._entries, self._baseline = after
        self._tell()

    def _step(self, source: list[tuple[Entries, Interventions]], other: list[tuple[Entries, Interventions]]) -> None:
        with self._lock:
            if not source:
                return
            other.append((self._entries, self._baseline))
            self._entries, self._baseline = source.pop()
        self._tell()

    def _tell(self) -> None:
        """Call all observers; what the first of them raises is raised when the others know of the change too."""
        errors: list[Exception] = []
        for callback in list(self._observers):
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        if errors:
            raise errors[0]


def _experiments(interventions: Iterable[Intervention | Experiment]) -> Entries:
    return tuple(i if isinstance(i, Experiment) else Experiment(i) for i in interventions)


def _with_strength(intervention: Intervention, value: Any) -> Intervention:
    field = STRENGTHS.get(type(intervention))
    if field is None:
        named = ", ".join(f"{kind.__name__}'s {name}" for kind, name in STRENGTHS.items())
        raise ValueError(f"{intervention!r} has no strength to set; what has: {named}")
    return replace(intervention, **{field: value})  # type: ignore[type-var]


def _place(entries: Entries, index: int) -> int:
    if not -len(entries) <= index < len(entries):
        raise IndexError(f"there is no experiment {index}: the list has {len(entries)}")
    return index


def _members(entries: Entries, group: str) -> list[int]:
    members = [i for i, e in enumerate(entries) if group and e.group == group]
    if not members:
        raise unknown("group", group, dict.fromkeys(e.group for e in entries if e.group))
    return members


def _together(entries: Entries) -> Entries:
    """The members of each group where its first one stands."""
    first = {e.group: i for i, e in reversed(list(enumerate(entries))) if e.group}
    order = sorted(range(len(entries)), key=lambda i: (first.get(entries[i].group, i), i))
    return tuple(entries[i] for i in order)


def checked(intervention: Any) -> Intervention:
    """The intervention itself. Raises TypeError for anything else."""
    if not isinstance(intervention, Intervention):
        raise TypeError(f"an intervention is needed, such as iw.Ablate('z', layer=0, head=0); got {intervention!r}")
    return intervention
