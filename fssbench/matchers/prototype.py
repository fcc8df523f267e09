"""The training-free baseline: nearest prototype by cosine similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from fssbench.backbones.backbone import BackboneInfo
from fssbench.matchers.matcher import FeatureRequest, Matcher
from fssbench.nn import masked_average, masks_at, separate


@attrs.frozen(kw_only=True)
class PrototypeConfig:
    """Options of `Prototype`.

    Attributes:
        layer: backbone layer to compare; "" for the deepest.
        size: side of the encoder's input in pixels; None for the backbone's own.
        scale: factor of the difference of two cosines (PANet's alpha). It changes the steepness of
            the logits, and no mask.
    """

    layer: str = ""
    size: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    scale: float = 20.0


class Prototype(Matcher):
    """Nearest-prototype segmentation with one prototype each for foreground and background.

    A prototype is the masked average of a support's features (PANet, equations 1 and 2); for K
    shots the prototypes of the supports, each of length 1, are averaged.

    Args:
        config: options.
        backbone: names and shapes of the features.

    Raises:
        FssbenchError: the backbone has no such layer.
    """

    def __init__(self, *, config: PrototypeConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        self.layer = config.layer or backbone.last_layer
        self.size = config.size or backbone.image_size
        backbone.layer(self.layer)

    def request(self) -> FeatureRequest:
        """Return a request for one layer of squashed images."""
        return FeatureRequest(layers=(self.layer,), size=self.size)

    def prepare_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Sequence[Tensor]:
        """Return the prototypes of each image: float (1, 2, C), each of length 1."""
        maps = features[self.layer]
        prototypes = [masked_average(maps, masks_at(masks, n, *maps.shape[-2:])) for n in (0, 1)]
        each = functional.normalize(torch.stack(prototypes, 1), dim=-1)
        # Once more, for the rounding: rows that are published were computed this way.
        return separate(functional.normalize(each, dim=-1), len(masks))

    def embed_support(self, support: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return prototypes of background and foreground: float (B, 2, C), each of length 1."""
        means = [torch.stack(list(shots)).mean(0) for shots in support]
        return functional.normalize(torch.cat(means), dim=-1)

    def segment(self, query: Mapping[str, Tensor], support: Tensor) -> Tensor:
        """Return the scaled cosine to the foreground minus that to the background: (B, h, w)."""
        maps = functional.normalize(query[self.layer], dim=1)
        cosines = torch.einsum("bchw,bnc->bnhw", maps, support.to(maps.dtype))
        return float(self.config.scale) * (cosines[:, 1] - cosines[:, 0])
