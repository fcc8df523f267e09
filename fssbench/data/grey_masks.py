"""The rule for grey masks: which grey values of a mask file are foreground."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage as scipy_ndimage

from fssbench.data.dataset import IGNORE
from fssbench.data.stored_mask import Array, UnclearError, listed, values_of

ndimage: Any = scipy_ndimage  # without type annotations

HALF = 128
"""Grey value or opacity from which a pixel is foreground."""

DARK, LIGHT = 31, 224
"""Greatest grey value near black and smallest one near white; soft edges lie between."""

_EDGE = 8  # pixels between a soft edge and both its sides
_BLOCK = 9  # pixels; a flat square of this side holds values that JPEG's noise did not change


def foreground_of(grey: Array, lossy: bool) -> Array:
    """Return the foreground of grey values: 1 of 0 and 1; 1 of 0, 1 and 255; else bright pixels.

    Values between black and white are allowed at soft edges and as compression noise: then a pixel
    of 128 and more is foreground.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    values = np.flatnonzero(counts).tolist()
    top = values[-1]
    if top <= 1 and not (lossy and top):
        return grey
    if top < HALF:
        raise UnclearError(f"its brightest pixel is {top} of 255 (grey values {listed(values)})")
    bright = (grey >= HALF).astype(np.uint8)
    if set(values) <= {0, top}:
        return bright
    flat = flat_values(grey)
    if set(values) <= {0, 1, IGNORE} and not lossy:
        if 1 in flat:
            return grey
        if 100 * counts[1] <= counts[IGNORE]:  # stray pixels beside an object of 255
            return bright
        raise UnclearError("its grey values are 0, 1 and 255, and its 1 marks no area")
    # JPEG may change 0 to 1, but everywhere.
    if {0, 1} <= flat and {0, 1} <= flat_values(grey, _BLOCK):
        raise UnclearError(
            "its grey values are 0, 1 and 255 with noise, and both 0 and 1 mark areas"
        )
    noisy = lossy or sum(value > LIGHT for value in values if value < IGNORE) >= 3
    areas = flat - {0, top}
    if noisy:
        areas = {value for value in areas if 8 <= value < LIGHT}
        if 20 * counts[sorted(areas)].sum() <= counts[HALF:].sum():
            areas = set()
    between = (grey > DARK) & (grey < LIGHT)
    stray = counts[1 : DARK + 1].sum()
    if areas or (not noisy and not between.any() and 100 * stray > counts[LIGHT:].sum()):
        raise UnclearError(f"its grey values are {listed(values)}")
    if between.any() and top >= LIGHT:
        size = 2 * _EDGE + 1
        dark = ndimage.minimum_filter(grey, size) <= DARK
        light = ndimage.maximum_filter(grey, size) >= LIGHT
        if between.mean() > 0.35 or (dark & light)[between].mean() < 0.75:
            raise UnclearError(
                f"{between.mean():.0%} of its pixels are neither dark nor bright: it is a "
                "photograph, or its edges are too soft"
            )
    elif between.any():
        raise UnclearError(f"its grey values are {listed(values)}, none of them near 255")
    return bright


def flat_values(grey: Array, size: int = 3) -> set[int]:
    """Return the values that fill a square of `size` x `size` pixels."""
    return set(values_of(grey[flat_squares(grey, size)]))


def flat_squares(grey: Array, size: int = 3) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the centres of the squares of one value."""
    found: np.ndarray[Any, np.dtype[np.bool_]] = ndimage.minimum_filter(
        grey, size
    ) == ndimage.maximum_filter(grey, size)
    return found
