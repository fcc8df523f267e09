"""Prior maps: largest similarity of a query pixel to the support's foreground pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fssbench_hdmnet.maps import resize_nearest


def foreground_vectors(features: Tensor, foreground: Tensor) -> Tensor:
    """Return the support's features, normalised to length 1, with zeros in the background.

    Args:
        features: high-level features, (B, K, C, h, w).
        foreground: foreground of the supports, float (B, K, H, W) of 0 and 1.

    Returns:
        (B, K, h·w, C).
    """
    small = resize_nearest(foreground, features.shape[-2:]).flatten(2).unsqueeze(2)
    vectors = functional.normalize(features.flatten(3), dim=2) * small.to(features.dtype)
    return vectors.transpose(2, 3)


def distinct_vectors(vectors: Tensor) -> Tensor:
    """Drop all zero vectors of one image but one, so that the maximum stays the same.

    Args:
        vectors: result of `foreground_vectors`, for one image and shot, (1, S, C).

    Returns:
        (1, S', C).
    """
    shown = vectors[0].abs().amax(1) > 0
    if not shown.all():
        shown[(~shown).nonzero()[0]] = True
    return vectors[:, shown]


def joined_vectors(prepared: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Concatenate vectors of B support sets; shorter ones repeat their last vector.

    Args:
        prepared: B lists of K tensors (1, S', C).

    Returns:
        K tensors (B, S, C), with the S of the longest.
    """
    joined = []
    for shot in zip(*prepared, strict=True):
        positions = torch.arange(max(each.shape[1] for each in shot), device=shot[0].device)
        joined.append(torch.cat([each[:, positions.clamp(max=each.shape[1] - 1)] for each in shot]))
    return joined


def directions(features: Tensor) -> Tensor:
    """Normalise features of queries to length 1: (B, C, h, w) to (B, C, h·w)."""
    return functional.normalize(features.flatten(2), dim=1)


def prior_map(query: Tensor, vectors: Sequence[Tensor]) -> Tensor:
    """Return the largest cosine with the support of each shot, averaged over shots (section 3.3).

    PFENet (Tian et al., TPAMI 2020, equations 3 to 5) stretches the map to [0, 1]; the authors'
    code does not.

    Args:
        query: result of `directions`, (B, C, h·w).
        vectors: vectors of each shot, as `foreground_vectors` gives them, (B, S, C).

    Returns:
        (B, 1, h·w).
    """
    return torch.stack([(shot @ query).amax(1) for shot in vectors]).mean(0).unsqueeze(1)
