"""Positions of the query that match the foreground of the supports, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fssbench import Geometry
from fssbench.nn import masked_average


def mask_on_grid(mask: Tensor, size: int, grid: Sequence[int]) -> Tensor:
    """Return a support mask at the resolution of the features.

    An object that is too small for the grid becomes the one cell of its centre of mass. The
    authors' code fails if nearest-neighbour resizing to the input side has removed the object;
    here its centre is then that of the original mask.

    Args:
        mask: uint8 (H, W); 255 counts as background.
        size: encoder input side in pixels.
        grid: height and width of the features.

    Returns:
        Bool (h, w), with foreground if the mask has any.
    """
    original = mask == 1
    square = Geometry(size).mask(mask) == 1
    planes = square[None, None].float()
    smooth = functional.interpolate(planes, tuple(grid), mode="bilinear", align_corners=False)
    for resized in (smooth, functional.interpolate(planes, tuple(grid), mode="nearest")):
        if (resized > 0.5).any():
            return resized[0, 0] > 0.5
    cells = torch.zeros(tuple(grid), dtype=torch.bool, device=mask.device)
    plane = square if square.any() else original
    if plane.any():
        centre = plane.nonzero().float().mean(0)  # in pixels
        row, column = (
            int(at * cells_ / pixels)
            for at, cells_, pixels in zip(centre.tolist(), grid, plane.shape, strict=True)
        )
        cells[row, column] = True
    return cells


def reference_prototype(references: Tensor, masks: Tensor) -> Tensor:
    """Return the mean of the shots' mean foreground features, of unit length.

    Args:
        references: debiased features of K supports, (K, C, h, w).
        masks: bool (K, h, w); a shot without foreground has no influence.

    Returns:
        (C,); zero if no mask has foreground.
    """
    return functional.normalize(masked_average(references, masks).mean(0), dim=0)


def votes(query: Tensor, references: Tensor, masks: Tensor) -> Tensor:
    """Return the number of supports whose most similar position is foreground.

    Args:
        query: debiased features of the query, (C, h, w).
        references: debiased features of K supports, (K, C, h, w).
        masks: bool (K, h, w).

    Returns:
        int64 (h, w).
    """
    flat = query.flatten(1)
    agreeing = [
        mask.flatten()[(flat.T @ reference.flatten(1)).argmax(1)]
        for reference, mask in zip(references, masks, strict=True)
    ]
    return torch.stack(agreeing).sum(0).view(query.shape[-2:])


def candidates(similarity: Tensor, agreeing: Tensor, shots: int) -> Tensor:
    """Return the positions that both directions of matching agree on.

    Args:
        similarity: similarity of the query to the prototype of the supports, (h, w).
        agreeing: result of `votes`.
        shots: number of supports K; half of them, rounded up, decide.

    Returns:
        Bool (h, w).
    """
    forward = similarity > 0
    if not forward.any():
        forward = similarity > similarity.flatten().quantile(0.9)
    return forward & (2 * agreeing >= shots)
