"""Choice of the foreground masks (the positive gating of the Post-Gating module)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fssbench_gfsam.similarity import Similarity


def growth_maps(similarity: Similarity) -> tuple[Tensor, Tensor]:
    """Return the positive and negative maps that masks are classified by, (h, w) each."""
    positive = similarity.positive_mean
    middle = (positive.max() + positive.min()) / 2
    return positive.square(), similarity.negative_mean * middle


def grow(
    masks: Tensor, labels: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the points with foreground masks, and scores of their components.

    In each component the masks are visited from the most to the least positive one. A mask is
    foreground if the share that it adds to the earlier foreground masks is mostly positive.

    Args:
        masks: masks of the N points, bool (N, H, W).
        labels: components of the points, int64 (N,).
        positive: positive map, (h, w).
        negative: negative map, (h, w); a cell is positive where `positive` is larger.

    Returns:
        Foreground, bool (N,), and scores, float (N,). As in the authors' code, the score of all
        points of a component is that of its mask visited last.
    """
    region = (positive > negative).float()
    foreground = torch.zeros_like(labels, dtype=torch.bool)
    scores = torch.zeros_like(labels, dtype=region.dtype)
    for component in labels.unique():
        (members,) = torch.where(labels == component)
        small = at_cells(masks[members], region.shape)
        sums = small.sum((1, 2)) + 1e-6
        means = (small * (positive - negative)).sum((1, 2)) / sums
        grown = torch.zeros_like(region)
        for index in means.argsort(descending=True, stable=True):
            added = small[index] * (1 - grown)
            score = (region * added).sum() - ((1 - region) * added).sum()
            if score > 0:
                grown += added
                foreground[members[index]] = True
        scores[members] = score
    return foreground, scores


def at_cells(masks: Tensor, size: torch.Size) -> Tensor:
    """Return masks, bool (N, H, W), at the size of the feature map, float (N, h, w)."""
    return functional.interpolate(masks.float()[:, None], size, mode="bilinear")[:, 0]
