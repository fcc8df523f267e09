"""Prior maps: how much a query pixel resembles any foreground pixel of the support."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from fssbench_hdmnet.maps import resize_nearest


def foreground_vectors(features: Tensor, foreground: Tensor) -> Tensor:
    """Features of the support's foreground, of length 1; zero elsewhere.

    Args:
        features: high-level features, (B, K, C, h, w).
        foreground: float (B, K, H, W) of 0 and 1.

    Returns:
        (B, K, h·w, C).
    """
    small = resize_nearest(foreground, features.shape[-2:]).flatten(2).unsqueeze(2)
    vectors = functional.normalize(features.flatten(3), dim=2) * small.to(features.dtype)
    return vectors.transpose(2, 3)


def prior_map(features: Tensor, vectors: Tensor) -> Tensor:
    """The largest cosine with the support of each shot, averaged over shots (section 3.3).

    PFENet (Tian et al., TPAMI 2020, equations 3 to 5) stretches the map to [0, 1]; the authors'
    code does not.

    Args:
        features: of the queries, (B, C, h, w).
        vectors: of `foreground_vectors`, (B, K, S, C).

    Returns:
        (B, 1, h, w).
    """
    directions = functional.normalize(features.flatten(2), dim=1)  # (B, C, h·w)
    cosines = vectors @ directions.unsqueeze(1)  # (B, K, S, h·w)
    return cosines.amax(2).mean(1).view(len(features), 1, *features.shape[-2:])
