"""Random numbers, reproducible on every platform and NumPy version."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]


class Bits:
    """Random numbers of a Philox key, reproducible on every platform and NumPy version.

    Args:
        high: upper half of the key, 0 <= high < 2**64.
        low: lower half of the key, in the same range.
    """

    def __init__(self, *, high: int, low: int) -> None:
        self._philox = np.random.Philox(key=np.array([low, high], dtype=np.uint64))
        self._words: list[int] = []

    def word(self) -> int:
        """Return 64 random bits."""
        if not self._words:
            self._words = self._philox.random_raw(128).tolist()
        return self._words.pop()

    def below(self, bound: int) -> int:
        """Return an integer in [0, bound), for bound <= 2**32."""
        return ((self.word() >> 32) * bound) >> 32

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return low + self.below(high - low + 1)

    def between(self, low: float, high: float) -> float:
        """Return a float64 in [low, high)."""
        return low + (high - low) * ((self.word() >> 11) / (1 << 53))

    def bytes(self, height: int, width: int) -> IntArray:
        """Return integers in [0, 255] as int32 (height, width)."""
        count = height * width
        words = self._philox.random_raw(-(-count // 8)).astype("<u8")
        return words.view(np.uint8)[:count].reshape(height, width).astype(np.int32)
