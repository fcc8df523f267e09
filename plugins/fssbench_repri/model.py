"""Region proportion regularized inference (RePRI).

Boudiaf et al.: "Few-Shot Segmentation Without Meta-Learning: A Good Transductive Inference Is All
You Need?", CVPR 2021. A network is trained on the base classes without episodes; for each episode a
classifier of its features is fitted (`classifier`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from fssbench import BackboneInfo, FeatureRequest, Matcher
from fssbench.nn import PspHead, resize, separate, together
from fssbench_repri.classifier import Classifier
from fssbench_repri.config import RePriConfig


@attrs.frozen(eq=False)
class Support:
    """Supports prepared for the classifier.

    Attributes:
        features: features of unit length, float32 (N, C, h, w).
        labels: labels at their size, uint8 (N, h, w) of 0, 1 and 255 (ignore).
    """

    features: Tensor
    labels: Tensor


class RePri(Matcher):
    """A classifier fitted to each episode, on features of a head or of the backbone itself.

    Args:
        config: options.
        backbone: names and shapes of the features.

    Raises:
        FssbenchError: the backbone lacks a layer.
    """

    config: RePriConfig

    def __init__(self, *, config: RePriConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        self.size = config.size or backbone.image_size
        self.layers = config.layers or (backbone.last_layer,)
        channels = sum(backbone.layer(name).channels for name in self.layers)
        self.head = (
            PspHead(channels, config.base_classes + 1, dropout=config.dropout)
            if config.head == "psp"
            else None
        )

    def request(self) -> FeatureRequest:
        """Request squashed images: padding would count as pixels of the query."""
        return FeatureRequest(layers=self.layers, size=self.size)

    def prepare_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Sequence[Support]:
        """Embed N supports; labels are those of the nearest pixels.

        Args:
            features: features by requested layer, (N, C, h, w).
            masks: uint8 (N, H, W) of 0, 1 and 255.
        """
        units = self._units(features)
        nearest = functional.interpolate(masks[:, None].float(), units.shape[-2:], mode="nearest")
        return separate(Support(units, nearest[:, 0].to(masks.dtype)), len(masks))

    def prepare_query(self, features: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Embed N queries: features of unit length, float32 (1, C, h, w)."""
        units = self._units(features)
        return separate(units, len(units))

    def embed_support(self, support: Sequence[Sequence[Support]]) -> list[Support]:
        """Join the K supports of each of B episodes."""
        return [together(shots) for shots in support]

    def segment(self, query: Sequence[Tensor], support: Sequence[Support]) -> Tensor:
        """Fit a classifier to each episode and segment its query, one episode after the other.

        Args:
            query: B values of `prepare_query`.
            support: result of `embed_support`.

        Returns:
            Float32 (B, size, size).
        """
        with torch.autocast(query[0].device.type, enabled=False):
            return torch.cat([self._logits(*pair) for pair in zip(query, support, strict=True)])

    def _logits(self, query: Tensor, support: Support) -> Tensor:
        classifier = Classifier(support.features, support.labels, query[0], self.config)
        classifier.fit()
        with torch.no_grad():
            scores = classifier.logits(classifier.query)
            return resize(scores[None], (self.size, self.size))[0] - classifier.bias

    def joined(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the requested layers as one map, (N, C, h, w), which the head takes."""
        first = features[self.layers[0]]
        each = [resize(features[name], first.shape[-2:]) for name in self.layers]
        return torch.cat(each, 1) if len(each) > 1 else first

    def _units(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the features that are classified, of unit length, float32 (N, C, h, w)."""
        maps = self.joined(features)
        if self.head is not None:
            maps = self.head.embed(maps).relu()
        return functional.normalize(maps.detach().float(), dim=1)
