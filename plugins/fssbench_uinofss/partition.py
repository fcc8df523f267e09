"""Partition of a volume into 4D blocks, and its inverse (section IV-D2, before equation 9)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def partition(volume: Tensor, query_block: int, support_block: int) -> Tensor:
    """Cut a volume into blocks and flatten each into a 2D patch.

    Sides that the blocks do not divide are padded with zeros at their ends.

    Args:
        volume: (N, C, hq, wq, hs, ws), of any size.
        query_block: kq, side of a block over query positions.
        support_block: ks, side of a block over support positions.

    Returns:
        (N · blocks, kq², ks², C): rows are a block's query positions, columns its
        support positions.
    """
    sizes = _blocks(volume.shape[2:], query_block, support_block)
    ends = [count * block - n for n, (count, block) in zip(volume.shape[2:], sizes, strict=True)]
    padding = [n for end in reversed([*ends, 0]) for n in (0, end)]  # the last dimension first
    x = volume.permute(0, 2, 3, 4, 5, 1)
    x = functional.pad(x, padding) if any(padding) else x
    x = x.reshape(len(x), *(number for pair in sizes for number in pair), x.shape[-1])
    # (N, nq, kq, mq, kq, ns, ks, ms, ks, C)
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6, 8, 9)
    return x.reshape(-1, query_block**2, support_block**2, volume.shape[1])


def assemble(patches: Tensor, sides: Sequence[int], query_block: int, support_block: int) -> Tensor:
    """Invert `partition` exactly; the padding is cropped.

    Args:
        patches: (N · blocks, kq², ks², C).
        sides: hq, wq, hs, ws of the volume.
        query_block: kq.
        support_block: ks.

    Returns:
        (N, C, hq, wq, hs, ws), with channels last in memory.
    """
    sizes = _blocks(sides, query_block, support_block)
    counts, blocks = zip(*sizes, strict=True)
    x = patches.view(-1, *counts, *blocks, patches.shape[-1])
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4, 8, 9)
    hq, wq, hs, ws = sides
    x = x.reshape(len(x), *(count * block for count, block in sizes), x.shape[-1])
    return x[:, :hq, :wq, :hs, :ws].permute(0, 5, 1, 2, 3, 4)


def _blocks(sides: Sequence[int], query_block: int, support_block: int) -> list[tuple[int, int]]:
    """Return the number and the length of the blocks for each of the four sides."""
    lengths = (query_block, query_block, support_block, support_block)
    return [(-(-side // block), block) for side, block in zip(sides, lengths, strict=True)]
