"""Prepared supports and queries."""

from __future__ import annotations

import attrs
from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class Support:
    """Embedding of B support sets.

    Attributes:
        prompts: sparse prompts, float (B, N, width).
        prototypes: mean foreground feature, float (B, C); None when volumes are made.
        features: features of the last layers, in order, each float (B, K, C, h, w); none without
            volumes.
        masks: share of foreground of each place, float (B, K, h, w).
    """

    prompts: Tensor
    prototypes: Tensor | None
    features: tuple[Tensor, ...]
    masks: Tensor


@attrs.frozen(kw_only=True, eq=False)
class PreparedSupport:
    """One annotated image; attributes as of `Support`, for N images at once.

    Attributes:
        semantic: mean of the semantic prompt's input, float (N, width); None without the prompt.
        prototypes: mean foreground feature, float (N, C); None when volumes are made.
        features: features of the last layers, in order, each float (N, 1, C, h, w); none without
            volumes.
        masks: share of foreground of each place, float (N, 1, h, w).
    """

    semantic: Tensor | None
    prototypes: Tensor | None
    features: tuple[Tensor, ...]
    masks: Tensor


@attrs.frozen(kw_only=True, eq=False)
class Query:
    """The support-independent part of a query.

    Attributes:
        embedding: output of the adapter, float (B, width, h, w).
        features: features of the last layers, in order, each float (B, C, h, w).
    """

    embedding: Tensor
    features: tuple[Tensor, ...]
