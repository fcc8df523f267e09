"""The method: similarity to prototypes, and a small network that makes a mask of it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench import BackboneInfo, FeatureRequest, Matcher, SupportSet
from fssbench.nn import masked_average, masks_at


@attrs.frozen(kw_only=True)
class ExampleConfig:
    """Options of `Example`.

    Attributes:
        width: channels of the network.
    """

    width: int = attrs.field(default=16, validator=attrs.validators.gt(0))


class Example(Matcher):
    """Cosines to the prototypes of foreground and background, refined by two convolutions."""

    def __init__(self, *, config: ExampleConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        # The last layer at stride 16 or finer: objects of small images vanish on coarser ones.
        fine = [name for name, layer in backbone.layers.items() if layer.stride <= 16]
        self.layer = fine[-1] if fine else backbone.last_layer
        self.refine = nn.Sequential(
            nn.Conv2d(2, config.width, 3, padding=1), nn.ReLU(), nn.Conv2d(config.width, 1, 1)
        )

    def request(self) -> FeatureRequest:
        """One layer, images squashed to a square."""
        return FeatureRequest(layers=(self.layer,), size=self.backbone.image_size)

    def embed_support(self, support: SupportSet) -> Tensor:
        """Return prototypes of background and foreground, (B, 2, C), means over shots."""
        shots = support.masks.shape[:2]
        maps, flat = support.features[self.layer].flatten(0, 1), support.masks.flatten(0, 1)
        means = [masked_average(maps, masks_at(flat, v, *maps.shape[-2:])) for v in (0, 1)]
        each = functional.normalize(torch.stack(means, 1), dim=-1)
        return functional.normalize(each.unflatten(0, shots).mean(1), dim=-1)

    def segment(self, query: Mapping[str, Tensor], support: Tensor) -> Tensor:
        """Logits (B, h, w)."""
        cosines = self._cosines(query, support)
        return 20 * (cosines[:, 1] - cosines[:, 0]) + self.refine(cosines)[:, 0]

    def maps(self, query: Mapping[str, Tensor], support: Tensor) -> dict[str, Tensor]:
        """The similarity to the foreground."""
        return {"similarity": self._cosines(query, support)[:, 1]}

    def _cosines(self, query: Mapping[str, Tensor], support: Tensor) -> Tensor:
        maps = functional.normalize(query[self.layer], dim=1)
        return torch.einsum("bchw,bnc->bnhw", maps, support.to(maps.dtype))
