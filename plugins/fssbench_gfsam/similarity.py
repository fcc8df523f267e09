"""Similarity of the query's cells to masked reference cells.

A cell is a position of the feature map; the T cells of an image are in row-major order.
"""

from __future__ import annotations

import attrs
from torch import Tensor
from torch.nn import functional

from fssbench.nn import resize

_EPSILON = 1e-7  # as in the authors' code, added to the mean weight of reference cells
_SQUARE = 14  # side of the square that stands for empty reference masks, in the authors' code


@attrs.frozen(kw_only=True, eq=False)
class Similarity:
    """Similarity maps of the query, float (h, w).

    Attributes:
        positive_mean: mean similarity to the references' foreground cells.
        positive_max: largest similarity to a foreground cell, multiplied by the cell's weight.
        negative_mean: mean similarity to background cells.
    """

    positive_mean: Tensor
    positive_max: Tensor
    negative_mean: Tensor


def units(features: Tensor) -> Tensor:
    """Return the cells' features as unit vectors, (T, C).

    As in the authors' code, each channel is first divided by its length over the image's cells.

    Args:
        features: features of an image, (C, h, w).
    """
    cells = functional.normalize(features.float().flatten(1), dim=1)
    return functional.normalize(cells, dim=0).T


def similarity(query: Tensor, references: Tensor, masks: Tensor) -> Similarity:
    """Return the similarity of the query to foreground and background of K references.

    The maps of K references are averaged.

    Args:
        query: unit vectors of the cells of a square feature map, (T, C).
        references: unit vectors of the references' cells, (K, T, C).
        masks: foreground of the references at any size, bool (K, H, W). If all of them are empty,
            a square in the middle is foreground.
    """
    side = round(len(query) ** 0.5)
    foreground = masks.float()
    if not masks.any():
        top, left = (length // 2 - _SQUARE // 2 for length in masks.shape[1:])
        foreground[:, max(top, 0) : top + _SQUARE, max(left, 0) : left + _SQUARE] = 1
    weights = resize(foreground[:, None], (side, side)).flatten(1)
    cosines = references @ query.T  # (K, T of the reference, T of the query)
    return Similarity(
        positive_mean=mean_similarity(cosines, weights).mean(0).view(side, side),
        positive_max=(cosines * weights[:, :, None]).amax(1).mean(0).view(side, side),
        negative_mean=mean_similarity(cosines, 1 - weights).mean(0).view(side, side),
    )


def mean_similarity(cosines: Tensor, weights: Tensor) -> Tensor:
    """Return the mean similarity to N weighted sets of reference cells, (N, T of the query).

    Args:
        cosines: cosines of reference and query cells, (N, T, T of the query), or (T, T of the
            query) for the same references in all sets.
        weights: weights of the reference cells, (N, T); the similarity to a set of weight 0 is 0.
    """
    sums = (weights[:, None] @ cosines)[:, 0] / weights.shape[1]
    return sums / (weights.mean(1, keepdim=True) + _EPSILON)


def unit_range(values: Tensor) -> Tensor:
    """Return values shifted and scaled to [0, 1)."""
    low = values.min()
    return (values - low) / (values.max() - low + 1e-6)
