"""The meta-visual prompt generator (section 3.4.1): sparse and dense prompts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from fssbench.nn import masked_average


class SemanticPrompt(nn.Module):
    """Semantic-aware visual prompt: the foreground's mean feature as one sparse prompt.

    "We process the support features from DINOv2's last layer to match the dimension of SAM's sparse
    prompt embedding, and then average them to a vector." The paper does not describe the process.
    Of one 1 x 1 convolution 768 → 256 (0.20 M parameters) and two of them with 64 channels between
    them (0.07 M) only the second has the size given in the paper's later version (UINO-FSS, table
    IV: 0.07 M trained parameters without the decoder, 92.0 M in all with DINOv2-B). It is used
    here, with a GELU between the convolutions.

    Args:
        channels: channels of the support features.
        width: channels of the prompt.
        inner: channels between both convolutions.
    """

    def __init__(self, channels: int, *, width: int = 256, inner: int = 64) -> None:
        super().__init__()
        layers = (nn.Conv2d(channels, inner, 1), nn.GELU(), nn.Conv2d(inner, width, 1))
        self.project = nn.Sequential(*layers)

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Compute one prompt for each support.

        Args:
            features: support features, (N, C, h, w).
            masks: masks, float (N, h, w) in [0, 1], 1 is foreground.

        Returns:
            (N, width).
        """
        return masked_average(self.project(features), masks)


class CorrelationPrior(nn.Module):
    """Dense prompts of 4D correlations: from all pairs of positions to one prior mask.

    For h x w positions of the query and as many of the support (37 x 37 at 518 pixels):

    1. `shrink`: the support's h·w positions are channels: 1 x 1 1369 → 512 and 3 x 3 512 → 361 with
       stride 2, so that 19 x 19 query positions have 19 x 19 support positions.
    2. `refine`: a depthwise 3 x 3 convolution over the query's plane (equation 4) plus a pointwise
       convolution of the transposed volume, which mixes query positions (equation 5).
    3. the map of prototype similarities is added to every channel.
    4. `decode`: 3 x 3 convolutions up to four times the size of the features, one channel.

    1369 → 512 → 361 at other sizes is h·w → `width` → ceil(h / 2)². "4 x higher" is four times the
    features' own 37 x 37, because SAM's mask downscaling turns 148 x 148 into 37 x 37; from 19 this
    takes three doublings. The paper does not give their channels: 256, 128 and 64 make 3.70 M
    parameters in all, the paper's "4 M". Nor does it give activations: here ReLUs follow both
    convolutions of `shrink` and each of `decode` but the last, and equations 4 and 5 have none.
    Weights are initialised for ReLUs (He et al., 2015), biases with zeros: with PyTorch's default
    each convolution more than halves the values, and the prior did not train on `shapes`.

    Args:
        grid: positions along a side, h.
        width: channels after the first convolution.
        channels: channels of the convolutions of `decode` except the last.
    """

    def __init__(
        self, grid: int, *, width: int = 512, channels: Sequence[int] = (256, 128, 64)
    ) -> None:
        super().__init__()
        self.grid = grid
        self.shrunk = (grid + 1) // 2
        places = self.shrunk**2
        self.reduce = nn.ModuleList(
            [nn.Conv2d(grid**2, width, 1), nn.Conv2d(width, places, 3, stride=2, padding=1)]
        )
        self.depthwise = nn.Conv2d(places, places, 3, padding=1, groups=places)
        self.pointwise = nn.Conv2d(places, places, 1)
        widths = (places, *channels, 1)
        self.upsample = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, volumes: Tensor, similarity: Tensor) -> Tensor:
        """Return the logits of the prior mask.

        For K shots the refined volumes are averaged: their channels are support positions, which do
        not correspond across images before step 2.

        Args:
            volumes: 4D correlations, (B, K, h, w, h, w): query positions, support positions.
            similarity: cosine similarity to the prototype, (B, h, w).

        Returns:
            (B, 4 h, 4 w).
        """
        batch, shots = volumes.shape[:2]
        refined = self.refine(self.shrink(volumes.flatten(0, 1)))
        mean = refined.view(batch, shots, *refined.shape[1:]).mean(1)
        small = functional.interpolate(
            similarity[:, None], mean.shape[-2:], mode="bilinear", align_corners=False
        )
        return self.decode(mean + small.to(mean.dtype))

    def shrink(self, volume: Tensor) -> Tensor:
        """Map (N, h, w, h, w) to (N, ceil(h/2)², ceil(h/2), ceil(h/2)), support first."""
        # The flattened support as channels of a channels-last map: nothing is copied.
        maps = volume.flatten(3).permute(0, 3, 1, 2)
        for convolution in self.reduce:
            maps = convolution(maps).relu()
        return maps

    def refine(self, maps: Tensor) -> Tensor:
        """Return the sum of equations 4 and 5: (N, s, hq, wq) to the same shape."""
        across = self.depthwise(maps)
        # Transposed: (N, hq·wq, hs, ws), the support is the plane, query positions are channels.
        turned = maps.flatten(2).transpose(1, 2)
        turned = turned.reshape(len(maps), -1, self.shrunk, self.shrunk)
        mixed = self.pointwise(turned).flatten(2).transpose(1, 2).reshape(maps.shape)
        return across + mixed

    def decode(self, maps: Tensor) -> Tensor:
        """Upsample (B, s, ceil(h/2), ceil(h/2)) to logits (B, 4 h, 4 h)."""
        *hidden, last = self.upsample
        for number, convolution in enumerate(hidden, start=1):
            side = 4 * self.grid // 2 ** (len(hidden) - number)
            maps = convolution(maps).relu()
            maps = functional.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
        return last(maps)[:, 0]
