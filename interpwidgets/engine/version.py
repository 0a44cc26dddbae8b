"""Whether a model still computes what it did: a number that changes with weights, hooks and settings."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from .context import without_gradients

_SAMPLES = 64
"""Elements of each tensor that are read."""

_PLAIN = frozenset((bool, int, float, str, type(None)))
_COMPARED = _PLAIN | {list, tuple, dict}
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}
"""What torch itself keeps in a module; what of it matters is looked at by name."""
_OF_A_PASS = frozenset(("_attn_implementation_internal",))
"""What a pass of ours changes in a config for its time."""


class Versions:
    """Numbers the states in which a model is found. Two looks give the same number only if nothing changed between.

    Compared are: every parameter and buffer by its place in memory, dtype, device, torch's count of edits and 64 of its
    elements, spread evenly; the hooks on every module; a `forward` that was put on a module (LoRA-like wrappers,
    accelerate); plain attributes of modules and of their configs (scaling factors, flags, the adapter that is active),
    also those in their lists, tuples and dicts; and the attention implementation.

    An edit that torch counts is always seen: under `no_grad`, by an optimiser, by `load_state_dict`. One that it does
    not count, through `parameter.data` or a NumPy view, is seen if it touches one of the 64 elements: an update of a
    whole tensor is, one of a few of its rows may not be. What a hook or a wrapper does differently without being put on
    anew is not seen.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._lock = threading.RLock()
        self._seen: Any = None
        self._number = 0
        self._samples: tuple[Any, list[Tensor]] = None, []

    def now(self, *settings: Any) -> int | None:
        """The number of the present state; None if it cannot be told, as for weights made in inference mode."""
        with self._lock:
            found = list(modules(self._model))
            tensors = [t for m in found for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
            if any(t.is_inference() for t in tensors):
                return None
            edits = [(t.data_ptr(), t._version, t.dtype, t.device, t.shape) for t in tensors]
            # The views are most of the work; while they are held, no other tensor can be in their place.
            if edits != self._samples[0]:
                self._samples = edits, without_gradients(lambda: _samples(tensors))
            sampled = without_gradients(lambda: _digest(self._samples[1]))
            configs = {id(c): c for m in found if (c := vars(m).get("config")) is not None}
            chosen = [_plain(getattr(c, "__dict__", {}), _OF_A_PASS) for c in configs.values()]
            state = (settings, edits, sampled, _global_hooks(), chosen, [_behaviour(m) for m in found])
            if state != self._seen:
                self._seen = state
                self._number += 1
            return self._number


def _samples(tensors: list[Tensor]) -> list[Tensor]:
    """A few elements of each tensor, as views."""
    found = []
    for t in tensors:
        # Subclasses (quantised weights) and absent ones (offloaded to "meta") have no elements to address.
        if type(t) in (Tensor, nn.Parameter, nn.Buffer) and t.device.type != "meta" and t.numel():
            extent = t.numel()
            if not t.is_contiguous():
                extent = 1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
            # Odd, so that the samples do not stay in one column of a matrix.
            step = extent // _SAMPLES | 1
            found.append(t.detach().as_strided(((extent - 1) // step + 1,), (step,), t.storage_offset()))
    return found


def _digest(samples: list[Tensor]) -> bytes:
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for sample in samples:
        groups.setdefault((sample.dtype, sample.device), []).append(sample)
    digest = hashlib.blake2b(digest_size=16)
    for group in groups.values():
        digest.update(torch.cat(group).view(torch.uint8).cpu().numpy().tobytes())
    return digest.digest()


_OF_A_COPY = {"_name_or_path", "architectures", "dtype", "transformers_version"}
"""Settings that saving and loading a model changes; the weights say their dtype themselves."""


def fingerprint(model: nn.Module) -> dict[str, str]:
    """What a model computes with, to compare it with one in another process: its class, settings and weights, each.

    Of every tensor its name, shape, dtype and 64 elements count, spread evenly. Hooks and wrapped forwards do not.
    """
    settings = {k: v for k, v in model.config.to_dict().items() if k not in _OF_A_COPY}  # type: ignore[operator, union-attr]
    weights = hashlib.blake2b(digest_size=16)
    for name, t in sorted(model.state_dict().items()):
        if isinstance(t, Tensor):
            weights.update(f"{name} {tuple(t.shape)} {t.dtype} ".encode())
            weights.update(without_gradients(partial(_elements, t)))
    said = json.dumps(settings, sort_keys=True, default=str).encode()
    return {
        "class": type(model).__name__,
        "settings": hashlib.blake2b(said, digest_size=16).hexdigest(),
        "weights": weights.hexdigest(),
    }


def _elements(t: Tensor) -> bytes:
    return _digest(_samples([t.contiguous()]))


def _behaviour(module: nn.Module) -> tuple[Any, ...]:
    """What a module does beside using its weights."""
    own = vars(module)
    plain = _plain(own, _OF_EVERY_MODULE)
    return tuple(module._forward_pre_hooks), tuple(module._forward_hooks), own.get("forward"), plain


def _plain(attributes: dict[str, Any], besides: frozenset[str]) -> list[Any]:
    """The plain values of these attributes; of lists, tuples and dicts those that they hold."""
    # Copied first: another thread may set an attribute meanwhile.
    compared = [v for name, v in list(attributes.items()) if type(v) in _COMPARED and name not in besides]
    return [v if type(v) in _PLAIN else _held(v) for v in compared]


def _held(several: Any) -> list[Any]:
    if type(several) is dict:
        return [(k, v) for k, v in list(several.items()) if type(k) in _PLAIN and type(v) in _PLAIN]
    return [v for v in tuple(several) if type(v) in _PLAIN]


def _global_hooks() -> tuple[int, ...]:
    return (*torch_modules._global_forward_pre_hooks, *torch_modules._global_forward_hooks)


def modules(model: nn.Module) -> Iterator[nn.Module]:
    """Every module once, in our own order; ten times as fast as `Module.modules`, for it is asked at each click."""
    seen: set[int] = set()
    waiting: list[nn.Module | None] = [model]
    while waiting:
        module = waiting.pop()
        if module is not None and id(module) not in seen:
            seen.add(id(module))
            yield module
            waiting.extend(module._modules.values())
