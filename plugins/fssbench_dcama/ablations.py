"""What the ablations do to support and aggregated masks."""

from __future__ import annotations

import numpy as np
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
    planes = masks.detach().float().cpu().numpy()
    thresholds = [otsu_threshold(plane) for plane in planes]
    limits = torch.tensor(thresholds, device=masks.device).view(-1, 1, 1)
    return torch.where(masks > limits, 1.0, -1.0)


def otsu_threshold(plane: np.ndarray) -> float:
    """Return the threshold with the largest variance between the classes (Otsu, 1979).

    As in scikit-image, candidates are the centres of a histogram's 256 bins, in float32.

    Args:
        plane: float32 (h, w), finite.

    Returns:
        The lowest of the best centres, or the value of a constant plane.
    """
    if plane.min() == plane.max():
        return float(plane.min())
    sizes, edges = np.histogram(plane, 256)
    counts, centres = sizes.astype(np.float32), (edges[:-1] + edges[1:]) / 2
    sums = counts * centres
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    mean_below, mean_above = sums.cumsum() / below, sums[::-1].cumsum()[::-1] / above
    distances = mean_below[:-1] - mean_above[1:]
    return float(centres[np.argmax(below[:-1] * above[1:] * distances**2)])


def _spread(positions: Tensor, count: int) -> Tensor:
    ranks = torch.arange(count, device=positions.device) * len(positions) // max(count, 1)
    return positions[ranks]
