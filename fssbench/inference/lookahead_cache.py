"""Values that will be needed again, within a budget of bytes."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch

from fssbench.nn import tensors

_NEVER = 1 << 62

Storage = tuple[torch.device, int]


class LookaheadCache:
    """A cache that knows the future: what is needed last goes first (Belady, 1966).

    An evaluation's episodes are known before it starts, so the best choice can be made. Tensors
    that share memory are counted once; bytes are those of whole storages.

    Args:
        budget: bytes.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._values: dict[Hashable, Any] = {}
        self._uses: Mapping[Hashable, list[int]] = {}
        self._holders: dict[Storage, int] = defaultdict(int)
        self._now = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def expect(self, uses: Mapping[Hashable, list[int]]) -> None:
        """From now on, values are needed at these moments (ascending) and at no others."""
        self._uses = uses
        self._now = 0

    def move_to(self, moment: int) -> None:
        """Tell what time it is."""
        self._now = moment

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        return self._values.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value, unless those that are needed before it fill the budget."""
        self.drop(key)
        self._values[key] = value
        for storage, size in _storages(value):
            if not self._holders[storage]:
                self.bytes += size
            self._holders[storage] += 1
        while self.bytes > self.budget and self._values:
            self.drop(max(self._values, key=self._next_use))

    def drop(self, key: Hashable) -> None:
        """Forget a value, if it is there."""
        for storage, size in _storages(self._values.pop(key, None)):
            self._holders[storage] -= 1
            if not self._holders[storage]:
                del self._holders[storage]
                self.bytes -= size

    def _next_use(self, key: Hashable) -> int:
        moments = self._uses.get(key, [])
        place = bisect.bisect_left(moments, self._now)
        return moments[place] if place < len(moments) else _NEVER


def _storages(value: Any) -> Iterable[tuple[Storage, int]]:
    found: dict[Storage, int] = {}
    for tensor in tensors(value):
        storage = tensor.untyped_storage()
        found[tensor.device, storage.data_ptr()] = storage.nbytes()
    return found.items()
