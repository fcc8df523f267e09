"""The cached support image of a matcher without a `prepare_support` of its own."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import Tensor


@attrs.frozen(eq=False)
class PreparedSupport:
    """The features and the mask of an annotated image.

    Attributes:
        features: float (1, C, h, w) tensors by requested layer.
        mask: uint8 (1, H, W).
    """

    features: Mapping[str, Tensor]
    mask: Tensor
