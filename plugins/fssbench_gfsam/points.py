"""Point prompts of the query (the Positive-Negative Alignment module)."""

from __future__ import annotations

import torch
from torch import Tensor

from fssbench_gfsam.similarity import Similarity, unit_range


def point_prior(similarity: Similarity) -> Tensor:
    """Return the map that points are drawn from, (h, w) in [0, 1).

    It is the product of both positive maps, and 0 where the negative map exceeds it.
    """
    positive = unit_range(similarity.positive_mean * similarity.positive_max)
    return positive * (unit_range(similarity.negative_mean) <= positive)


def best_cells(prior: Tensor, limit: int) -> Tensor:
    """Return the cells with the largest prior as (x, y), sorted by x and then y, int64 (N, 2).

    N is the sum of the prior rounded down, but at least 1 unless the prior is 0 everywhere.

    Args:
        prior: result of `point_prior`, (h, w).
        limit: largest N.
    """
    total = float(prior.sum())
    count = min(int(total), limit) or int(total > 0)
    columns = prior.T.flatten().topk(count).indices.sort().values
    height = len(prior)
    return torch.stack([columns // height, columns % height], 1)


def pixels_of(cells: Tensor, grid: int, side: int) -> Tensor:
    """Return the pixels at the cells' upper left corners as (x, y), int64 (N, 2).

    Args:
        cells: cells as (x, y), int64 (N, 2).
        grid: number of cells on a side of the feature map.
        side: number of pixels on a side of the image.
    """
    return cells * side // grid
