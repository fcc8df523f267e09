"""Maps and tokens: from one to the other, from one size to another, and their products."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def to_map(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """(N, h·w, C) to (N, C, h, w)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


def to_tokens(maps: Tensor) -> Tensor:
    """(N, C, h, w) to (N, h·w, C)."""
    return maps.flatten(2).transpose(1, 2)


def pointwise(tokens: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 1 x 1 convolution of tokens (N, h·w, C); on a CPU this is twice as fast as of maps."""
    return functional.linear(tokens, convolution.weight.flatten(1), convolution.bias)


def split(tokens: Tensor, heads: int) -> Tensor:
    """(N, L, C) to (N, heads, L, C / heads)."""
    return tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2)


def join(tokens: Tensor) -> Tensor:
    """(N, heads, L, d) to (N, L, heads · d)."""
    return tokens.transpose(1, 2).flatten(2)


def sides(maps: Tensor) -> tuple[int, int]:
    """Height and width of (…, h, w)."""
    height, width = maps.shape[-2:]
    return height, width


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, h, w) to another size: bilinear, the centres of the corner pixels stay."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)


def resize_areas(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, h, w) to another size: bilinear, the borders of the corner pixels stay."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def resize_nearest(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, H, W) to another size: each position is the pixel at its upper left corner."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="nearest")
