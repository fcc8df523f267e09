"""Masks painted over images."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray
from torch import Tensor

from fssbench.data.dataset import IGNORE

SUPPORT, TRUTH, PREDICTION = (255, 170, 0), (0, 200, 80), (40, 120, 255)
"""Red, green, blue."""


def painted(image: Tensor, mask: Tensor, colour: tuple[int, int, int]) -> NDArray[numpy.float32]:
    """Draw a mask with its outline over an image, and ignored pixels in grey.

    Args:
        image: uint8 (3, H, W).
        mask: uint8 (H, W) of 0, 1 and 255.
        colour: red, green, blue, 0 to 255.

    Returns:
        (H, W, 3), 0 to 255.
    """
    pixels = image.permute(1, 2, 0).numpy().astype(numpy.float32)
    plane = mask.numpy()
    inside = plane == 1
    pixels[inside] = 0.45 * pixels[inside] + 0.55 * numpy.asarray(colour, numpy.float32)
    pixels[plane == IGNORE] = 160
    padded = numpy.pad(inside, 1, mode="edge")
    neighbours = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    pixels[inside & ~neighbours] = colour  # the outline
    return pixels
