"""Clusters of points and masks (the Point-Mask Clustering module).

The graph's nodes are the N points, each with SAM's mask of it. An edge leads from i to j if mask i
covers point j.
"""

from __future__ import annotations

import torch
from torch import Tensor


def coverage(masks: Tensor, pixels: Tensor) -> Tensor:
    """Return the edges of the graph, bool (N, N).

    Args:
        masks: masks of the points, bool (N, H, W).
        pixels: points as (x, y), int64 (N, 2).
    """
    return masks[:, pixels[:, 1], pixels[:, 0]]


def components(edges: Tensor) -> Tensor:
    """Return the nodes' weakly connected components, int64 (N,).

    They are numbered from 0 in the order of their first nodes.

    Args:
        edges: edges of a directed graph, bool (N, N).
    """
    count = len(edges)
    connected = edges | edges.T | torch.eye(count, dtype=torch.bool, device=edges.device)
    for _ in range(count.bit_length()):  # each step doubles the length of the paths
        connected = (connected.float() @ connected.float()) > 0
    first = connected.int().argmax(1)
    return first.unique(return_inverse=True)[1]
