"""Similarity of query and support features: to a prototype, and of all pairs of positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cosine_map(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return the cosine of each position's features and a prototype (SG-One, equation 4).

    Args:
        features: feature maps, (B, C, h, w).
        prototypes: prototypes of any length, (B, C); the cosine with a prototype of zeros is 0.

    Returns:
        (B, h, w) in [-1, 1].
    """
    maps = functional.normalize(features, dim=1)
    directions = functional.normalize(prototypes, dim=1).to(maps.dtype)
    return torch.einsum("bchw,bc->bhw", maps, directions)


def correlation(query: Tensor, support: Tensor, *, normalise: bool = True) -> Tensor:
    """Return the 4D correlation: similarities of all query and support positions.

    Args:
        query: query features, (B, C, hq, wq).
        support: support features, (B, C, hs, ws).
        normalise: cosines (HSNet, equation 1, without its ReLU) instead of plain inner products.

    Returns:
        (B, hq, wq, hs, ws). Flattened to (B, hq, wq, hs·ws) it is contiguous.
    """
    if normalise:
        query, support = functional.normalize(query, dim=1), functional.normalize(support, dim=1)
    products = query.flatten(2).transpose(1, 2) @ support.flatten(2)  # (B, hq·wq, hs·ws)
    return products.view(len(query), *query.shape[-2:], *support.shape[-2:])
