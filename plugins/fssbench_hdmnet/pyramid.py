"""Decoupled down-sampling: a feature pyramid of each image, query or support (section 3.2)."""

from __future__ import annotations

import attrs
from torch import Tensor, nn

from fssbench_hdmnet.attention import Block, LayerNorm
from fssbench_hdmnet.maps import pointwise, sides, to_map, to_tokens

# Attention heads and strides of the keys by stage, fine to coarse. The fourth stage of table 7 is
# not in the authors' code; its values are those of the third.
_HEADS = (2, 4, 8, 8)
_REDUCTIONS = (4, 2, 1, 1)
LEAST_SIDE = max(_REDUCTIONS)
"""Smallest side of a map that the finest stage can reduce."""


@attrs.frozen(eq=False)
class Level:
    """Output of one stage of the pyramid.

    Attributes:
        tokens: tokens, (N, h·w, C).
        size: h and w.
    """

    tokens: Tensor
    size: tuple[int, int]


class PyramidStage(nn.Module):
    """Patch embedding, two self-attention blocks, layer norm.

    Args:
        channels: C, channels of the map and of the tokens.
        number: index of the stage: 0 for the finest, at the map's size; the others halve the size.
        dropout: dropout rate.
    """

    def __init__(self, channels: int, *, number: int, dropout: float) -> None:
        super().__init__()
        kernel, stride = (3, 2) if number else (1, 1)
        self.embed = nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2)
        self.embed_norm = LayerNorm(channels)
        self.blocks = nn.ModuleList(
            Block(channels, heads=_HEADS[number], reduction=_REDUCTIONS[number], dropout=dropout)
            for _ in range(2)
        )
        self.norm = LayerNorm(channels)

    def forward(self, maps: Tensor) -> Level:
        """Map (N, C, h, w) to tokens at the same size, or at half the size (rounded up)."""
        if self.embed.stride == (1, 1):
            maps = to_map(pointwise(to_tokens(maps), self.embed), maps.shape[-2:])
        else:
            maps = self.embed(maps)
        size = sides(maps)
        tokens = self.embed_norm(to_tokens(maps))
        for block in self.blocks:
            tokens = block(tokens, size)
        return Level(self.norm(tokens), size)


class Pyramid(nn.Module):
    """Sequence of stages, shared by queries and supports, which are processed separately.

    Args:
        channels: C, channels of the map and of the tokens.
        stages: number of stages.
        dropout: dropout rate.
    """

    def __init__(self, channels: int, *, stages: int, dropout: float) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            PyramidStage(channels, number=number, dropout=dropout) for number in range(stages)
        )

    def forward(self, maps: Tensor) -> list[Level]:
        """Return the levels of a map (N, C, h, w), fine to coarse."""
        levels: list[Level] = []
        for stage in self.stages:
            if levels:
                maps = to_map(levels[-1].tokens, levels[-1].size)
            levels.append(stage(maps))
        return levels
