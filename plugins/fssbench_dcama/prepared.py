"""Prepared supports and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class Support:
    """The query-independent part of a support set.

    Attributes:
        keys: keys of S support pixels by layer, (B, heads, S, C / heads).
        values: mask values of these pixels by stride, (B, S).
        skips: support features for the mixer by layer, (B, C, h, w).
        mixed: the mixer's first convolution of the skips, (B, 128, size / 4, size / 4); None
            before `Dcama.embed_support`, or without skips.
    """

    keys: Mapping[str, Tensor]
    values: Mapping[int, Tensor]
    skips: Mapping[str, Tensor]
    mixed: Tensor | None = None


@attrs.frozen(eq=False)
class Query:
    """The support-independent part of a query.

    Attributes:
        projected: projected pixels by layer, (B, heads, h·w, C / heads), scaled for `attend`.
        sizes: (h, w) by stride.
        mixed: the mixer's first convolution of the skips, (B, 128, size / 4, size / 4); None if
            there are no skips.
    """

    projected: Mapping[str, Tensor]
    sizes: Mapping[int, tuple[int, int]]
    mixed: Tensor | None


def side_by_side(shots: Sequence[Support]) -> Support:
    """Concatenate K supports of one shot each to one support of K shots."""
    first = shots[0]
    if len(shots) == 1:
        return first
    return Support(
        {name: torch.cat([one.keys[name] for one in shots], 2) for name in first.keys},
        {stride: torch.cat([one.values[stride] for one in shots], 1) for stride in first.values},
        {name: torch.stack([one.skips[name] for one in shots]).amax(0) for name in first.skips},
    )
