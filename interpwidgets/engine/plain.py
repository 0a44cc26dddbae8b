"""Plain frozen data: compared by content, printed as the Python that makes it, written as JSON and read back."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import fields
from math import isfinite, nan, prod
from operator import index
from typing import Any, TypeVar

import numpy as np

from .names import unknown
from .prompts import SourceTarget

_MOST_CODE = 2**20  # bytes of an array that are written out as code

T = TypeVar("T", bound="Plain")


class Plain:
    """Base of the dataclasses that are plain data."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.identity() == self.identity()

    def __hash__(self) -> int:
        return hash(self.identity())

    def identity(self) -> tuple[Any, ...]:
        """Content as a hashable tuple: what the result cache compares."""
        return (type(self).__name__, *(_hashable(getattr(self, f.name)) for f in fields(self)))  # type: ignore[arg-type]

    def _settle_scalars(self) -> None:
        """Make numbers of any library Python's own. Raises ValueError or TypeError for what is none, or not finite."""
        for f in fields(self):  # type: ignore[arg-type]
            settled = _SCALARS.get(str(f.type))
            if settled is not None:
                object.__setattr__(self, f.name, settled(getattr(self, f.name), f.name))

    def __repr__(self) -> str:
        return self._spelled(lambda array: f"<array {array.shape}>")

    def code(self) -> str:
        """The Python that makes it, arrays and all; one of more than a megabyte is not written out."""
        return self._spelled(_array_code)

    def _spelled(self, array: Callable[[np.ndarray], str]) -> str:
        parts = []
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if _hashable(value) != _hashable(f.default):
                plain = value.item() if isinstance(value, np.generic) else value
                shown = array(value) if isinstance(value, np.ndarray) else repr(plain)
                parts.append(shown if f.name == "site" else f"{f.name}={shown}")
        return f"iw.{type(self).__name__}({', '.join(parts)})"

    def to_json(self, referred: Referred | None = None) -> dict[str, Any]:
        """Serialise; arrays by reference ({"array": sha256 of their bytes, "shape": ...}).

        With `referred`, which what is referred to is put into, prompts of token ids are too ({"ids": sha256}).
        """
        out: dict[str, Any] = {"type": type(self).__name__}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                value = {"array": (referred or Referred()).add(value), "shape": list(value.shape)}
            elif isinstance(value, np.generic):
                value = value.item()
            elif isinstance(value, slice):
                value = {"slice": [value.start, value.stop, value.step]}
            out[f.name] = prompt_to_json(value, referred if f.type == "Any" else None)
        return out

    @classmethod
    def from_json(cls: type[T], given: Any, referred: Referred) -> T:
        """What `to_json` of a subclass wrote. Raises ValueError, and nothing else, for anything else."""
        kinds = {kind.__name__: kind for kind in cls.__subclasses__()}
        name = given.get("type") if isinstance(given, dict) else None
        if not isinstance(name, str) or name not in kinds:
            raise unknown("type", short(name), kinds)
        declared = {f.name: str(f.type).partition("[")[0] for f in fields(kinds[name])}  # type: ignore[arg-type]
        require_keys(name, given, {"type", *declared})
        try:
            return kinds[name](**{field: _READ[kind](given[field], referred) for field, kind in declared.items()})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from None


class Referred:
    """What JSON refers to by the sha256 of its bytes: arrays (float32) and the token ids of prompts (int64)."""

    def __init__(self, arrays: dict[str, np.ndarray] | None = None) -> None:
        """Raises ValueError for arrays that are not what their names say."""
        self.arrays = arrays or {}
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []  # so that what is known by its address stays there
        self._ids: dict[str, tuple[int, ...]] = {}
        for name, array in self.arrays.items():
            if array.dtype not in (np.float32, np.int64) or array.ndim != 1 or _digest(array) != name:
                raise ValueError(f"array {short(name)} is not one of float32 or int64 with that sha256")

    def add(self, value: np.ndarray | tuple[int, ...]) -> str:
        """The name to refer to this by. Rows of a sweep share what they name: it is looked at once."""
        name = self._names.get(id(value))
        if name is None:
            array = (np.array(value, np.int64) if isinstance(value, tuple) else value).ravel()
            name = self._names[id(value)] = _digest(array)
            self.arrays[name] = array
            self._kept.append(value)
        return name

    def array(self, given: Any) -> np.ndarray:
        """The array of {"array": name, "shape": ...}. Raises ValueError."""
        require_keys("an array", given, {"array", "shape"})
        found, shape = self._named(given["array"], np.float32), given["shape"]
        fits = isinstance(shape, list) and all(type(n) is int and 0 < n <= found.size for n in shape)
        if not fits or len(shape) > 8 or prod(shape) != found.size:
            raise ValueError(f"{found.size} numbers have no shape {short(shape)}")
        return found.reshape(shape)

    def ids(self, given: Any) -> tuple[int, ...]:
        """The token ids of {"ids": name}. Raises ValueError."""
        require_keys("token ids", given, {"ids"})
        found = self._named(given["ids"], np.int64)
        return self._ids.setdefault(given["ids"], tuple(found.tolist()))

    def _named(self, name: Any, dtype: type) -> np.ndarray:
        found = self.arrays.get(name) if isinstance(name, str) else None
        if found is None or found.dtype != dtype:
            raise ValueError(f"there is no array {short(name)} of {dtype.__name__}")
        return found


def require_keys(what: str, given: Any, keys: set[str]) -> None:
    """Raise ValueError unless `given` is an object with these keys and no others."""
    if not isinstance(given, dict):
        raise ValueError(f"{what}: an object is needed, got {short(given)}")
    for wrong, those in (("has no", keys - given.keys()), ("has an unknown", given.keys() - keys)):
        if those:
            raise ValueError(f"{what} {wrong} {short(min(those))}; its keys are {', '.join(sorted(keys))}")


def short(given: Any) -> str:
    """What was given, fit for an error."""
    # A long number has no decimal form in Python, and what came over a wire may be any length.
    shown = "a long number" if isinstance(given, int) and abs(given) > 1 << 128 else repr(given)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def freeze_array(value: Any) -> Any:
    """Copy an array so that later edits of the caller's cannot change what holds it; an empty one raises ValueError."""
    if hasattr(value, "detach"):
        value = value.detach().to("cpu").float().numpy()
    array = np.array(getattr(value, "values", value), dtype=np.float32)
    if not array.size:
        raise ValueError(f"an array of shape {array.shape} holds nothing")
    array.setflags(write=False)
    return array


def array(data: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 from base64 of its bytes (little-endian), as `widget.code()` writes it.

    Raises ValueError for what is no base64 of as many numbers.

    Example: `iw.Steer("resid_post", iw.array("AACAPwAAAEA=", (2,)), layer=3)`
    """
    return decoded(data, "float32").reshape(shape)


def decoded(data: Any, dtype: str) -> np.ndarray:
    """A flat array from base64. Raises ValueError for what is none."""
    try:
        return np.frombuffer(base64.b64decode(data, validate=True), np.dtype(dtype).newbyteorder("<")).astype(dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{short(data)} is no base64 of {dtype} numbers: {error}") from None


def encoded(values: np.ndarray) -> str:
    """What `decoded` reads."""
    return base64.b64encode(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()).decode()


def _array_code(values: np.ndarray) -> str:
    size = f"{values.nbytes / 2**20:.1f} MiB, too large to stand here: widget.state holds it"
    return f"iw.array({size if values.nbytes > _MOST_CODE else encoded(values)!r}, {values.shape})"


def _finite(value: Any, name: str) -> float:
    try:
        number = nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = nan
    if not isfinite(number):
        raise ValueError(f"{name}={short(value)}: a finite number is needed")
    return number


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}={short(value)}: a whole number is needed")
    return index(value)


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={short(value)}: True or False is needed")
    return bool(value)


_SCALARS: dict[str, Callable[[Any, str], Any]] = {
    "float": _finite, "int": _whole, "bool": _flag,
    "int | None": lambda value, name: None if value is None else _whole(value, name),
}  # fmt: skip
"""How a field is made Python's own, by its annotation."""


def prompt_to_json(value: Any, referred: Referred | None) -> Any:
    """A prompt, or several, without our own types; token ids are put into `referred`, if that is given."""
    if isinstance(value, SourceTarget):
        return {name: prompt_to_json(getattr(value, name), referred) for name in ("source", "target")}
    if not isinstance(value, tuple):
        return value
    if referred is not None and all(type(i) is int for i in value):
        return {"ids": referred.add(value)}
    return tuple(prompt_to_json(item, referred) for item in value)


def prompt_from_json(given: Any, referred: Referred) -> Any:
    """A prompt that `prompt_to_json` wrote. Raises ValueError for anything else."""
    if isinstance(given, dict) and "source" in given:
        require_keys("a prompt", given, {"source", "target"})
        return SourceTarget(*(_one_text(given[name], referred) for name in ("source", "target")))
    return _one_text(given, referred)


def _one_text(given: Any, referred: Referred) -> str | tuple[int, ...]:
    return given if isinstance(given, str) else referred.ids(given)


def _plain(*kinds: type) -> Callable[[Any, Referred], Any]:
    """A reader of values of these types and no others: True is no int."""

    def read(given: Any, referred: Referred) -> Any:
        if type(given) not in kinds:
            raise ValueError(f"{short(given)}: {' or '.join(kind.__name__ for kind in kinds)} is needed")
        return given

    return read


def _number(given: Any, referred: Referred) -> float:
    if type(given) is int and abs(given) < 1 << 53:
        return float(given)
    return _plain(float)(given, referred)


_integer = _plain(int)
_end = _plain(int, type(None))


def _index(given: Any, referred: Referred) -> Any:
    if isinstance(given, dict):
        require_keys("an index", given, {"slice"})
        ends = given["slice"]
        if not isinstance(ends, list) or len(ends) != 3:
            raise ValueError(f"a slice is [start, stop, step], got {short(ends)}")
        return slice(*(_end(n, referred) for n in ends))
    return tuple(_integer(i, referred) for i in given) if isinstance(given, list) else _end(given, referred)


def _any(given: Any, referred: Referred) -> Any:
    """What a field takes that is a prompt, several, an array, or nothing."""
    if isinstance(given, dict) and "array" in given:
        return referred.array(given)
    if isinstance(given, list):
        return tuple(prompt_from_json(item, referred) for item in given)
    return None if given is None else prompt_from_json(given, referred)


_READ: dict[str, Callable[[Any, Referred], Any]] = {
    "Any": _any, "Index": _index, "Literal": _plain(str), "StackName": _plain(str), "bool": _plain(bool),
    "float": _number, "int": _integer, "int | None": _end, "str": _plain(str),
    "str | None": _plain(str, type(None)),
}  # fmt: skip
"""How a field is read, by its annotation."""


def _hashable(value: Any) -> Any:
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    if isinstance(value, np.ndarray):
        return ("array", value.shape, _digest(value))
    return value


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
