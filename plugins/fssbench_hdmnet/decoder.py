"""Coarse-to-fine decoder and classification head (equation 1, figure 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench_hdmnet.maps import resize_areas


class Bottleneck(nn.Sequential):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 with batch norm between them and no activation.

    With frozen batch norm they are one linear map. In training they are merged before they are
    applied, which takes a tenth of the operations. In evaluation the layers are applied one after
    the other, so that the operations counted in records are those of the published network.

    Args:
        channels: C, input channels.
        out: output channels.
        tail: modules applied after the last convolution.
    """

    def __init__(self, channels: int, out: int, *tail: nn.Module) -> None:
        wide = 4 * channels
        super().__init__(
            nn.Conv2d(channels, wide, 1),
            nn.BatchNorm2d(wide),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.BatchNorm2d(wide),
            nn.Conv2d(wide, out, 1),
            *tail,
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, out, h, w)."""
        layers = list(self)
        if self.training and not (self[1].training or self[3].training):
            kernel, bias = self._merged()
            # The bias of the first layer is not added to the zero padding of the second. It is the
            # weight of a channel of ones, which has the same padding.
            ones = maps.new_ones(len(maps), 1, *maps.shape[-2:])
            maps = functional.conv2d(torch.cat([maps, ones], 1), kernel, bias, padding=1)
            layers = layers[5:]
        for layer in layers:
            maps = layer(maps)
        return maps

    def _merged(self) -> tuple[Tensor, Tensor]:
        """Return the kernel (out, C + 1, 3, 3) and the bias (out,) of the merged layers."""
        layers: list[Any] = list(self)
        expand, norm1, middle, norm2, reduce = layers[:5]
        (scale1, shift1), (scale2, shift2) = _affine(norm1), _affine(norm2)
        weight, bias = expand.weight[:, :, 0, 0] * scale1[:, None], expand.bias * scale1 + shift1
        first = torch.cat([weight, bias[:, None]], 1)  # (wide, C + 1)
        last = reduce.weight[:, :, 0, 0]  # (out, wide)
        half = (last * scale2) @ middle.weight.flatten(1)  # (out, wide · 9)
        kernel = half.view(len(last), -1, 9).transpose(1, 2) @ first  # (out, 9, C + 1)
        bias = last @ (middle.bias * scale2 + shift2) + reduce.bias
        return kernel.transpose(1, 2).unflatten(2, (3, 3)).contiguous(), bias


class Decoder(nn.Module):
    """Fusion of the matching results from coarse to fine, and classification of the finest.

    Args:
        channels: C, channels of the matching results.
        stages: number of matching results.
    """

    def __init__(self, channels: int, *, stages: int) -> None:
        super().__init__()
        self.parse = nn.ModuleList(
            Bottleneck(channels, channels, nn.BatchNorm2d(channels), nn.ReLU())
            for _ in range(stages)
        )
        self.classify = Bottleneck(channels, 2)

    def forward(self, matched: Sequence[Tensor]) -> Tensor:
        """Return the logits of background and foreground.

        Args:
            matched: matching results of each stage, fine to coarse, (B, C, h, w).

        Returns:
            (B, 2, h, w) at the finest stage's size.
        """
        pairs = zip(reversed(matched), reversed(self.parse), strict=True)
        maps, parse = next(pairs)
        joined = parse(maps)
        for maps, parse in pairs:
            joined = resize_areas(joined, maps.shape[-2:])
            joined = joined + parse(maps + joined)
        return self.classify(joined)


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of a frozen batch norm."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
