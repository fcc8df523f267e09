"""Parameters of a backbone that some of its layers depend on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from fssbench.backbones.backbone import Backbone


def parameters_behind(
    backbone: Backbone, layers: Sequence[str], *, size: int
) -> list[nn.Parameter]:
    """Return the parameters that get a gradient from some layers, in the backbone's order.

    Parameters of blocks after the deepest of these layers get none. They are found with a backward
    pass on a black image; the backbone is in eval mode, so its statistics do not change.

    Args:
        backbone: encoder.
        layers: requested layers.
        size: side of the image, in pixels.
    """
    parameters = list(backbone.parameters())
    if not parameters or not layers:
        return []
    before = [parameter.requires_grad for parameter in parameters]
    backbone.requires_grad_(True)
    with torch.enable_grad():
        found = backbone(backbone.mean.new_zeros(1, 3, size, size), layers)
        total = torch.stack([maps.float().sum() for maps in found.values()]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, wanted in zip(parameters, before, strict=True):
        parameter.requires_grad_(wanted)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
