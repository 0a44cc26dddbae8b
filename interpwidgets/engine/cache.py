"""Finished runs, kept under a memory budget: the least recently used go first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """A thread-safe least-recently-used store whose entries' sizes add up to at most `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        # (key, value, size), the most recently used last. Replaced as a whole: keys are compared in Python, where an
        # interrupt can strike, and would leave a dict of them broken.
        self._entries: list[tuple[Hashable, T, int]] = []
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes held."""
        return sum(size for _, _, size in self._entries)

    def values(self) -> list[T]:
        """What is held."""
        return [value for _, value, _ in self._entries]

    def items(self) -> list[tuple[Hashable, T]]:
        """What is held, and under what."""
        return [(key, value) for key, value, _ in self._entries]

    def resize(self, budget: int) -> None:
        """Hold at most `budget` bytes from now on."""
        with self._lock:
            self.budget = budget
            self._entries = self._fitting(self._entries)

    def find(self, suits: Callable[[Hashable, T], bool]) -> T | None:
        """The most recently used entry that suits."""
        with self._lock:
            entries = self._entries
            for i in reversed(range(len(entries))):
                key, value, _ = entries[i]
                if suits(key, value):
                    self._entries = [*entries[:i], *entries[i + 1 :], entries[i]]
                    return value
        return None

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Store an entry of `size` bytes; one larger than the whole budget is not kept."""
        with self._lock:
            entries = [entry for entry in self._entries if entry[0] != key]
            if size <= self.budget:
                entries.append((key, value, size))
            self._entries = self._fitting(entries)

    def _fitting(self, entries: list[tuple[Hashable, T, int]]) -> list[tuple[Hashable, T, int]]:
        total = sum(size for _, _, size in entries)
        gone = 0
        while total > self.budget:
            total -= entries[gone][2]
            gone += 1
        return entries[gone:]

    def clear(self) -> None:
        with self._lock:
            self._entries = []
