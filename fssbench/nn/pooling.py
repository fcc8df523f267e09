"""Averages of features over masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def masks_at(masks: Tensor, value: int, height: int, width: int) -> Tensor:
    """Share of each feature position's pixels that have a value.

    Area averaging loses no object, however small: a hundredth of a cell still weighs a hundredth.

    Args:
        masks: uint8 (N, H, W).
        value: 0 (background), 1 (foreground) or 255 (ignored).
        height: of the feature map.
        width: of the feature map.

    Returns:
        float32 (N, height, width) in [0, 1].
    """
    share = (masks == value).float().unsqueeze(1)
    return functional.adaptive_avg_pool2d(share, (height, width)).squeeze(1)


def masked_average(features: Tensor, weights: Tensor) -> Tensor:
    """Masked average pooling (SG-One, equation 3; PANet, equation 1).

    Args:
        features: (N, C, h, w).
        weights: (N, h, w), not negative.

    Returns:
        (N, C) weighted means; zero where all weights are zero.
    """
    weights = weights.to(features.dtype)
    total = weights.sum((1, 2)).clamp(min=1e-6)
    return (features * weights.unsqueeze(1)).sum((2, 3)) / total.unsqueeze(1)
