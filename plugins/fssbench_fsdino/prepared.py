"""Prepared supports and queries."""

from __future__ import annotations

import attrs
from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class Support:
    """Features of the annotated images.

    Attributes:
        prototypes: mean foreground features over all shots, float (B, C).
        prompts: sparse prompts, float (B, N, width).
        compared: last-layer features for the 4D correlation (of length 1 for cosines, weighted with
            the mask if the option ``support`` is ``foreground``), float (B, K, C, h, w); None
            without a 4D correlation.
    """

    prototypes: Tensor
    prompts: Tensor
    compared: Tensor | None


@attrs.frozen(kw_only=True, eq=False)
class Query:
    """The support-independent part of a query.

    Attributes:
        embedding: output of the adapter, float (B, width, h, w).
        features: last-layer features, float (B, C, h, w).
        compared: last-layer features for the 4D correlation; None without one.
    """

    embedding: Tensor
    features: Tensor
    compared: Tensor | None
