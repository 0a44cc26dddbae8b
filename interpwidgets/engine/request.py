"""What a sweep is asked to compute, as plain data, and as bytes that another process can be given.

Bytes are one safetensors file: arrays, and beside them JSON that refers to them. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .interventions import Intervention, in_ids
from .metrics import StandardMetric
from .plain import Plain, Referred, prompt_from_json, prompt_to_json, require_keys, short
from .sweep import Metric

VERSION = 1
_MOST_BYTES = 2**30
_MOST_JSON = 2**26
_JSON = "json"


@dataclass(frozen=True)
class SweepRequest:
    """A sweep as data. The bytes that its rows may take are not part of it: they are of the machine that runs it."""

    prompt: Any
    """As `Session` takes it."""
    rows: tuple[tuple[Intervention, ...], ...]
    """Experiments, each tried on its own."""
    metric: Metric
    """What each row gives one number of."""
    interventions: tuple[Intervention, ...] = ()
    """What acts in every row, and in the runs that rows are patched from."""
    answer_position: int = -1
    """Where the logits are read that the metric is of."""
    prefix: int = 0
    """How many positions, from the first on, are known to be the same in all rows."""
    streams: bool = False
    """Whether values are wanted as they come; a sweep is split for that."""
    priority: tuple[float, ...] = ()
    """Of several passes, those with rows of the highest come first: one number a row, or none at all."""

    def in_ids(self, ids: Callable[[Any], Any]) -> SweepRequest:
        """The same with every prompt given by token ids: what a text runs as, only a tokenizer knows."""
        known: dict[int, Any] = {}

        def once(prompt: Any) -> Any:
            if id(prompt) not in known:
                known[id(prompt)] = ids(prompt)
            return known[id(prompt)]

        def spelled(interventions: tuple[Intervention, ...]) -> tuple[Intervention, ...]:
            return tuple(in_ids(i, once) for i in interventions)

        rows, acting = tuple(map(spelled, self.rows)), spelled(self.interventions)
        return replace(self, prompt=ids(self.prompt), rows=rows, interventions=acting)

    def to_bytes(self, model: Mapping[str, str]) -> bytes:
        """The request, of prompts as token ids, for a worker whose model has the fingerprint `model`.

        Raises TypeError for a metric that is a function: it means nothing in another process.
        """
        if not isinstance(self.metric, StandardMetric):
            known = ", ".join(f"iw.{kind.__name__}" for kind in StandardMetric.__subclasses__())
            raise TypeError(
                f"metric={self.metric!r} is a function of this process, and the sweep is asked of another: give one of "
                f"{known}, or set session.executor = None to run it here"
            )
        referred = Referred()
        said = {
            "version": VERSION,
            "ask": "sweep",
            "model": dict(model),
            "prompt": prompt_to_json(self.prompt, referred),
            "rows": [[i.to_json(referred) for i in row] for row in self.rows],
            "metric": self.metric.to_json(referred),
            "interventions": [i.to_json(referred) for i in self.interventions],
            "answer_position": self.answer_position,
            "prefix": self.prefix,
            "streams": self.streams,
            "priority": list(self.priority),
        }
        return pack(said, referred.arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[SweepRequest, dict[str, str]]:
        """A request, and the fingerprint of the model that it is for.

        Raises ValueError, and nothing else, for anything that `to_bytes` did not write.
        """
        try:
            return cls._read(*unpack(data))
        except RecursionError:
            raise ValueError("the request is nested too deeply") from None

    @classmethod
    def _read(cls, said: Any, arrays: dict[str, np.ndarray]) -> tuple[SweepRequest, dict[str, str]]:
        version = said.get("version") if isinstance(said, dict) else None
        if version != VERSION:
            raise ValueError(f"the request has version {short(version)}; this worker reads version {VERSION}")
        asked = {"prompt", "rows", "metric", "interventions", "answer_position", "prefix", "streams", "priority"}
        require_keys("the request", said, {"version", "ask", "model", *asked})
        if said["ask"] != "sweep":
            raise ValueError(f"the request asks for {short(said['ask'])}; this worker runs 'sweep'")
        for name, kind in (("answer_position", int), ("prefix", int), ("streams", bool)):
            if type(said[name]) is not kind:
                raise ValueError(f"{name}={short(said[name])}: {kind.__name__} is needed")
        priority = _list("priority", said["priority"])
        if not all(type(number) in (int, float) for number in priority):
            raise ValueError(f"priority={short(priority)}: numbers are needed")
        model, referred = said["model"], Referred(arrays)
        if not isinstance(model, dict) or not all(isinstance(value, str) for value in model.values()):
            raise ValueError(f"model={short(model)}: a fingerprint is needed")

        def several(what: str, given: Any, kind: type[Plain] = Intervention) -> tuple[Any, ...]:
            return tuple(kind.from_json(item, referred) for item in _list(what, given))

        request = cls(
            prompt=prompt_from_json(said["prompt"], referred),
            rows=tuple(several(f"row {i}", row) for i, row in enumerate(_list("rows", said["rows"]))),
            metric=StandardMetric.from_json(said["metric"], referred),
            interventions=several("interventions", said["interventions"]),
            answer_position=said["answer_position"],
            prefix=said["prefix"],
            streams=said["streams"],
            priority=tuple(priority),
        )
        return request, model


def pack(said: Any, arrays: Mapping[str, np.ndarray]) -> bytes:
    """JSON and the arrays that go with it, as one safetensors file."""
    text = np.frombuffer(json.dumps(said, separators=(",", ":")).encode(), np.uint8)
    return bytes(save({_JSON: text, **{name: np.ascontiguousarray(array) for name, array in arrays.items()}}))


def unpack(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """What `pack` was given. Raises ValueError for what it did not write, or is too large; RecursionError."""
    if len(data) > _MOST_BYTES:
        raise ValueError(f"a message of {len(data):,} bytes is more than {_MOST_BYTES:,}")
    try:
        arrays = load(bytes(data))
        text = arrays.pop(_JSON)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"this is no message: {short(str(error))}") from None
    if text.dtype != np.uint8 or text.size > _MOST_JSON:
        raise ValueError(f"a message has at most {_MOST_JSON:,} bytes of JSON, and this one {text.size:,}")
    return json.loads(text.tobytes().decode()), arrays


def _list(what: str, given: Any) -> list[Any]:
    if not isinstance(given, list):
        raise ValueError(f"{what}: a list is needed, got {short(given)}")
    return given
