"""The first half of the decoder: masks are handed on from coarse scales to fine ones (figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fssbench.nn import resize

# How many channels there are and their kernels are the authors', not the paper's.
NARROW, MIDDLE, WIDE = 16, 64, 128
_KERNELS = {32: (3, 3, 3), 16: (5, 3, 3), 8: (5, 5, 3)}


def prepare_blocks(layers: Mapping[int, int]) -> nn.ModuleDict:
    """From the masks of all layers of a scale to 128 channels.

    Args:
        layers: how many a scale has, by stride.

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
    """Joining a scale with the coarser ones: a block for each of these strides, for `cascade`."""
    return nn.ModuleDict({str(stride): _convolutions((WIDE,) * 4, (3, 3, 3)) for stride in strides})


def cascade(
    masks: Mapping[int, Tensor], *, prepare: nn.ModuleDict, integrate: nn.ModuleDict
) -> Tensor:
    """Hand masks on from the coarsest scale to the finest.

    Args:
        masks: by stride, (B, L, h, w) of its L layers.
        prepare: of `prepare_blocks`, for all strides.
        integrate: of `integrate_blocks`, for all strides but the coarsest.

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
    """Conv blocks: convolution, group norm, ReLU."""
    steps: list[nn.Module] = []
    for before, after, kernel in zip(channels, channels[1:], kernels, strict=False):
        steps += [
            nn.Conv2d(before, after, kernel, padding=kernel // 2),
            nn.GroupNorm(4, after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*steps)
