"""Coarse-to-fine decoder and classification head (equation 1, figure 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench_hdmnet.maps import resize_areas

_EXPANSION = 4


class Bottleneck(nn.Sequential):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 with batch norm between them and no activation.

    So with frozen batch norm they are one linear map. In training it is put together first, which
    takes a tenth of the operations; an evaluation goes layer by layer, so that the operations that
    records count are those of the published network.

    Args:
        channels: that come in.
        out: that come out.
        tail: what follows.
    """

    def __init__(self, channels: int, out: int, *tail: nn.Module) -> None:
        wide = _EXPANSION * channels
        super().__init__(
            nn.Conv2d(channels, wide, 1),
            nn.BatchNorm2d(wide),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.BatchNorm2d(wide),
            nn.Conv2d(wide, out, 1),
            *tail,
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) to (B, out, h, w)."""
        if not self.training or self[1].training or self[3].training:
            for module in self:
                maps = module(maps)
            return maps
        kernel, bias = self._merged()
        # Padding is zero after the first bias: a channel of ones carries it, and is padded, too.
        ones = maps.new_ones(len(maps), 1, *maps.shape[-2:])
        maps = functional.conv2d(torch.cat([maps, ones], 1), kernel, bias, padding=1)
        for module in list(self)[5:]:
            maps = module(maps)
        return maps

    def _merged(self) -> tuple[Tensor, Tensor]:
        """Kernel (out, C + 1, 3, 3) and bias (out,) of all layers together."""
        layers: list[Any] = list(self)
        expand, norm1, middle, norm2, reduce = layers[:5]
        scale1, shift1 = _affine(norm1)
        scale2, shift2 = _affine(norm2)
        first = torch.cat(
            [
                expand.weight[:, :, 0, 0] * scale1[:, None],
                (expand.bias * scale1 + shift1)[:, None],
            ],
            1,
        )  # (wide, C + 1)
        last = reduce.weight[:, :, 0, 0]  # (out, wide)
        half = (last * scale2) @ middle.weight.flatten(1)  # (out, wide · 9)
        kernel = half.view(len(last), -1, 9).transpose(1, 2) @ first  # (out, 9, C + 1)
        bias = last @ (middle.bias * scale2 + shift2) + reduce.bias
        return kernel.transpose(1, 2).unflatten(2, (3, 3)).contiguous(), bias


class Decoder(nn.Module):
    """Hands matching results on from coarse to fine, and classifies the finest.

    Args:
        channels: C of the matching results.
        stages: how many there are.
    """

    def __init__(self, channels: int, *, stages: int) -> None:
        super().__init__()
        self.parse = nn.ModuleList(
            Bottleneck(channels, channels, nn.BatchNorm2d(channels), nn.ReLU())
            for _ in range(stages)
        )
        self.classify = Bottleneck(channels, 2)

    def forward(self, matched: Sequence[Tensor]) -> Tensor:
        """Decode.

        Args:
            matched: of each stage (B, C, h, w), fine to coarse.

        Returns:
            Logits of background and foreground, (B, 2, h, w) of the finest stage.
        """
        joined: Tensor | None = None
        for maps, parse in zip(reversed(matched), reversed(self.parse), strict=True):
            if joined is None:
                joined = parse(maps)
            else:
                joined = resize_areas(joined, maps.shape[-2:])
                joined = joined + parse(maps + joined)
        logits: Tensor = self.classify(joined)
        return logits


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of a frozen batch norm."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
