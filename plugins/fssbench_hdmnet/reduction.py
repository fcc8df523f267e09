"""Input of the pyramid from backbone features: fuse, reduce, add prototype and priors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench.nn import resize
from fssbench_hdmnet.maps import pointwise, sides, to_map, to_tokens

REDUCED = 256
"""Channels of the fused features."""

_PRIOR_SCALE = 10.0  # the authors' code scales priors here, and nowhere else


class Reduction(nn.Module):
    """Two backbone layers, side by side, to fewer channels.

    Args:
        channels: channels of both layers together.
        dropout: probability that a channel is dropped.
    """

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, REDUCED, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, 256, h, w)."""
        reduced = functional.relu(pointwise(to_tokens(maps), self.project))
        dropped: Tensor = self.dropout(to_map(reduced, maps.shape[-2:]))
        return dropped


class Merge(nn.Module):
    """Reduced features, prototype and priors to the channels of the pyramid.

    It is a 1 x 1 convolution of all of them side by side, and a ReLU; the prototype, the same
    everywhere, is projected once.

    Args:
        channels: output channels.
        priors: number of priors.
    """

    def __init__(self, channels: int, *, priors: int = 0) -> None:
        super().__init__()
        self.project = nn.Conv2d(2 * REDUCED + priors, channels, 1, bias=False)

    def forward(self, features: Tensor, prototype: Tensor, priors: Tensor | None = None) -> Tensor:
        """Merge.

        Args:
            features: (N, 256, h, w).
            prototype: (N, 256).
            priors: (N, P, h, w), if there are any.

        Returns:
            (N, C, h, w).
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
            prototype: (N, 256).
            priors: (N, P, h, w), if there are any.
            size: h, w.
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
        features: (N, C, h, w).
        foreground: float (N, H, W) of 0 and 1; resized bilinearly.

    Returns:
        (N, C).
    """
    weights = resize(foreground.unsqueeze(1), features.shape[-2:]).to(features.dtype)
    total = torch.einsum("nchw,nhw->nc", features, weights[:, 0])
    return total / (weights.sum((2, 3)) + 0.0005)
