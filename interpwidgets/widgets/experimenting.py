"""The list of experiments as a widget has it: shown to the page, changed and taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import traitlets as t

from ..engine.interventions import Intervention
from ..engine.sites import SITES, resolve
from ..experiments import Experiment
from ..session import Session
from .labels import label_parts, short_label
from .running import Running
from .wire import Wire


class Experimenting(Running):
    """A view that is run under its experiments, and again whenever they change."""

    _experiments: t.List[Wire] = t.List().tag(sync=True)
    _history = t.Dict().tag(sync=True)
    """Whether there is a change of the experiments to `undo`, and one to `redo`."""
    _pinned = t.Dict().tag(sync=True)
    """What acts in the baseline, in words (`labels`), and whether something else acts now (`differs`)."""

    _renew: Callable[[], None]

    def __init__(self, **traits: Any) -> None:
        self._idle_experiments: frozenset[Intervention] = frozenset()
        super().__init__(**traits)

    def undo(self) -> None:
        """Take back the last change of the experiments."""
        self.experiments.undo()

    def redo(self) -> None:
        """Do the last undone change again."""
        self.experiments.redo()

    def toggle(self, index: int) -> None:
        """Switch the experiment at `index` off or on."""
        self.experiments.toggle(index)

    def remove(self, index: int) -> None:
        """Remove the experiment at `index`."""
        self.experiments.pop(index)

    def clear(self) -> None:
        """Remove all experiments."""
        self.experiments.clear()

    def _on_experiments(self) -> None:
        self._show_experiments()
        self._renew()

    def _show_experiments(self) -> None:
        with self.session.publishing, self.hold_sync():
            self._experiments = [self._experiment_to_wire(e) for e in self.experiments.entries]
            self._history = {"undo": self.experiments.can_undo, "redo": self.experiments.can_redo}
            pinned = self.experiments.baseline
            self._pinned = {"labels": [short_label(i) for i in pinned], "differs": tuple(self.experiments) != pinned}
            self._code = self.code()

    def _experiment_to_wire(self, experiment: Experiment) -> Wire:
        intervention = experiment.intervention
        before, strength, after = label_parts(intervention)
        return {
            "label": short_label(intervention),
            "name": experiment.name,
            "group": experiment.group,
            "code": repr(intervention),
            "on": experiment.on,
            "note": "changed nothing here" if experiment.on and intervention in self._idle_experiments else "",
            "strength": None if strength is None else {"value": strength, "before": before, "after": after},
        }

    def _note_idle(self, acting: tuple[Intervention, ...], idle: tuple[int, ...]) -> None:
        """Mark the experiments that changed nothing on this widget's prompt."""
        self._idle_experiments = frozenset(acting[i] for i in idle)
        self._show_experiments()


def check_fits(session: Session, interventions: Iterable[Intervention]) -> None:
    """Raises ValueError for an intervention at a layer or head that the session's model does not have."""
    engine = session.engine
    for i in interventions:
        stack = engine.architecture.stack(i.site)
        counts = stack.n_kv_heads if SITES[i.site].heads == "kv" else stack.n_heads
        for layer in engine.layers(i.site, i.layer):
            if i.head is not None and layer is not None:
                resolve(i.head, counts[layer], "head")
