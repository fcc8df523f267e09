"""Decoupled down-sampling: a pyramid of each image by itself (section 3.2)."""

from __future__ import annotations

import attrs
from torch import Tensor, nn

from fssbench_hdmnet.attention import EPSILON, Block
from fssbench_hdmnet.maps import pointwise, sides, to_map, to_tokens

# By stage, fine to coarse: attention heads, and how many times fewer keys there are along a side.
# The last stage of the four of table 7 is not in the authors' code; it repeats the third.
_HEADS = (2, 4, 8, 8)
_REDUCTIONS = (4, 2, 1, 1)
LEAST_SIDE = max(_REDUCTIONS)
"""Smallest side of a map that the finest stage can reduce."""


@attrs.frozen(eq=False)
class Level:
    """Output of one stage of the pyramid.

    Attributes:
        tokens: (N, h·w, C).
        size: h, w.
    """

    tokens: Tensor
    size: tuple[int, int]


class PyramidStage(nn.Module):
    """Patch embedding, two self-attention blocks, layer norm.

    Args:
        channels: C of the map and of the tokens.
        number: index of the stage, 0 for the finest, which keeps the map's size; others halve it.
        dropout: rate.
    """

    def __init__(self, channels: int, *, number: int, dropout: float) -> None:
        super().__init__()
        self.embed = (
            nn.Conv2d(channels, channels, 3, stride=2, padding=1)
            if number
            else nn.Conv2d(channels, channels, 1)
        )
        self.embed_norm = nn.LayerNorm(channels, eps=EPSILON)
        self.blocks = nn.ModuleList(
            Block(
                channels,
                heads=_HEADS[number],
                reduction=_REDUCTIONS[number],
                dropout=dropout,
            )
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(channels, eps=EPSILON)

    def forward(self, maps: Tensor) -> Level:
        """Map (N, C, h, w) to tokens of the same or half the size (rounded up)."""
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
    """Stages one after the other; query and support go through the same ones, never mixed.

    Args:
        channels: C of the map and of the tokens.
        stages: number of stages.
        dropout: rate.
    """

    def __init__(self, channels: int, *, stages: int, dropout: float) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            PyramidStage(channels, number=number, dropout=dropout) for number in range(stages)
        )

    def forward(self, maps: Tensor) -> list[Level]:
        """Map (N, C, h, w) to the levels, fine to coarse."""
        levels: list[Level] = []
        for stage in self.stages:
            if levels:
                maps = to_map(levels[-1].tokens, levels[-1].size)
            levels.append(stage(maps))
        return levels
