"""Options of INSID3."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, le, optional


@attrs.frozen(kw_only=True)
class Insid3Config:
    """Options of `Insid3`; the defaults are the paper's.

    Attributes:
        image_size: encoder input side in pixels; None for 1024 on encoders of stride 16 that take
            it, such as DINOv3, and for the encoder's own side on others.
        svd_components: dimensions of the positional subspace that is removed, fewer than the
            encoder has channels and positions; None for 500, or for half of them on encoders with
            500 or fewer. 0 removes nothing.
        tau: average cosine above which two clusters of the query are merged.
        merge_threshold: score above which a cluster is foreground.
    """

    image_size: int | None = attrs.field(default=None, validator=optional(ge(1)))
    svd_components: int | None = attrs.field(default=None, validator=optional(ge(0)))
    tau: float = attrs.field(default=0.6, validator=and_(ge(-1), le(1)))
    merge_threshold: float = attrs.field(default=0.2, validator=ge(0))
