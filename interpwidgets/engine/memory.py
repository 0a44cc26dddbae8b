"""Memory: what is free, what is held; running out of it is answered with what was asked and how to ask for less."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

_SAID = ("can't allocate memory", "not enough memory", "out of memory")


class NotEnoughMemory(MemoryError):
    """What was asked does not fit; the text says what it was and how to ask for less."""


class BudgetWarning(UserWarning):
    """What a run was asked to keep is more than the session's memory budget."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a session holds, and for what."""

    budget: int
    """What results and sweeps together may take."""
    results: int
    """Finished runs, kept to answer from again; at most half of the budget."""
    widgets: int
    """Runs that widgets show and that are not kept any more."""
    model: int
    """The weights: the user's own, not counted in the budget."""

    def __str__(self) -> str:
        rows = (("budget", self.budget), ("results", self.results), ("widgets", self.widgets), ("model", self.model))
        return "\n".join(f"{name:8s} {size / 2**20:9.1f} MiB" for name, size in rows)


def free_memory(device: torch.device) -> int:
    """Bytes that are free where the model computes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each storage that the tensors look into, by its address: views of one count once."""
    held = (t.untyped_storage() for t in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in held}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or numpy could not allocate: CUDA has an exception of its own, CPU and MPS only say so."""
    if isinstance(error, NotEnoughMemory):
        return False
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


@contextmanager
def explained(what: str, instead: str) -> Iterator[None]:
    """Turn an allocation that fails inside into NotEnoughMemory, saying what was asked and what to do instead."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # The frames that failed hold tensors, and the exception holds the frames.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        said = str(error).partition("\n")[0]
        raise NotEnoughMemory(f"out of memory: {what}. {instead}\n{said}") from None
