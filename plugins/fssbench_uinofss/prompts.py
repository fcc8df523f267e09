"""Semantic-aware and dense prompts (section IV-D)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

from fssbench.nn import masked_average


class SinePrompt(nn.Module):
    """Semantic-aware visual prompt: the sine of a projected prototype (equations 2 and 3).

    The projection is a 1 x 1 and a 3 x 3 convolution, "each followed by layer normalization". The
    paper does not give their inner width. With 24 channels and a full 3 x 3 convolution to 256 they
    have 0.075 M parameters with DINOv2-B; UINO-FSS-Comp* trains 0.07 M in all (table IV). "The sine
    function" is applied to each element. For K shots the prototypes are averaged.

    Args:
        channels: C, channels of the features.
        width: width of the prompt.
        inner: channels between the two convolutions.
    """

    def __init__(self, channels: int, *, width: int = 256, inner: int = 24) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            LayerNorm2d(inner),
            nn.Conv2d(inner, width, 3, padding=1),
            LayerNorm2d(width),
        )

    def prototypes(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return projected prototypes of N images: (N, C, h, w) and (N, h, w) to (N, width)."""
        return masked_average(self.project(features), masks)

    def forward(self, prototypes: Tensor) -> Tensor:
        """Return the prompts of support sets, in [-1, 1]: (B, K, width) to (B, 1, width)."""
        return prototypes.mean(1, keepdim=True).sin()


class DensePrior(nn.Module):
    """Prior mask from a volume averaged over support positions (equation 11).

    "Upsampled and further projected ... a convolution followed by a sigmoid": the input of SAM's
    mask downscaling has four times the features' size, so the maps are doubled twice. The paper's
    branch has 0.5 M parameters, 0.18 M of them in the Mamba module, so that upsampling must have
    about 0.3 M. Three 3 x 3 convolutions with ReLUs, of 128, 128 and 64 channels, with doubling
    after the first two, and one to a single channel have 0.296 M.

    Args:
        channels: l', channels of the pooled volume.
        widths: output channels of the three convolutions.
    """

    def __init__(self, channels: int, *, widths: Sequence[int] = (128, 128, 64)) -> None:
        super().__init__()
        before = (channels, *widths)
        self.upsample = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(before))
        self.project = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return the prior mask's logits (no sigmoid): (B, channels, h, w) to (B, 4 h, 4 w)."""
        maps = pooled
        for doubled, convolution in zip((True, True, False), self.upsample, strict=True):
            maps = convolution(maps).relu()
            if doubled:
                maps = functional.interpolate(
                    maps, scale_factor=2, mode="bilinear", align_corners=False
                )
        return self.project(maps)[:, 0]
