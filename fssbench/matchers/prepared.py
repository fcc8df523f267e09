"""What the harness keeps of a support image for a matcher that prepares nothing of it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import Tensor


@attrs.frozen(eq=False)
class PreparedSupport:
    """An annotated image as it came, for a matcher that prepares nothing of it.

    Attributes:
        features: for each requested layer (1, C, h, w).
        mask: uint8 (1, H, W).
    """

    features: Mapping[str, Tensor]
    mask: Tensor
