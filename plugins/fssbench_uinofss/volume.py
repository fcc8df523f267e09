"""Correlation volumes with contrastive enhancement (section IV-D2, equations 4 to 8)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fssbench.nn import correlation


def contrasted_volume(
    query: Sequence[Tensor], support: Sequence[Tensor], masks: Tensor, *, contrast: bool = True
) -> Tensor:
    """Return cosines with the support's foreground minus those with its background, by layer.

    A mask of 0 or 1 has a cosine with either the foreground or the background feature of a position
    and 0 with the other (equations 4 to 6), so one correlation is enough: V_fg = m cos,
    V_bg = (1 - m) cos, V = (2 m - 1) cos. A share m between 0 and 1 weights the two cosines.

    Args:
        query: query features of l layers, the last one last, each (N, C, hq, wq).
        support: support features of the same layers, each (N, C, hs, ws).
        masks: foreground of each support position in [0, 1], float (N, hs, ws).
        contrast: False for V = V_fg, without the enhancement.

    Returns:
        V, (N, l, hq, wq, hs, ws), in [-1, 1].
    """
    weights = 2 * masks - 1 if contrast else masks
    stacked = torch.stack([correlation(q, s) for q, s in zip(query, support, strict=True)], 1)
    return stacked * weights[:, None, None, None].to(stacked.dtype)


def binary(shares: Tensor) -> Tensor:
    """Return the positions (N, h, w) of which at least half is foreground, as 0 and 1.

    Without any, the positions with the largest share are returned: an object that is smaller than
    half a position is not lost.
    """
    threshold = shares.amax((1, 2), keepdim=True).clamp(min=1e-6, max=0.5)
    return (shares >= threshold).to(shares.dtype)


def at_places(features: Tensor, places: int | None) -> Tensor:
    """Average features (N, C, h, w) to (N, C, places, places); None returns them unchanged."""
    if places is None or features.shape[-2:] == (places, places):
        return features
    return functional.adaptive_avg_pool2d(features, places)
