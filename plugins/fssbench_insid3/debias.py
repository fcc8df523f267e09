"""The positional subspace of an encoder, and features without it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def positional_basis(features: Tensor, components: int) -> Tensor:
    """Return an orthonormal basis of the features' main directions of change over positions.

    Args:
        features: unit features (C, h, w) of an image without content, so that they differ by
            position alone.
        components: number of directions.

    Returns:
        (C, components).
    """
    flat = features.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    return torch.linalg.svd(centred, full_matrices=False).U[:, :components].contiguous()


def debias(features: Tensor, basis: Tensor) -> Tensor:
    """Return unit features without their projection on a subspace.

    Args:
        features: unit features (C, h, w); they are not centred.
        basis: orthonormal basis of the subspace, (C, components).
    """
    flat = features.flatten(1)
    rest = flat - basis @ (basis.T @ flat)
    return functional.normalize(rest, dim=0).view_as(features)
