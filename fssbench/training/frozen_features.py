"""Features of images that look the same in every epoch, encoded once for a whole training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fssbench.backbones.backbone import Backbone

KEPT_BYTES = 1 << 30
"""Features that a training keeps, on the device that trains: those of all its images, or none."""

ENCODE_AT_ONCE = 16
"""Images that a frozen backbone encodes at once."""


class FrozenFeatures:
    """Encodes images without gradients, and those that have a name only once.

    On a CPU named images are encoded one by one, so that their features do not depend on which
    others were missing: a resumed training, which starts with nothing kept, goes the same way.

    Args:
        backbone: frozen encoder.
        layers: what is wanted of it.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[str]) -> None:
        self._backbone = backbone
        self._layers = tuple(layers)
        self._found: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def encode(self, images: Tensor, names: Sequence[str] | None) -> dict[str, Tensor]:
        """Features of a batch of images.

        Args:
            images: float (U, 3, S, S) in [0, 1].
            names: of the U images, each always the same picture; None for nothing to keep.

        Returns:
            For each layer (U, C, h, w).
        """
        if names is None:
            return self._together(torch.split(images, ENCODE_AT_ONCE))
        new = [place for place, name in enumerate(names) if name not in self._found]
        at_once = 1 if images.device.type == "cpu" else ENCODE_AT_ONCE
        for start in range(0, len(new), at_once):
            places = new[start : start + at_once]
            maps = self._backbone(images[places], self._layers)
            for position, place in enumerate(places):
                # A copy: a slice would keep the whole batch's memory.
                self._found[names[place]] = {n: m[position].clone() for n, m in maps.items()}
        kept = [self._found[name] for name in names]
        return {layer: torch.stack([each[layer] for each in kept]) for layer in self._layers}

    def _together(self, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        found = [self._backbone(part, self._layers) for part in parts]
        return {layer: torch.cat([maps[layer] for maps in found]) for layer in self._layers}
