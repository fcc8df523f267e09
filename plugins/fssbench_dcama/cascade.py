"""First half of the decoder: fusion of masks from coarse scales to fine ones (figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fssbench.nn import resize

# Channels and kernel sizes are from the authors' code; the paper does not state them.
NARROW, MIDDLE, WIDE = 16, 64, 128
_KERNELS = {32: (3, 3, 3), 16: (5, 3, 3), 8: (5, 5, 3)}


def prepare_blocks(layers: Mapping[int, int]) -> nn.ModuleDict:
    """Build the blocks from the masks of a scale to 128 channels.

    Args:
        layers: number of layers of each scale, by stride.

    Returns:
        A block for each stride, for `cascade`.
    """
    return nn.ModuleDict(
        {
            str(stride): _convolutions((count, NARROW, MIDDLE, WIDE), _KERNELS[stride])
            for stride, count in layers.items()
        }
    )


def integrate_blocks(strides: Sequence[int]) -> nn.ModuleDict:
    """Build the blocks that join a scale with coarser ones, one for each stride, for `cascade`."""
    return nn.ModuleDict({str(stride): _convolutions((WIDE,) * 4, (3, 3, 3)) for stride in strides})


def cascade(
    masks: Mapping[int, Tensor], *, prepare: nn.ModuleDict, integrate: nn.ModuleDict
) -> Tensor:
    """Join the masks of all scales, from the coarsest to the finest.

    Args:
        masks: (B, L, h, w) of the L layers of each stride.
        prepare: blocks of `prepare_blocks`, for all strides.
        integrate: blocks of `integrate_blocks`, for all strides but the coarsest.

    Returns:
        (B, 128, h, w) of the finest scale.
    """
    coarsest, *finer = sorted(masks, reverse=True)
    joined: Tensor = prepare[str(coarsest)](masks[coarsest])
    for stride in finer:
        own = prepare[str(stride)](masks[stride])
        joined = integrate[str(stride)](own + resize(joined, own.shape[-2:]))
    return joined


def _convolutions(channels: Sequence[int], kernels: Sequence[int]) -> nn.Sequential:
    """Build blocks of convolution, group norm and ReLU."""
    steps: list[nn.Module] = []
    for before, after, kernel in zip(channels, channels[1:], kernels, strict=False):
        steps += [
            nn.Conv2d(before, after, kernel, padding=kernel // 2),
            nn.GroupNorm(4, after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*steps)
