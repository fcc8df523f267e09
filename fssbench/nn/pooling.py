"""Averages of features over masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def masks_at(masks: Tensor, value: int, height: int, width: int) -> Tensor:
    """Return the share of each feature position's pixels that have a value.

    Area averaging preserves small objects: a hundredth of a cell has a weight of a hundredth.

    Args:
        masks: masks, uint8 (N, H, W).
        value: mask value: 0 (background), 1 (foreground) or 255 (ignored).
        height: height of the feature map.
        width: width of the feature map.

    Returns:
        float32 (N, height, width) in [0, 1].
    """
    share = (masks == value).float().unsqueeze(1)
    return functional.adaptive_avg_pool2d(share, (height, width)).squeeze(1)


def masked_average(features: Tensor, weights: Tensor) -> Tensor:
    """Return masked averages of features (SG-One, equation 3; PANet, equation 1).

    Args:
        features: feature maps, (N, C, h, w).
        weights: weights of positions, (N, h, w), not negative.

    Returns:
        (N, C) weighted means; zero where all weights are zero.
    """
    weights = weights.to(features.dtype)
    total = weights.sum((1, 2)).clamp(min=1e-6)
    return (features * weights.unsqueeze(1)).sum((2, 3)) / total.unsqueeze(1)
