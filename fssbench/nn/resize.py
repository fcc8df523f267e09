"""Resizing of feature maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (N, C, h, w) bilinearly; centres of the corner pixels are aligned."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)
