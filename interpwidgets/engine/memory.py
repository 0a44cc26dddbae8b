"""Running out of memory: recognised on every device, and answered with what was asked and how to ask for less."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SAID = ("can't allocate memory", "not enough memory", "out of memory")


class NotEnoughMemory(MemoryError):
    """What was asked does not fit; the text says what it was and how to ask for less."""


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
