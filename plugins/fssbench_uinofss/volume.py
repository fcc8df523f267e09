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

    The paper's mask is 0 or 1, so a position has a cosine with either the foreground or the
    background feature there, and 0 with the other (equations 4 to 6). Here a position's mask is the
    share m of its pixels that are foreground, and the two cosines are weighted with m and 1 - m,
    which for 0 and 1 is the same: V_fg = m cos, V_bg = (1 - m) cos, V = (2 m - 1) cos. This
    preserves small objects, and needs one correlation instead of two.

    Args:
        query: query features of l layers, the last one last, each (N, C, hq, wq).
        support: support features of the same layers, each (N, C, hs, ws).
        masks: share of foreground of each support position, float (N, hs, ws).
        contrast: False for V = V_fg, without the enhancement.

    Returns:
        V, (N, l, hq, wq, hs, ws), in [-1, 1].
    """
    weights = 2 * masks - 1 if contrast else masks
    stacked = torch.stack([correlation(q, s) for q, s in zip(query, support, strict=True)], 1)
    return stacked * weights[:, None, None, None].to(stacked.dtype)


def at_places(features: Tensor, places: int | None) -> Tensor:
    """Average features (N, C, h, w) to (N, C, places, places); None returns them unchanged."""
    if places is None or features.shape[-2:] == (places, places):
        return features
    return functional.adaptive_avg_pool2d(features, places)
