"""Finished runs, kept under a memory budget: the least recently used go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """A thread-safe least-recently-used store whose entries' sizes add up to at most `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._entries: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes held."""
        with self._lock:
            return sum(size for _, size in self._entries.values())

    def find(self, suits: Callable[[Hashable, T], bool]) -> T | None:
        """The most recently used entry that suits."""
        with self._lock:
            for key in reversed(self._entries):
                value, _ = self._entries[key]
                if suits(key, value):
                    self._entries.move_to_end(key)
                    return value
        return None

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Store an entry of `size` bytes; one larger than the whole budget is not kept."""
        with self._lock:
            self._entries.pop(key, None)
            if size > self.budget:
                return
            self._entries[key] = (value, size)
            total = sum(s for _, s in self._entries.values())
            while total > self.budget:
                _, (_, freed) = self._entries.popitem(last=False)
                total -= freed

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
