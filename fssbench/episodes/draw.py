"""Random draws that are reproducible on every machine and with every release of NumPy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy

T = TypeVar("T")

_WORD = 1 << 64


class Draw:
    """A keyed stream of random draws, independent of the global generators.

    NumPy guarantees the raw stream of a bit generator across releases, but not the distributions of
    its ``Generator``, so the few distributions that episodes need are implemented here.

    Args:
        key: purpose of the draws, e.g. protocol id, fold, shots and seed.
    """

    def __init__(self, *key: str | int) -> None:
        text = "\x1f".join(map(str, key)).encode()
        words = numpy.frombuffer(hashlib.sha256(text).digest()[:16], dtype="<u8")
        self._bits = numpy.random.Philox(key=words)
        self._buffer: list[int] = []

    def below(self, n: int) -> int:
        """Return a uniform integer in [0, n)."""
        limit = _WORD - _WORD % n
        while True:
            if not self._buffer:
                self._buffer = self._bits.random_raw(1024).tolist()
            word = self._buffer.pop()
            if word < limit:  # higher words would make small residues more likely
                return word % n

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a uniformly drawn order (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def distinct(self, items: Sequence[T], count: int, *, but: T | None = None) -> list[T]:
        """Return the items at `count` different positions, in drawn order, none equal to `but`.

        There must be enough such positions.
        """
        taken: list[int] = []
        while len(taken) < count:
            position = self.below(len(items))
            if position not in taken and items[position] != but:
                taken.append(position)
        return [items[position] for position in taken]
