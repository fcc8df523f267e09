"""The 4D-convolutional pyramid encoder and the 2D context decoder (section 4.2).

Channels, kernels and strides are from the authors' code, and so are the names of all modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from fssbench.nn import CenterPivotConv4d, resize

NARROW, MIDDLE, WIDE = 16, 64, 128
# By stride of the scale: number of the encoder's stage; kernels and support strides of squeezing.
_STAGES = {32: 4, 16: 3, 8: 2}
_KERNELS = {32: (3, 3, 3), 16: (5, 3, 3), 8: (5, 5, 3)}
_STRIDES = {32: (2, 2, 2), 16: (4, 2, 2), 8: (4, 4, 2)}


class Pyramid(nn.Module):
    """Squeezing and mixing of the volumes of all scales, then decoding to logits.

    Args:
        channels: number of channels of each scale's volume, by stride.
    """

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        self.strides = sorted(channels, reverse=True)  # coarse to fine
        for stride in self.strides:
            widths = (channels[stride], NARROW, MIDDLE, WIDE)
            squeeze = _squeeze(widths, _KERNELS[stride], _STRIDES[stride])
            self.add_module(_squeezing(stride), squeeze)
        for coarse, fine in pairwise(self.strides):
            self.add_module(_mixing(coarse, fine), _squeeze((WIDE,) * 4, (3, 3, 3), (1, 1, 1)))
        self.decoder1 = nn.Sequential(*_convolutions(WIDE, WIDE, MIDDLE), nn.ReLU(inplace=True))
        self.decoder2 = nn.Sequential(*_convolutions(MIDDLE, MIDDLE, 2))

    def forward(self, volumes: Mapping[int, Tensor]) -> Tensor:
        """Return the logits of background and foreground, (B, 2, 2 hq, 2 wq) of the finest scale.

        Args:
            volumes: correlations by stride, (B, channels, hq, wq, hs, ws).
        """
        coarsest, *_ = self.strides
        mixed: Tensor = self.get_submodule(_squeezing(coarsest))(volumes[coarsest])
        for coarse, fine in pairwise(self.strides):
            squeezed = self.get_submodule(_squeezing(fine))(volumes[fine])
            mixed = _at_query_size(mixed, squeezed.shape[2:4]) + squeezed
            mixed = self.get_submodule(_mixing(coarse, fine))(mixed)
        maps = self.decoder1(mixed.mean((-2, -1)))  # (B, 64, hq, wq)
        height, width = maps.shape[-2:]
        logits: Tensor = self.decoder2(resize(maps, (2 * height, 2 * width)))
        return logits


def _squeezing(stride: int) -> str:
    return f"encoder_layer{_STAGES[stride]}"


def _mixing(coarse: int, fine: int) -> str:
    return f"encoder_layer{_STAGES[coarse]}to{_STAGES[fine]}"


def _squeeze(widths: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> nn.Module:
    """Build blocks of 4D convolution, group norm and ReLU.

    Args:
        widths: channels of the volume, then of each block's result.
        kernels: side of each kernel, the same along all four dimensions.
        strides: strides along the support's dimensions.
    """
    layers: list[nn.Module] = []
    for (before, after), kernel, stride in zip(pairwise(widths), kernels, strides, strict=True):
        layers += [
            CenterPivotConv4d(
                before, after, (kernel,) * 4, stride=(1, 1, stride, stride),
                padding=(kernel // 2,) * 4,
            ),
            nn.GroupNorm(4, after),
            nn.ReLU(inplace=True),
        ]  # fmt: skip
    return nn.Sequential(*layers)


def _convolutions(before: int, middle: int, after: int) -> list[nn.Module]:
    """Build two 3 x 3 convolutions with a ReLU between them."""
    first, second = nn.Conv2d(before, middle, 3, padding=1), nn.Conv2d(middle, after, 3, padding=1)
    return [first, nn.ReLU(inplace=True), second]


def _at_query_size(volume: Tensor, size: Sequence[int]) -> Tensor:
    """Resize the query dimensions bilinearly; support dimensions are unchanged."""
    batch, _, _, _, hs, ws = volume.shape
    maps = resize(volume.permute(0, 4, 5, 1, 2, 3).flatten(0, 2), size)
    return maps.unflatten(0, (batch, hs, ws)).permute(0, 3, 4, 5, 1, 2)
