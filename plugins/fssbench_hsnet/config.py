"""Options of HSNet."""

from __future__ import annotations

import attrs
from attrs.validators import ge, optional


@attrs.frozen(kw_only=True)
class HsNetConfig:
    """Options of `HsNet`; the defaults are the paper's model.

    Attributes:
        size: encoder input side in pixels; None for 400, or for the backbone's own if its sides are
            multiples of a number that does not divide 400.
        pyramid: strides of the scales in the pyramid.
        support_mask: multiply support features by the mask (equation 1 of the paper, whose table 1
            also has a model without it); without, the mask is not used at all.
    """

    size: int | None = attrs.field(default=None, validator=optional(ge(1)))
    pyramid: tuple[int, ...] = (8, 16, 32)
    support_mask: bool = True

    def __attrs_post_init__(self) -> None:
        once = len(set(self.pyramid)) == len(self.pyramid)
        if not self.pyramid or not once or set(self.pyramid) - {8, 16, 32}:
            raise ValueError("pyramid: name at least one of 8, 16, 32, each at most once")
