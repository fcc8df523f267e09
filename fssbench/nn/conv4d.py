"""Centre-pivot 4D convolution (Min et al., HSNet, ICCV 2021, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Sides = tuple[int, int, int, int]


class CenterPivotConv4d(nn.Module):
    """A convolution of a 4D volume whose kernel is zero but on two planes through its centre.

    One plane is a 2D convolution over query positions (at each support position), the other over
    support positions (at each query position); their results are added (equation 7). A support
    stride s takes every s-th support position for the first plane, from position 0 on. When the
    support kernel covers the whole support without padding, the first plane is summed over all
    support positions instead, and the result has no support dimensions.

    Parameters have the names of the authors' code: ``conv1`` over the query, ``conv2`` over the
    support, each with its own bias.

    Args:
        channels: channels of the volume.
        out: channels of the result.
        kernel: sides of the kernel: query rows and columns, support rows and columns.
        stride: strides along the same dimensions.
        padding: zero padding along the same dimensions.
        bias: bias of both convolutions, or none.
    """

    def __init__(
        self, channels: int, out: int, kernel: Sides, *, stride: Sides = (1, 1, 1, 1),
        padding: Sides = (0, 0, 0, 0), bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(channels, out, kernel[s], stride[s], padding[s], bias=bias)
            for s in (slice(2), slice(2, 4))
        )
        self._kernel, self._stride, self._padding = kernel[2:], stride[2:], padding[2:]

    def forward(self, volume: Tensor) -> Tensor:
        """Convolve a volume.

        Args:
            volume: 4D volume, (B, channels, hq, wq, hs, ws).

        Returns:
            (B, out, hq', wq', hs', ws'), with channels last in memory; or (B, out, hq', wq') when
            the kernel covers the support.
        """
        rows, columns = self._stride
        batch, _, hq, wq, hs, ws = volume.shape
        last = volume.permute(0, 2, 3, 4, 5, 1)
        support = _convolved(self.conv2, last.flatten(0, 2))
        support = support.view(batch, hq, wq, *support.shape[1:])
        by_support = last[:, :, :, ::rows, ::columns].permute(3, 0, 4, 1, 2, 5)
        if self._kernel == (hs, ws) and self._padding == (0, 0):
            query = _convolved(self.conv1, by_support.flatten(0, 2))
            query = query.view(len(by_support), batch, -1, *query.shape[1:]).sum((0, 2))
            collapsed: Tensor = support[:, :, :, 0, 0] + query
            return collapsed.permute(0, 3, 1, 2)
        # On a CPU one row of support positions at once, so that copies stay in its cache.
        count = (
            1 if volume.device.type == "cpu" and not torch.is_grad_enabled() else len(by_support)
        )
        for start in range(0, len(by_support), count):
            some = by_support[start : start + count]
            query = _convolved(self.conv1, some.flatten(0, 2))
            query = query.view(*some.shape[:3], *query.shape[1:])
            support[:, :, :, start : start + count] += query.permute(1, 3, 4, 0, 2, 5)
        return support.permute(0, 5, 1, 2, 3, 4)


def _convolved(convolution: nn.Conv2d, maps: Tensor) -> Tensor:
    """Convolve maps (N, h, w, C), channels last, to (N, h', w', out)."""
    convolved: Tensor = convolution(maps.contiguous().permute(0, 3, 1, 2))
    return convolved.permute(0, 2, 3, 1)
