"""Random draws that are the same for ever, on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy

T = TypeVar("T")

_WORD = 1 << 64


class Draw:
    """A stream of draws keyed by what it is for; it touches no global generator.

    NumPy promises the raw stream of a bit generator for ever, but not the distributions that its
    ``Generator`` makes of it, so the few that episodes need are made here.

    Args:
        key: what the draws are for, e.g. protocol id, fold, shots, seed.
    """

    def __init__(self, *key: str | int) -> None:
        text = "\x1f".join(map(str, key)).encode()
        words = numpy.frombuffer(hashlib.sha256(text).digest()[:16], dtype="<u8")
        self._bits = numpy.random.Philox(key=words)
        self._buffer: list[int] = []

    def below(self, n: int) -> int:
        """A uniform integer in [0, n)."""
        limit = _WORD - _WORD % n
        while True:
            if not self._buffer:
                self._buffer = self._bits.random_raw(1024).tolist()
            word = self._buffer.pop()
            if word < limit:  # the words above would make the first residues likelier
                return word % n

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a uniformly drawn order (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def distinct(self, items: Sequence[T], count: int, *, but: T | None = None) -> list[T]:
        """`count` different positions of `items`, never one that equals `but`, in drawn order.

        `items` must hold enough of them.
        """
        taken: list[int] = []
        while len(taken) < count:
            position = self.below(len(items))
            if position not in taken and items[position] != but:
                taken.append(position)
        return [items[position] for position in taken]
