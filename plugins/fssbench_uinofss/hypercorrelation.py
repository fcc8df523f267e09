"""The Mamba-HyperCorrelation module: global modelling of a 4D volume (figure 4, equation 9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fssbench.nn import CenterPivotConv4d
from fssbench_uinofss.partition import assemble, partition
from fssbench_uinofss.vss import VssBlock

_GROUPS = 4  # groups of the group norms, as in HSNet


class HyperCorrelation(nn.Sequential):
    """Sequence of two blocks: (N, layers, …) to (N, channels, …).

    With ``mamba`` they are hierarchical global modelling blocks (HGMB), with ``cp4d`` only the
    first half of each, which is HSNet's centre-pivot 4D convolution (table VI).

    Args:
        layers: l, channels of the volume.
        channels: l', channels of the refined volume. The paper does not print it; 64
            gives its size of the module, 0.18 M parameters (0.169 M here).
        blocks: kq and ks, sides of the 4D blocks; None for ``cp4d``.
        states: number of states of the selective scan.
    """

    def __init__(
        self, layers: int, channels: int, *, blocks: tuple[int, int] | None, states: int = 1
    ) -> None:
        super().__init__(
            *(
                PlaneConvolution(before, channels)
                if blocks is None
                else GlobalModelling(before, channels, blocks=blocks, states=states)
                for before in (layers, channels)
            )
        )


class PlaneConvolution(nn.Sequential):
    """Sum of 3 x 3 convolutions of the query's and the support's planes; group norm; ReLU.

    The paper says "convolution block" and names no norm. With HSNet's, the rows of table VI differ
    only in the state space block.

    Args:
        channels: channels of the volume.
        out: channels of the result.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(
            CenterPivotConv4d(channels, out, (3, 3, 3, 3), padding=(1, 1, 1, 1)),
            nn.GroupNorm(_GROUPS, out),
            nn.ReLU(inplace=True),
        )

    def forward(self, volume: Tensor) -> Tensor:
        """Map (N, channels, hq, wq, hs, ws) to (N, out, hq, wq, hs, ws)."""
        convolve, norm, rectify = self
        assert isinstance(norm, nn.GroupNorm)
        convolved: Tensor = convolve(volume)
        if convolved.device.type != "cpu" or torch.is_grad_enabled():
            normed: Tensor = rectify(norm(convolved))
            return normed
        return _normalised(convolved, norm).relu_()


def _normalised(volume: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise a volume (N, C, hq, wq, hs, ws) with channels last in memory, in place.

    torch's group norm needs a copy with channels first, or loses four digits on a volume of this
    size. Sums of one row of query positions at once are added in float64.
    """
    last = volume.permute(0, 2, 3, 4, 5, 1)
    shape = (len(volume), norm.num_groups, -1)
    sums, squares = (last.new_zeros(len(last), norm.num_channels).double() for _ in range(2))
    rows = [row.flatten(1, 3) for row in last.unbind(1)]  # (N, wq hs ws, C)
    for row in rows:
        sums += row.sum(1)
        squares += row.square().sum(1)
    count = last[0, ..., 0].numel() * norm.num_channels // norm.num_groups
    mean = sums.view(shape).sum(-1, keepdim=True) / count
    variance = squares.view(shape).sum(-1, keepdim=True) / count - mean.square()
    inverse = (variance + norm.eps).rsqrt()
    mean, inverse = (x.expand_as(sums.view(shape)).flatten(1) for x in (mean, inverse))
    scale = norm.weight * inverse
    shift = norm.bias - mean * scale
    scale, shift = (x.to(last.dtype)[:, None] for x in (scale, shift))
    for row in rows:
        torch.addcmul(shift, row, scale, out=row)
    return volume


class GlobalModelling(nn.Module):
    """Local convolution and long-range selective scans of 4D blocks (HGMB).

    Args:
        channels: channels of the volume.
        out: channels of the result.
        blocks: kq and ks, sides of the 4D blocks.
        states: number of states of the selective scan.
    """

    def __init__(
        self, channels: int, out: int, *, blocks: tuple[int, int], states: int = 1
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.local = PlaneConvolution(channels, out)
        self.vss = VssBlock(out, states=states)

    def forward(self, volume: Tensor) -> Tensor:
        """Map (N, channels, hq, wq, hs, ws) to (N, out, hq, wq, hs, ws)."""
        local = self.local(volume)
        if local.device.type != "cpu" or torch.is_grad_enabled():
            return self._modelled(local)
        # One row of blocks after the other, which fits a CPU's cache; blocks are independent.
        out = torch.empty_like(local)
        side = self.blocks[0]
        for row in range(0, local.shape[2], side):
            for column in range(0, local.shape[3], side):
                some = (slice(row, row + side), slice(column, column + side))
                out[:, :, *some] = self._modelled(local[:, :, *some])
        return out

    def _modelled(self, volume: Tensor) -> Tensor:
        patches = self.vss.scanned(partition(volume, *self.blocks))
        # The second half processes positions independently: without the padding there are fewer.
        scanned = assemble(patches, volume.shape[2:], *self.blocks)
        scanned = scanned.permute(0, 2, 3, 4, 5, 1).contiguous()
        return self.vss.transformed(scanned).permute(0, 5, 1, 2, 3, 4)
