"""What is kept of supports and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class Support:
    """What a support set says.

    Attributes:
        keys: of S support pixels by layer, (B, heads, S, C / heads).
        values: their mask values by stride, (B, S).
        skips: support features for the mixer by layer, (B, C, h, w).
        mixed: what the mixer's first convolution makes of the skips, (B, 128, size / 4, size / 4);
            None where it is not made yet, or there is nothing to mix.
    """

    keys: Mapping[str, Tensor]
    values: Mapping[int, Tensor]
    skips: Mapping[str, Tensor]
    mixed: Tensor | None = None


@attrs.frozen(eq=False)
class Query:
    """What of a query does not depend on its support.

    Attributes:
        projected: of its pixels by layer, (B, heads, h·w, C / heads), scaled for `attend`.
        sizes: (h, w) by stride.
        mixed: what the mixer's first convolution makes of the skips, (B, 128, size / 4, size / 4);
            None where nothing is mixed.
    """

    projected: Mapping[str, Tensor]
    sizes: Mapping[int, tuple[int, int]]
    mixed: Tensor | None


@attrs.frozen(eq=False)
class Guide:
    """A support that is to guide the others, too (the ensemble ``scl``).

    Attributes:
        support: of one shot.
        features: for each requested layer (1, C, h, w).
        mask: uint8 (1, H, W).
    """

    support: Support
    features: Mapping[str, Tensor]
    mask: Tensor


def side_by_side(shots: Sequence[Support]) -> Support:
    """K supports of one shot each as one support of K."""
    first = shots[0]
    if len(shots) == 1:
        return first
    return Support(
        {name: torch.cat([one.keys[name] for one in shots], 2) for name in first.keys},
        {stride: torch.cat([one.values[stride] for one in shots], 1) for stride in first.values},
        {name: torch.stack([one.skips[name] for one in shots]).amax(0) for name in first.skips},
    )
