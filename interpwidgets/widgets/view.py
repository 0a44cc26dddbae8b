"""What a widget shows as plain data: prompts, settings, selection and experiments, from which it is rebuilt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..engine.interventions import Intervention
from ..engine.plain import Referred, decoded, encoded, prompt_to_json, require_keys, short
from ..engine.prompts import Prompt, SourceTarget
from ..experiments import Experiment
from .selection import Selection

VERSION = 1
_KEYS = (
    "widget",
    "model",
    "prepend_bos",
    "linked",
    "prompts",
    "settings",
    "selection",
    "experiments",
    "baseline",
    "arrays",
)


class OtherModelWarning(UserWarning):
    """A state was read on another model than it was written on, or where prompts are read in another way."""


@dataclass(frozen=True)
class View:
    """All that a widget is rebuilt from, given a session."""

    widget: str
    """The name of its class."""
    model: str
    prepend_bos: bool | None
    """The session's, when the state was read: other tokens would be another picture."""
    linked: bool
    prompts: dict[str, Any]
    """By the names that they have in the widget's signature: as they were given, or the Tokens of a run."""
    settings: dict[str, Any]
    selection: Selection
    experiments: tuple[Experiment, ...]
    baseline: tuple[Intervention, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts, texts and numbers; arrays are base64 of their bytes."""
        referred = Referred()
        entries = [
            {"intervention": e.intervention.to_json(referred), "on": e.on, "name": e.name, "group": e.group}
            for e in self.experiments
        ]
        baseline = [i.to_json(referred) for i in self.baseline]
        arrays = {name: {"dtype": str(array.dtype), "data": encoded(array)} for name, array in referred.arrays.items()}
        said = {
            "version": VERSION,
            "widget": self.widget,
            "model": self.model,
            "prepend_bos": self.prepend_bos,
            "linked": self.linked,
            "prompts": {name: prompt_to_json(prompt, None) for name, prompt in self.prompts.items()},
            "settings": self.settings,
            "selection": self.selection.to_json(),
            "experiments": entries,
            "baseline": baseline,
            "arrays": arrays,
        }
        plain: dict[str, Any] = json.loads(json.dumps(said))
        return plain

    @classmethod
    def from_json(cls, given: Any) -> View:
        """What `to_json` wrote. Raises ValueError or TypeError, and nothing else, for anything else."""
        try:
            return cls._read(given)
        except RecursionError:
            raise ValueError("the state is nested too deeply") from None

    @classmethod
    def _read(cls, given: Any) -> View:
        if not isinstance(given, dict):
            hint = "; of a text, json.loads(text)" if isinstance(given, str) else ""
            raise TypeError(
                f"a state is the dict that widget.state gives{hint}; got {type(given).__name__} {short(given)}"
            )
        _require_version(given)
        require_keys("the state", given, {"version", *_KEYS})
        for name, kind in (
            ("widget", str),
            ("model", str),
            ("linked", bool),
            ("experiments", list),
            ("baseline", list),
        ):
            if type(given[name]) is not kind:
                raise ValueError(f"{name}={short(given[name])}: {kind.__name__} is needed")
        if type(given["prepend_bos"]) not in (bool, type(None)):
            raise ValueError(f"prepend_bos={short(given['prepend_bos'])}: true, false or null is needed")
        for name in ("prompts", "settings", "arrays"):
            if not isinstance(given[name], dict):
                raise ValueError(f"{name}={short(given[name])}: an object is needed")
        referred = Referred({name: _array(name, array) for name, array in given["arrays"].items()})
        return cls(
            widget=given["widget"],
            model=given["model"],
            prepend_bos=given["prepend_bos"],
            linked=given["linked"],
            prompts={name: _prompt(name, prompt) for name, prompt in given["prompts"].items()},
            settings=given["settings"],
            selection=Selection.from_json(given["selection"]),
            experiments=tuple(_experiment(entry, referred) for entry in given["experiments"]),
            baseline=tuple(Intervention.from_json(each, referred) for each in given["baseline"]),
        )


_OWN = ("prompts", "settings", "selection")
"""What of a state is a widget's own where several share their experiments."""


def together(kind: str, views: Mapping[str, View]) -> dict[str, Any]:
    """Views of a `kind` of figure of several widgets, by their names in it, with what they share written once."""
    whole = [view.to_json() for view in list(views.values())[:1]]
    bare = [replace(view, experiments=(), baseline=()).to_json() for view in list(views.values())[1:]]
    shared = {key: value for key, value in whole[0].items() if key not in (*_OWN, "linked")}
    own = ({key: each[key] for key in _OWN} for each in (*whole, *bare))
    return shared | {"widget": kind, "widgets": dict(zip(views, own, strict=True))}


def apart(given: Mapping[str, Any], kinds: Mapping[str, str], optional: set[str]) -> dict[str, View]:
    """The views that `together` wrote, the first with the experiments; `kinds` are their classes by their names.

    Raises ValueError or TypeError for anything else.
    """
    try:
        _require_version(given)
        require_keys("the state", given, {"version", "widgets", *_KEYS} - {"linked", *_OWN})
        widgets = given["widgets"]
        absent = optional - widgets.keys() if isinstance(widgets, dict) else set()
        require_keys("widgets", widgets, kinds.keys() - absent)
        views: dict[str, View] = {}
        for name in (name for name in kinds if name in widgets):
            require_keys(name, widgets[name], set(_OWN))
            none: dict[str, Any] = {"experiments": [], "baseline": [], "arrays": {}} if views else {}
            shared = {key: value for key, value in given.items() if key != "widgets"} | none
            views[name] = View.from_json(shared | widgets[name] | {"widget": kinds[name], "linked": True})
    except RecursionError:
        raise ValueError("the state is nested too deeply") from None
    return views


def _require_version(given: Mapping[str, Any]) -> None:
    version = given.get("version")
    if type(version) is not int or version != VERSION:
        raise ValueError(f"the state has version {short(version)}; this version of interpwidgets reads {VERSION}")


def _experiment(given: Any, referred: Referred) -> Experiment:
    require_keys("an experiment", given, {"intervention", "on", "name", "group"})
    if type(given["on"]) is not bool:
        raise ValueError(f"on={short(given['on'])}: true or false is needed")
    intervention = Intervention.from_json(given["intervention"], referred)
    return Experiment(intervention, given["on"], given["name"], given["group"])


def _array(name: Any, given: Any) -> np.ndarray:
    require_keys(f"array {short(name)}", given, {"dtype", "data"})
    if given["dtype"] not in ("float32", "int64"):
        raise ValueError(f"array {short(name)} is of {short(given['dtype'])}: float32 or int64 is needed")
    return decoded(given["data"], given["dtype"])


def _prompt(name: str, given: Any) -> Prompt:
    if isinstance(given, Mapping):
        require_keys(f"prompt {short(name)}", given, {"source", "target"})
        return SourceTarget(_text(name, given["source"]), _text(name, given["target"]))
    return _text(name, given)


def _text(name: str, given: Any) -> str | tuple[int, ...]:
    if isinstance(given, str):
        return given
    if isinstance(given, list) and all(type(i) is int for i in given):
        return tuple(given)
    raise ValueError(f"prompt {short(name)} is {short(given)}: text or token ids are needed")
