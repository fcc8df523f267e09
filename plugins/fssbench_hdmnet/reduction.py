"""Fusion of backbone features, prototype and priors to the input of the pyramid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench.nn import resize
from fssbench_hdmnet.maps import pointwise, sides, to_map, to_tokens

REDUCED = 256
"""Channels of the fused features."""

_PRIOR_SCALE = 10.0  # from the authors' code, which scales the priors in this input only


class Reduction(nn.Module):
    """Projection of two concatenated backbone layers to 256 channels.

    Args:
        channels: sum of the channels of both layers.
        dropout: probability that a channel is dropped.
    """

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, REDUCED, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, 256, h, w)."""
        reduced = functional.relu(pointwise(to_tokens(maps), self.project))
        return self.dropout(to_map(reduced, maps.shape[-2:]))


class Merge(nn.Module):
    """Projection of reduced features, prototype and priors to the channels of the pyramid.

    It is a 1 x 1 convolution of their concatenation, and a ReLU. The prototype is the same at all
    positions and is projected once.

    Args:
        channels: output channels.
        priors: number of priors.
    """

    def __init__(self, channels: int, *, priors: int = 0) -> None:
        super().__init__()
        self.project = nn.Conv2d(2 * REDUCED + priors, channels, 1, bias=False)

    def forward(self, features: Tensor, prototype: Tensor, priors: Tensor | None = None) -> Tensor:
        """Return the input of the pyramid, (N, C, h, w).

        Args:
            features: reduced features, (N, 256, h, w).
            prototype: prototype, (N, 256).
            priors: priors, (N, P, h, w), if the module has any.
        """
        return self.join(self.of_features(features), prototype, priors, sides(features))

    def of_features(self, features: Tensor) -> Tensor:
        """Return the contribution of the features alone: (N, 256, h, w) to (N, h·w, C)."""
        return functional.linear(to_tokens(features), self.project.weight.flatten(1)[:, :REDUCED])

    def join(
        self, merged: Tensor, prototype: Tensor, priors: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Return the same as `forward`, from the result of `of_features`.

        Args:
            merged: result of `of_features`, (N, h·w, C).
            prototype: prototype, (N, 256).
            priors: priors, (N, P, h, w), if the module has any.
            size: h and w.
        """
        weight = self.project.weight.flatten(1)
        constant = functional.linear(prototype, weight[:, REDUCED : 2 * REDUCED])
        total = merged + constant[:, None].to(merged.dtype)
        if priors is not None:
            scaled = _PRIOR_SCALE * to_tokens(priors).to(merged.dtype)
            total = total + functional.linear(scaled, weight[:, 2 * REDUCED :])
        return to_map(functional.relu(total), size)


def prototypes(features: Tensor, foreground: Tensor) -> Tensor:
    """Return the mean of each support's foreground features.

    Args:
        features: features of the supports, (N, C, h, w).
        foreground: foreground, float (N, H, W) of 0 and 1; it is resized bilinearly.

    Returns:
        (N, C).
    """
    weights = resize(foreground.unsqueeze(1), features.shape[-2:]).to(features.dtype)
    total = torch.einsum("nchw,nhw->nc", features, weights[:, 0])
    return total / (weights.sum((2, 3)) + 0.0005)
