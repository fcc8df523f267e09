"""Conversion, projection and resizing of feature maps and tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def to_map(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Reshape tokens (N, h·w, C) to maps (N, C, h, w)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


def to_tokens(maps: Tensor) -> Tensor:
    """Reshape maps (N, C, h, w) to tokens (N, h·w, C)."""
    return maps.flatten(2).transpose(1, 2)


def pointwise(tokens: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Apply a 1 x 1 convolution to tokens (N, h·w, C), twice as fast on a CPU as to maps."""
    return functional.linear(tokens, convolution.weight.flatten(1), convolution.bias)


def split(tokens: Tensor, heads: int) -> Tensor:
    """Split tokens (N, L, C) into heads (N, heads, L, C / heads)."""
    return tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2)


def join(tokens: Tensor) -> Tensor:
    """Concatenate heads (N, heads, L, d) to tokens (N, L, heads · d)."""
    return tokens.transpose(1, 2).flatten(2)


def sides(maps: Tensor) -> tuple[int, int]:
    """Return the height and width of maps (…, h, w)."""
    height, width = maps.shape[-2:]
    return height, width


def resize_areas(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (N, C, h, w) at another size: bilinear, without aligned corners."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def resize_nearest(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (N, C, H, W) at another size, by nearest neighbour (upper left corner)."""
    return functional.interpolate(maps, tuple(size), mode="nearest")
