"""Cache of the frozen features of training images that recur with the same pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fssbench.backbones.backbone import Backbone

CACHE_BYTES = 1 << 30
"""Limit of the cached features, on the training device: all images are cached, or none."""

ENCODE_AT_ONCE = 16
"""Images that a frozen backbone encodes at once."""


class FrozenFeatures:
    """A frozen encoder that encodes each named image only once.

    On a CPU named images are encoded one by one, so that their features do not depend on the batch:
    a resumed training, which starts with an empty cache, gives the same result.

    Args:
        backbone: frozen encoder.
        layers: requested layers.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[str]) -> None:
        self._backbone = backbone
        self._layers = tuple(layers)
        self._cached: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def encode(self, images: Tensor, names: Sequence[str] | None) -> dict[str, Tensor]:
        """Return the features of a batch of images.

        Args:
            images: float (U, 3, S, S) in [0, 1].
            names: names of the U images, the same for the same pixels; None to cache nothing.

        Returns:
            Features (U, C, h, w) by layer.
        """
        if names is None:
            parts = [self._backbone(p, self._layers) for p in torch.split(images, ENCODE_AT_ONCE)]
            return {layer: torch.cat([maps[layer] for maps in parts]) for layer in self._layers}
        first = {name: index for index, name in reversed([*enumerate(names)])}
        new = sorted(index for name, index in first.items() if name not in self._cached)
        at_once = 1 if images.device.type == "cpu" else ENCODE_AT_ONCE
        for start in range(0, len(new), at_once):
            batch = new[start : start + at_once]
            # Indices would be copied to the device, which waits for it.
            maps = self._backbone(torch.stack([images[i] for i in batch]), self._layers)
            for position, index in enumerate(batch):
                # A slice would hold the memory of the whole batch.
                self._cached[names[index]] = {n: m[position].clone() for n, m in maps.items()}
        found = [self._cached[name] for name in names]
        return {layer: torch.stack([each[layer] for each in found]) for layer in self._layers}
