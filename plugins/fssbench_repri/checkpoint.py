"""Import of the authors' checkpoint files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from fssbench import BackboneInfo, Imported

_SIZE = 417
_BACKBONE = re.compile(r"layer[0-4]\.")
# Prefixes of tensor names, the authors' and ours; the rest of a name is the same in both.
_PARTS = {
    "ppm.features.": "head.pyramid.levels.",
    "bottleneck.": "head.bottleneck.",
    "classifier.": "head.classifier.2.",
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
    weights, encoder, names = {}, {}, {}
    for full, tensor in tensors.items():
        name = full.removeprefix(prefix)
        if _BACKBONE.match(name):
            encoder[name] = tensor
            continue
        part = next((part for part in _PARTS if name.startswith(part)), "")
        own = _PARTS.get(part, "") + name.removeprefix(part)
        weights[own], names[own] = tensor, name
    bias = weights.get("head.classifier.2.bias")
    config = {"size": _SIZE} if bias is None else {"size": _SIZE, "base_classes": len(bias) - 1}
    return Imported(weights=weights, backbone=encoder, names=names, config=config)
