"""Cache with Belady's eviction, within a budget of bytes."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol

import torch

from fssbench.nn import tensors

_NEVER = 1 << 62

Storage = tuple[torch.device, int]


class Uses(Protocol):
    """Times at which values will be used, by key."""

    def get(self, key: Any, default: list[int], /) -> list[int]:
        """Return the ascending times of a key."""


class LookaheadCache:
    """A cache that evicts the value whose next use is farthest in the future (Belady, 1966).

    The episodes of an evaluation are known before it starts, so eviction can be optimal. Tensors
    that share memory are counted once, with the bytes of their whole storage.

    Args:
        budget: size limit in bytes.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._values: dict[Hashable, Any] = {}
        self._uses: Uses = {}
        self._holders: dict[Storage, int] = defaultdict(int)
        self._now = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def expect(self, uses: Uses) -> None:
        """Set the times (ascending) at which each value will be used, and start at time 0."""
        self._uses = uses
        self._now = 0

    def move_to(self, time: int) -> None:
        """Set the current time: the position of the current episode."""
        self._now = time

    def get_or_make(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value, or make and add it."""
        found = self._values.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found

    def put(self, key: Hashable, value: Any) -> None:
        """Add a value, then evict values until the cache is within its budget."""
        self.drop(key)
        self._values[key] = value
        for storage, size in _storages(value):
            if not self._holders[storage]:
                self.bytes += size
            self._holders[storage] += 1
        while self.bytes > self.budget and self._values:
            self.drop(max(self._values, key=self._next_use))

    def drop(self, key: Hashable) -> None:
        """Remove a value, if it is cached."""
        for storage, size in _storages(self._values.pop(key, None)):
            self._holders[storage] -= 1
            if not self._holders[storage]:
                del self._holders[storage]
                self.bytes -= size

    def _next_use(self, key: Hashable) -> int:
        times = self._uses.get(key, [])
        position = bisect.bisect_left(times, self._now)
        return times[position] if position < len(times) else _NEVER


def _storages(value: Any) -> Iterable[tuple[Storage, int]]:
    found: dict[Storage, int] = {}
    for tensor in tensors(value):
        storage = tensor.untyped_storage()
        found[tensor.device, storage.data_ptr()] = storage.nbytes()
    return found.items()
