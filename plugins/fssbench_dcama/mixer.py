"""The second half of the decoder: masks and skip connections to logits (figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench.nn import resize
from fssbench_dcama.cascade import MIDDLE, NARROW, WIDE

_FINEST = 4  # the mixer starts at a quarter of the input


class Mixer(nn.ModuleList):
    """Mask-feature mixer: three blocks of two convolutions, size / 4 to size / 2 to size.

    Args:
        skips: channels of the layers that are given to it, by name, coarse to fine.
        sides: 2 where these are features of query and support, 1 where they are the query's alone.
        size: side of the encoder's input, in pixels.
    """

    def __init__(self, skips: Mapping[str, int], *, sides: int, size: int) -> None:
        skipped = sides * sum(skips.values())
        super().__init__(
            [
                FirstMixerBlock(*_block(WIDE + skipped, WIDE, MIDDLE, last_relu=True)),
                _block(MIDDLE, MIDDLE, NARROW, last_relu=True),
                _block(NARROW, NARROW, 2, last_relu=False),
            ]
        )
        self.skips = skips
        self.sides = sides
        self.side = size // _FINEST

    def skipped(self, maps: Mapping[str, Tensor], *, side: int) -> Tensor:
        """Apply the first convolution to one side's skip connections, without its bias.

        Args:
            maps: features by layer, (B, C, h, w).
            side: 0 for the query, 1 for the support.

        Returns:
            (B, 128, size / 4, size / 4).
        """
        start = WIDE
        channels: list[int] = []
        for count in self.skips.values():  # coarse to fine, query before support
            channels += range(start + side * count, start + (side + 1) * count)
            start += self.sides * count
        first = self[0]
        assert isinstance(first, FirstMixerBlock)
        size = (self.side, self.side)
        return first.part(torch.cat([resize(maps[name], size) for name in self.skips], 1), channels)

    def forward(self, masks: Tensor, *skipped: Tensor | None) -> Tensor:
        """Mix masks with skip connections.

        Args:
            masks: output of the cascade, (B, 128, h, w).
            skipped: results of `skipped`; None without skip connections.

        Returns:
            (B, 2, size, size), background and foreground.
        """
        side = self.side
        first, *others = self
        mixed: Tensor = first(resize(masks, (side, side)), *skipped)
        for block in others:
            side *= 2
            mixed = block(resize(mixed, (side, side)))
        return mixed


class FirstMixerBlock(nn.Sequential):
    """A mixer block whose first convolution is a sum over masks, query and support features.

    Each summand is computed once for each new input.
    """

    def part(self, maps: Tensor, channels: Sequence[int]) -> Tensor:
        """Apply the first convolution to some of its input channels, without the bias.

        Args:
            maps: (B, C, h, w).
            channels: indices of these C channels among all input channels.

        Returns:
            (B, 128, h, w).
        """
        weight, padding = self._first.weight, self._first.padding
        return functional.conv2d(maps, weight[:, list(channels)], padding=padding)

    def forward(self, masks: Tensor, *parts: Tensor | None) -> Tensor:
        """Apply the whole block.

        Args:
            masks: (B, 128, h, w), the first of the input channels.
            parts: results of `part`; None for absent inputs.

        Returns:
            (B, 64, h, w).
        """
        mixed = self.part(masks, range(masks.shape[1]))
        assert self._first.bias is not None
        mixed = mixed + self._first.bias.to(mixed.dtype).view(-1, 1, 1)
        for each in parts:
            if each is not None:
                mixed = mixed + each.to(mixed.dtype)
        for layer in list(self)[1:]:
            mixed = layer(mixed)
        return mixed

    @property
    def _first(self) -> nn.Conv2d:
        first = self[0]
        assert isinstance(first, nn.Conv2d)
        return first


def _block(before: int, middle: int, after: int, *, last_relu: bool) -> nn.Sequential:
    """Build two convolutions with ReLUs; the last one has none if its output is logits."""
    steps = [
        nn.Conv2d(before, middle, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, after, 3, padding=1),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*steps if last_relu else steps[:-1])
