"""The Mamba-HyperCorrelation module: global modelling of a 4D volume (figure 4, equation 9)."""

from __future__ import annotations

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
        sides = volume.shape[2:]
        patches = partition(self.local(volume), *self.blocks)
        return assemble(self.vss(patches), sides, *self.blocks)
