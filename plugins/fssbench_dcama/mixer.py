"""The second half of the decoder: masks and skip connections to logits (figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench.nn import resize
from fssbench_dcama.cascade import MIDDLE, NARROW, WIDE

_FINEST = 4  # the mixer starts at a quarter of the input


class Mixer(nn.ModuleList):
    """Mask-feature mixer: three blocks of two convolutions, size / 4 to size / 2 to size.

    Args:
        skips: channels of the skip connections' layers, by name, coarse to fine.
        sides: 2 for skip connections of query and support, 1 for the query's alone.
        size: side of the encoder's input, in pixels.
    """

    def __init__(self, skips: Mapping[str, int], *, sides: int, size: int) -> None:
        skipped = sides * sum(skips.values())
        super().__init__(
            [
                _block(WIDE + skipped, WIDE, MIDDLE, last_relu=True),
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
        channels = []
        for count in self.skips.values():  # coarse to fine, query before support
            channels.append(slice(start + side * count, start + (side + 1) * count))
            start += self.sides * count
        size = (self.side, self.side)
        return self._part(torch.cat([resize(maps[name], size) for name in self.skips], 1), channels)

    def forward(self, masks: Tensor, *skipped: Tensor | None) -> Tensor:
        """Return the logits of background and foreground, (B, 2, size, size).

        The first convolution is a sum over masks, query and support features, so that each summand
        is computed once for each new input.

        Args:
            masks: result of the cascade, (B, 128, h, w).
            skipped: results of `skipped`; None without skip connections.
        """
        side = self.side
        blocks: Any = self
        (first, *layers), *others = blocks
        masks = resize(masks, (side, side))
        mixed = self._part(masks, [slice(masks.shape[1])])
        mixed = mixed + first.bias.to(mixed.dtype).view(-1, 1, 1)
        for each in skipped:
            if each is not None:
                mixed = mixed + each.to(mixed.dtype)
        for layer in layers:
            mixed = layer(mixed)
        for block in others:
            side *= 2
            mixed = block(resize(mixed, (side, side)))
        return mixed

    def _part(self, maps: Tensor, channels: Sequence[slice]) -> Tensor:
        """Apply the first convolution to some of its input channels, without the bias.

        Args:
            maps: maps of C channels, (B, C, h, w).
            channels: ranges of these channels among all input channels.

        Returns:
            (B, 128, h, w).
        """
        blocks: Any = self
        first = blocks[0][0]
        weight = torch.cat([first.weight[:, some] for some in channels], 1)
        return functional.conv2d(maps, weight, padding=first.padding)


def _block(before: int, middle: int, after: int, *, last_relu: bool) -> nn.Sequential:
    """Build two convolutions with ReLUs; the last one has none if its output is logits."""
    steps = [
        nn.Conv2d(before, middle, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, after, 3, padding=1),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*steps if last_relu else steps[:-1])
