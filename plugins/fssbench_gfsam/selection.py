"""Selection of the masks that become the prediction (the overshooting gating)."""

from __future__ import annotations

import torch
from torch import Tensor

from fssbench_gfsam.growth import at_cells
from fssbench_gfsam.similarity import mean_similarity

USED, RESERVE, DROPPED = 1, 2, 0
"""Selection of a point: both conditions of `select` hold, one of them, none."""


def select(
    query: Tensor, masks: Tensor, labels: Tensor, foreground: Tensor, cells: Tensor
) -> Tensor:
    """Return the selection of each point, int64 (N,).

    The conditions are that the mask is foreground and that the point is consistent: its features
    are more similar to its own component than to others. The similarity to a component is divided
    by the distance to its nearest point, in cells. If most points of a component are not
    consistent, none is.

    Args:
        query: unit vectors of the query's cells, (T, C).
        masks: masks of the points, bool (N, H, W).
        labels: components of the points, int64 (N,).
        foreground: points with foreground masks, bool (N,).
        cells: points as (x, y) in cells, int64 (N, 2).
    """
    members = labels == torch.arange(int(labels.max()) + 1, device=labels.device)[:, None]
    unions = torch.stack([masks[each].any(0) for each in members])
    maps = component_similarity(query, unions)
    similarities = maps[:, cells[:, 1], cells[:, 0]]  # (components, N)
    steps = (cells[:, None] - cells).float().norm(dim=2)
    nearest = torch.stack([steps[:, each].amin(1) for each in members])
    nearest[nearest == 0] = 1
    consistent = (similarities / nearest).argmax(0) == labels
    for each in members:
        if consistent[each].float().mean() < 0.5:
            consistent[each] = False
    return torch.where(consistent & foreground, USED, (consistent | foreground) * RESERVE)


def component_similarity(query: Tensor, unions: Tensor) -> Tensor:
    """Return the mean similarity of the query's cells to those in each component, (n, h, w).

    Args:
        query: unit vectors of the cells of a square feature map, (T, C).
        unions: union of the masks of each component, bool (n, H, W).
    """
    side = round(len(query) ** 0.5)
    weights = at_cells(unions, torch.Size((side, side))).flatten(1)
    return mean_similarity(query @ query.T, weights).view(-1, side, side)


def merge(masks: Tensor, selection: Tensor, scores: Tensor) -> Tensor:
    """Return the prediction, bool (H, W): the union of the used masks.

    If that is empty, the reserve mask with the largest score is the prediction. As in the authors'
    code, other masks take part with the score 0.

    Args:
        masks: masks of the points, bool (N, H, W).
        selection: result of `select`, (N,).
        scores: scores of `grow`, (N,).
    """
    union = masks[selection == USED].any(0)
    if union.any():
        return union
    return masks[(scores * (selection == RESERVE)).argmax()]
