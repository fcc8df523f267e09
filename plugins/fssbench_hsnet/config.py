"""Options of HSNet."""

from __future__ import annotations

import attrs
from attrs.validators import ge


@attrs.frozen(kw_only=True)
class HsNetConfig:
    """Options of `HsNet`; the defaults are the paper's model.

    Attributes:
        size: encoder input side in pixels.
        pyramid: strides of the scales in the pyramid.
        support_mask: multiply support features by the mask (equation 1 of the paper, whose table 1
            also has a model without it); without, the mask is not used at all.
    """

    size: int = attrs.field(default=400, validator=ge(1))
    pyramid: tuple[int, ...] = (8, 16, 32)
    support_mask: bool = True

    def __attrs_post_init__(self) -> None:
        once = len(set(self.pyramid)) == len(self.pyramid)
        if not self.pyramid or not once or set(self.pyramid) - {8, 16, 32}:
            raise ValueError("pyramid: name at least one of 8, 16, 32, each at most once")
