"""Textures of two colours, in integer arithmetic: flat, stripes, checks, dots, clouds, others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, sqrt

import numpy as np

from fssbench.data.shapes.bits import Bits, IntArray

_SWING = 64  # maximum difference of the two colours of a texture, per channel


def textured(bits: Bits, height: int, width: int, colour: Sequence[int]) -> IntArray:
    """Return a random texture around a colour.

    Args:
        bits: random numbers.
        height: height in pixels.
        width: width in pixels.
        colour: three integers in [0, 255].

    Returns:
        int32 (3, height, width); values may leave [0, 255].
    """
    mixture = _TEXTURES[bits.below(len(_TEXTURES))](bits, height, width) - 128
    base = np.array(colour, dtype=np.int32)[:, None, None]
    swing = [bits.integer(-_SWING, _SWING) for _ in range(3)]
    return base + ((np.array(swing, dtype=np.int32)[:, None, None] * mixture) >> 8)


# A texture is a mixture: int32 (height, width) in 0 (the first colour) .. 256 (the second).


def _flat(bits: Bits, height: int, width: int) -> IntArray:
    return np.zeros((height, width), dtype=np.int32)


def _wave(bits: Bits, height: int, width: int) -> tuple[IntArray, int]:
    """Return the phase of a plane wave in a random direction, and its period in the same unit."""
    a, b = bits.integer(-8, 8), bits.integer(1, 8)
    period = floor(sqrt(a * a + b * b) * bits.integer(6, 16))
    across = np.arange(width, dtype=np.int32) * a + bits.below(period)
    down = np.arange(height, dtype=np.int32) * b
    return (across + down[:, None]) % period, period


def _stripes(bits: Bits, height: int, width: int) -> IntArray:
    phase, period = _wave(bits, height, width)
    return (phase * 2 < period).astype(np.int32) * 256


def _checks(bits: Bits, height: int, width: int) -> IntArray:
    checks: IntArray = np.abs(_stripes(bits, height, width) - _stripes(bits, height, width))
    return checks


def _ripples(bits: Bits, height: int, width: int) -> IntArray:
    phase, period = _wave(bits, height, width)
    ripples: IntArray = np.abs(phase * 2 - period) * 256 // period
    return ripples


def _dots(bits: Bits, height: int, width: int) -> IntArray:
    pitch = bits.integer(7, 14)
    row, column = np.arange(height, dtype=np.int32), np.arange(width, dtype=np.int32)
    dy = ((row + bits.below(pitch)) % pitch) * 2 - pitch
    dx = ((column + bits.below(pitch)) % pitch) * 2 - pitch
    return ((dx * dx + (dy * dy)[:, None]) * 10 < pitch * pitch * 4).astype(np.int32) * 256


def _gradient(bits: Bits, height: int, width: int) -> IntArray:
    down = (np.arange(height, dtype=np.int32) * 256 // height)[:, None]
    across = np.arange(width, dtype=np.int32) * 256 // width
    weight = bits.integer(0, 8)
    return (down * weight + across * (8 - weight)) >> 3


def _clouds(bits: Bits, height: int, width: int) -> IntArray:
    """Interpolate a coarse grid of random values bilinearly."""
    cell = bits.integer(5, 16)
    grid = bits.bytes(height // cell + 2, width // cell + 2)
    row, part = np.divmod(np.arange(height, dtype=np.int32), np.int32(cell))
    grid = (grid[row] * (cell - part)[:, None] + grid[row + 1] * part[:, None]) // cell
    column, part = np.divmod(np.arange(width, dtype=np.int32), np.int32(cell))
    clouds: IntArray = (grid[:, column] * (cell - part) + grid[:, column + 1] * part) // cell
    return clouds


def _blotches(bits: Bits, height: int, width: int) -> IntArray:
    return (_clouds(bits, height, width) >= 128).astype(np.int32) * 256


def _speckles(bits: Bits, height: int, width: int) -> IntArray:
    return bits.bytes(height, width)


def _halves(bits: Bits, height: int, width: int) -> IntArray:
    return (_gradient(bits, height, width) >= bits.integer(90, 166)).astype(np.int32) * 256


_TEXTURES: tuple[Callable[[Bits, int, int], IntArray], ...] = (
    _flat, _stripes, _checks, _ripples, _dots, _gradient, _clouds, _blotches, _speckles, _halves,
)  # fmt: skip
