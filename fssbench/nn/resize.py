"""Bilinear resizing of feature maps and masks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (N, C, h, w) at another size: bilinear, with aligned corners.

    Args:
        maps: (N, C, h, w); returned unchanged if they have the size already.
        size: height and width of the result.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)
