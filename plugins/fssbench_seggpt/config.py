"""Options of SegGPT."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen(kw_only=True)
class SegGptConfig:
    """Options of `SegGpt`.

    Attributes:
        embedding: learned embedding of the kind of segmentation, added to all tokens; the authors'
            inference code uses ``instance`` by default.
    """

    embedding: Literal["instance", "semantic"] = "instance"
