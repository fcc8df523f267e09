"""Similarity of query and support features: to a prototype, and of all places with all places."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cosine_map(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine of each place's features and a prototype (SG-One, equation 4).

    Args:
        features: (B, C, h, w).
        prototypes: (B, C), of any length; a prototype of zeros resembles nothing.

    Returns:
        (B, h, w) in [-1, 1].
    """
    maps = functional.normalize(features, dim=1)
    directions = functional.normalize(prototypes, dim=1).to(maps.dtype)
    return torch.einsum("bchw,bc->bhw", maps, directions)


def correlation(query: Tensor, support: Tensor, *, normalise: bool = True) -> Tensor:
    """4D correlation: how much each query place resembles each support place.

    Args:
        query: (B, C, hq, wq).
        support: (B, C, hs, ws).
        normalise: cosines (HSNet, equation 1, without its ReLU) instead of plain inner products.

    Returns:
        (B, hq, wq, hs, ws). Flattened to (B, hq, wq, hs·ws) it is contiguous.
    """
    if normalise:
        query, support = functional.normalize(query, dim=1), functional.normalize(support, dim=1)
    products = query.flatten(2).transpose(1, 2) @ support.flatten(2)  # (B, hq·wq, hs·ws)
    return products.view(len(query), *query.shape[-2:], *support.shape[-2:])
