"""What a backbone gives, without its weights."""

from __future__ import annotations

import torch

from fssbench.backbones.backbone import BackboneInfo
from fssbench.registry import load
from fssbench.specs import BackboneSpec


def parameters(spec: BackboneSpec) -> int:
    """How many numbers a backbone's weights are; none is read or drawn."""
    with torch.device("meta"):
        made = load(spec)(weights="none", **spec.arguments)
    return sum(parameter.numel() for parameter in made.parameters())


def describe(spec: BackboneSpec) -> BackboneInfo:
    """Names and shapes of a backbone's layers; no weights are read, drawn or kept in memory.

    The spec's factory is called with ``weights="none"`` on the meta device, where tensors have
    shapes and no values.

    Raises:
        FssbenchError: the factory cannot be imported.
    """
    with torch.device("meta"):
        info: BackboneInfo = load(spec)(weights="none", **spec.arguments).info
    return info
