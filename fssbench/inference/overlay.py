"""Masks painted over images."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray
from torch import Tensor

from fssbench.data.dataset import IGNORE

SUPPORT, TRUTH, PREDICTION = (255, 170, 0), (0, 200, 80), (40, 120, 255)
"""Red, green, blue."""
WAYS = ((0, 200, 80), (40, 120, 255), (235, 60, 60), (170, 80, 220), (0, 190, 200))
"""Colours of the ways of an episode; further ways repeat them."""


def painted(image: Tensor, mask: Tensor, *colours: tuple[int, int, int]) -> NDArray[numpy.float32]:
    """Draw masks with their outlines over an image, and ignored pixels in grey.

    Args:
        image: uint8 (3, H, W).
        mask: uint8 (H, W) of 0, 1 and 255, or a label map of several ways.
        colours: red, green, blue, 0 to 255, of the labels from 1.

    Returns:
        (H, W, 3), 0 to 255.
    """
    pixels = image.permute(1, 2, 0).numpy().astype(numpy.float32)
    plane = mask.numpy()
    pixels[plane == IGNORE] = 160
    for label, colour in enumerate(colours, 1):
        inside = plane == label
        pixels[inside] = 0.45 * pixels[inside] + 0.55 * numpy.asarray(colour, numpy.float32)
        padded = numpy.pad(inside, 1, mode="edge")
        neighbours = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        pixels[inside & ~neighbours] = colour  # the outline
    return pixels
