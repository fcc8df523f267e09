"""Options of GF-SAM."""

from __future__ import annotations

import attrs
from attrs.validators import ge, optional


@attrs.frozen(kw_only=True)
class GfSamConfig:
    """Options of `GfSam`; with its default encoders, the defaults are the authors' values.

    Attributes:
        image_size: side in pixels of the square that images and masks are resized to first; None
            for the side of the encoder of masks (1024 for SAM).
        feature_size: side in pixels of the input of the encoder of features; None for its own (518
            for DINOv2).
        points: largest number of points; SAM predicts one mask for each.
    """

    image_size: int | None = attrs.field(default=None, validator=optional(ge(1)))
    feature_size: int | None = attrs.field(default=None, validator=optional(ge(1)))
    points: int = attrs.field(default=128, validator=ge(1))
