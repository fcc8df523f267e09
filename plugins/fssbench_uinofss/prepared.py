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
    """Embedding of a single annotated image.

    Attributes:
        prototype: mean of the semantic prompt's input, float (1, width); None without the prompt.
        support: support of one shot; its prompts are those of one image alone.
    """

    prototype: Tensor | None
    support: Support


@attrs.frozen(kw_only=True, eq=False)
class Query:
    """The support-independent part of a query.

    Attributes:
        embedding: output of the adapter, float (B, width, h, w).
        features: features of the last layers, in order, each float (B, C, h, w).
    """

    embedding: Tensor
    features: tuple[Tensor, ...]
