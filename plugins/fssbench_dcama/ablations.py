"""What the ablations do to support and aggregated masks."""

from __future__ import annotations

import torch
from torch import Tensor


def background_off(features: Tensor, masks: Tensor) -> Tensor:
    """Zero out the background of support features, as HSNet does (table 3).

    Args:
        features: (B, K, C, h, w).
        masks: float (B, K, h, w) in [0, 1].
    """
    return features * masks.unsqueeze(2).to(features.dtype)


def budget(masks: Tensor, pixels: int) -> Tensor | None:
    """Choose a fixed number of support pixels of each shot (table S5, after CyCTR).

    Up to half of them are foreground (a mask value above 0.5), the rest is background, and where
    one region is too small the other one fills up. Within a region the pixels are evenly spaced in
    reading order: nothing is drawn, so an episode's result is always the same.

    Args:
        masks: float (B, K, h, w) in [0, 1].
        pixels: how many of each shot.

    Returns:
        int64 (B, K·pixels), positions in the flattened (K, h, w); None where there are no more
        pixels than that.
    """
    batch, shots, height, width = masks.shape
    if height * width <= pixels:
        return None
    chosen = []
    for index, mask in enumerate(masks.flatten(0, 1).flatten(1)):
        foreground, background = (mask > 0.5).nonzero()[:, 0], (mask <= 0.5).nonzero()[:, 0]
        share = max(min(len(foreground), pixels // 2), pixels - len(background))
        picked = torch.cat([_spread(foreground, share), _spread(background, pixels - share)])
        chosen.append(picked + index % shots * height * width)
    return torch.stack(chosen).view(batch, shots * pixels)


def otsu(masks: Tensor) -> Tensor:
    """Binarise each map at the threshold that separates its values best (Otsu, 1979).

    Args:
        masks: float (B, h, w).

    Returns:
        float (B, h, w), 1 for foreground and -1 for background.
    """
    from skimage.filters import threshold_otsu  # takes long to import

    planes = masks.detach().float().cpu().numpy()
    thresholds = [threshold_otsu(plane) for plane in planes]  # type: ignore[no-untyped-call]
    limits = torch.tensor(thresholds, device=masks.device).view(-1, 1, 1)
    return torch.where(masks > limits, 1.0, -1.0)


def _spread(positions: Tensor, count: int) -> Tensor:
    ranks = torch.arange(count, device=positions.device) * len(positions) // max(count, 1)
    return positions[ranks]
