"""Cache of the frozen features of training images that recur with the same pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fssbench.backbones.backbone import Backbone
from fssbench.inference.feature_files import FeatureFiles

CACHE_BYTES = 1 << 30
"""Limit of the cached features in memory, on the training device.

Beyond it, a training caches those on disk, or none; see `fssbench.training.plan`.
"""

ENCODE_AT_ONCE = 16
"""Images that a frozen backbone encodes at once."""


class FrozenFeatures:
    """A frozen encoder that encodes each named image only once.

    On a CPU named images are encoded one by one, so that their features do not depend on the batch:
    a resumed training, which starts with an empty cache, gives the same result.

    Args:
        backbone: frozen encoder.
        layers: requested layers.
        files: features on disk; None to cache in memory only.
    """

    def __init__(
        self, backbone: Backbone, layers: Sequence[str], files: FeatureFiles | None = None
    ) -> None:
        self._backbone = backbone
        self._layers = tuple(layers)
        self._files = files
        self._cached: dict[str, dict[str, Tensor]] = {}
        self._bytes = 0

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
        found = {name: maps for name in first if (maps := self._read(name, images.device))}
        new = sorted(index for name, index in first.items() if name not in found)
        at_once = 1 if images.device.type == "cpu" else ENCODE_AT_ONCE
        for start in range(0, len(new), at_once):
            batch = new[start : start + at_once]
            # Indices would be copied to the device, which waits for it.
            encoded = self._backbone(torch.stack([images[i] for i in batch]), self._layers)
            for position, index in enumerate(batch):
                # A slice would hold the memory of the whole batch.
                maps = {layer: each[position].clone() for layer, each in encoded.items()}
                found[names[index]] = maps
                self._keep(names[index], maps)
                if self._files is not None:
                    self._files.write(names[index].encode(), maps)
        return {layer: torch.stack([found[n][layer] for n in names]) for layer in self._layers}

    def _read(self, name: str, device: torch.device) -> dict[str, Tensor] | None:
        if name in self._cached or self._files is None:
            return self._cached.get(name)
        read = self._files.read(name.encode())
        if read is None:
            return None
        maps = {layer: each.to(device, non_blocking=True) for layer, each in read.items()}
        self._keep(name, maps)
        return maps

    def _keep(self, name: str, maps: dict[str, Tensor]) -> None:
        """Cache features in memory; those that are also on disk only as long as they fit."""
        if self._files is None or self._bytes < CACHE_BYTES:
            self._cached[name] = maps
            self._bytes += sum(each.nbytes for each in maps.values())
