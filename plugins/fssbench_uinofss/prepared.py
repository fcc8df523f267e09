"""What is kept of supports and queries."""

from __future__ import annotations

import attrs
from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class Support:
    """What the annotated images say.

    Attributes:
        prompts: sparse prompts, float (B, N, width).
        prototypes: mean foreground feature, float (B, C); None when volumes are made.
        features: of the last layers, the last one last, each float (B, K, C, h, w); none without
            volumes.
        masks: share of foreground of each place, float (B, K, h, w).
    """

    prompts: Tensor
    prototypes: Tensor | None
    features: tuple[Tensor, ...]
    masks: Tensor


@attrs.frozen(kw_only=True, eq=False)
class PreparedSupport:
    """What one annotated image says by itself.

    Attributes:
        prototype: mean of what the semantic prompt is made of, float (1, width); None without.
        support: of one shot; its prompts are those of one image alone.
    """

    prototype: Tensor | None
    support: Support


@attrs.frozen(kw_only=True, eq=False)
class Query:
    """What of a query does not depend on its support.

    Attributes:
        embedding: of the adapter, float (B, width, h, w).
        features: of the last layers, the last one last, each float (B, C, h, w).
    """

    embedding: Tensor
    features: tuple[Tensor, ...]
