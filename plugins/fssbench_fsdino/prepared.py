"""What is kept of supports and queries."""

from __future__ import annotations

import attrs
from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class Support:
    """What the annotated images say.

    Attributes:
        prototypes: mean foreground feature, float (B, C); the mean over shots.
        prompts: sparse prompts, float (B, N, width).
        compared: last-layer features as the 4D correlation takes them (of length 1 for cosines,
            weighted with the mask where it counts), float (B, K, C, h, w); None when none is made.
    """

    prototypes: Tensor
    prompts: Tensor
    compared: Tensor | None


@attrs.frozen(kw_only=True, eq=False)
class Query:
    """What of a query does not depend on its support.

    Attributes:
        embedding: of the adapter, float (B, width, h, w).
        features: of the last layer, float (B, C, h, w).
        compared: the same as the 4D correlation takes them; None when none is made.
    """

    embedding: Tensor
    features: Tensor
    compared: Tensor | None
