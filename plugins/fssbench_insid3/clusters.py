"""Clusters of an image's features."""

from __future__ import annotations

import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor


def clusters(features: Tensor, tau: float) -> Tensor:
    """Return the clusters of average linkage on cosine distances, on the CPU.

    Args:
        features: unit features, (C, h, w), of two positions or more.
        tau: average cosine above which two clusters are merged.

    Returns:
        int64 (h, w), numbers of clusters from 0.
    """
    flat = features.flatten(1)
    distances = 1 - (flat.T @ flat).clamp(-1, 1)
    tree = linkage(squareform(distances.cpu().numpy(), checks=False), "average")
    numbers = torch.from_numpy(fcluster(tree, 1 - tau, "distance")).long() - 1
    return numbers.view(features.shape[-2:]).to(features.device)
