"""Outputs of the network."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from torch import Tensor


@attrs.frozen(eq=False)
class Outputs:
    """All outputs for B queries, before they are resized to the input's size.

    Attributes:
        final: merged, (B, 2, h, w), channel 1 is foreground; with the ensemble, no logits (see
            `fssbench_hdmnet.ensemble.Ensemble`), without it the same as `meta`.
        meta: logits of the matching alone, (B, 2, h, w).
        base: logits of the base learner, (B, 1 + base classes, h', w'); None without the ensemble.
        priors: (B, 2, h, w), in [0, 1]: from the base learner's embedding, and the deepest layer.
        correlations: maps C' of equation 7, fine to coarse, (B, h, w) each.
    """

    final: Tensor
    meta: Tensor
    base: Tensor | None
    priors: Tensor
    correlations: Sequence[Tensor]
