"""Scores of clusters, and the mask at the size of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def cluster_scores(
    labels: Tensor,
    candidates: Tensor,
    similarity: Tensor,
    prototype: Tensor,
    features: Tensor,
    debiased: Tensor,
) -> Tensor:
    """Return the score of each of n clusters.

    It is the product of the cluster's mean similarity to the supports, its similarity to the seed
    and the share of its positions that are candidates. The seed is the cluster with candidates
    that is nearest to the prototype; its own share counts as 1.

    Args:
        labels: int64 (h, w), numbers of clusters from 0 to n - 1.
        candidates: bool (h, w), true somewhere.
        similarity: similarity to the prototype, (h, w).
        prototype: prototype of the supports, of unit length, (C,).
        features: unit features, (C, h, w).
        debiased: the same without the positional subspace, of unit length.

    Returns:
        (n,).
    """
    members = functional.one_hot(labels.flatten()).T.float()  # (n, h w)
    sizes = members.sum(1)
    share = members @ candidates.flatten().float() / sizes
    seed = (_directions(members, debiased) @ prototype).masked_fill(share == 0, -torch.inf).argmax()
    directions = _directions(members, features)
    share[seed] = 1
    return members @ similarity.flatten() / sizes * (directions @ directions[seed]) * share


def _directions(members: Tensor, features: Tensor) -> Tensor:
    """Return the mean features of clusters, of unit length, (n, C)."""
    return functional.normalize(members @ features.flatten(1).T, dim=1)


def mask_at_size(mask: Tensor, side: int, size: Sequence[int]) -> Tensor:
    """Return a mask at the size of an image, by way of the encoder's input side.

    Args:
        mask: bool (h, w).
        side: encoder input side in pixels.
        size: height H and width W of the image.

    Returns:
        Bool (H, W).
    """
    for each in ((side, side), tuple(size)):
        planes = mask[None, None].float()
        resized = functional.interpolate(planes, each, mode="bilinear", align_corners=False)
        mask = resized[0, 0] > 0.5
    return mask
