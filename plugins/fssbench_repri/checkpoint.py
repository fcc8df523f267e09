"""Import of the authors' checkpoint files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fssbench import BackboneInfo, Imported
from fssbench_repri.config import RePriConfig
from fssbench_repri.model import RePri

_SIZE = 417
_BACKBONE = re.compile(r"layer[0-4]\.")
# Prefixes of tensor names, ours and the authors'; the rest of a name is the same in both.
_PARTS = {
    "head.pyramid.levels": "ppm.features",
    "head.bottleneck": "bottleneck",
    "head.classifier.2": "classifier",
}


def import_official(tensors: Mapping[str, Tensor], backbone: BackboneInfo) -> Imported:
    """Map the authors' tensor names to ours; their files contain the backbone, too.

    The number of base classes is read from a shape; the size of images is the authors' for all
    their models.

    Args:
        tensors: tensors of the authors' file, by name.
        backbone: names and shapes of the encoder's features.
    """
    prefix = next((n.partition("ppm.")[0] for n in tensors if "ppm.features." in n), "")
    named = {full.removeprefix(prefix): tensor for full, tensor in tensors.items()}
    config: dict[str, Any] = {"size": _SIZE}
    if len(named.get("classifier.bias", ())) > 1:
        config["base_classes"] = len(named["classifier.bias"]) - 1
    matcher = RePri(config=RePriConfig(**config), backbone=backbone)
    official = {
        own: theirs + own.removeprefix(ours)
        for own in matcher.state_dict()
        for ours, theirs in _PARTS.items()
        if own.startswith(f"{ours}.")
    }
    own_names = {theirs: own for own, theirs in official.items()}
    return Imported(
        weights={own_names.get(n, n): t for n, t in named.items() if not _BACKBONE.match(n)},
        backbone={n: t for n, t in named.items() if _BACKBONE.match(n)},
        names=official,
        config=config,
    )
