"""Hypercorrelation squeeze network (HSNet).

Min, Kang, Cho: "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021. Sections, tables
and equations are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fssbench import BackboneInfo, FeatureRequest, FssbenchError, Matcher
from fssbench.nn import correlation, relative_votes, resize, separate, together
from fssbench_hsnet.config import HsNetConfig
from fssbench_hsnet.pyramid import Pyramid

_SIZE = 400
_EPSILON = 1e-5  # as in the authors' code, added to the length of a feature vector

Levels = tuple[tuple[Tensor, ...], ...]
"""Features of unit length: for each scale, coarse to fine, those of its layers, (N, C, h, w)."""


class HsNet(Matcher):
    """The network of figure 2, on any backbone with layers at strides 8, 16 and 32.

    Args:
        config: options.
        backbone: names and shapes of the features.

    Raises:
        FssbenchError: the backbone lacks a scale.
    """

    config: HsNetConfig

    def __init__(self, *, config: HsNetConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        fitting = backbone.image_size if _SIZE % backbone.multiple else _SIZE
        self.size = config.size or fitting
        self.layers = {s: layers_at(backbone, s) for s in sorted(config.pyramid, reverse=True)}
        # VGG has no layer behind its last pooling, whose output the authors use.
        self.pooled = 32 in self.layers and not self.layers[32]
        if self.pooled:
            self.layers[32] = layers_at(backbone, 16)[-1:]
        for stride, names in self.layers.items():
            if not names:
                strides = sorted({layer.stride for layer in backbone.layers.values()})
                raise FssbenchError(
                    f"hsnet needs a layer of stride {stride}, and {backbone.name} has strides "
                    f"{', '.join(map(str, strides))}; choose resnet50, resnet101, vgg16 or another "
                    "backbone of these scales"
                )
        self.hpn_learner = Pyramid({stride: len(names) for stride, names in self.layers.items()})

    def request(self) -> FeatureRequest:
        """Request every block of the scales in use, on square images (aspect ratio not kept)."""
        names = [name for stride in sorted(self.layers) for name in self.layers[stride]]
        return FeatureRequest(layers=tuple(dict.fromkeys(names)), size=self.size)

    def prepare_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Sequence[Levels]:
        """Mask the features of N images (equation 1) and divide them by their lengths.

        Args:
            features: features by requested layer, (N, C, h, w).
            masks: uint8 (N, H, W); 255 counts as background.
        """
        foreground = (masks == 1).float().unsqueeze(1)  # (N, 1, H, W)
        return self._levels(features, foreground if self.config.support_mask else None)

    def embed_support(self, support: Sequence[Sequence[Levels]]) -> list[Levels]:
        """Return the features of each shot of B supports.

        Args:
            support: B lists of K values of `prepare_support`.
        """
        return [together(shot) for shot in zip(*support, strict=True)]

    def prepare_query(self, features: Mapping[str, Tensor]) -> Sequence[Levels]:
        """Divide the features of N queries by their lengths.

        Args:
            features: features by requested layer, (N, C, h, w).
        """
        return self._levels(features, None)

    def segment(self, query: Sequence[Levels], support: Any) -> Tensor:
        """Return the logits of the queries; those of K shots are relative votes (section 4.3).

        Args:
            query: B values of `prepare_query`.
            support: result of `embed_support`.

        Returns:
            (B, size, size), foreground minus background.
        """
        queries: Levels = together(query)
        logits = [self._match(queries, shot) for shot in support]
        return logits[0] if len(logits) == 1 else relative_votes(torch.stack(logits, 1))

    def _levels(self, features: Mapping[str, Tensor], masks: Tensor | None) -> list[Levels]:
        """Return features of unit length of N images, for each image.

        Args:
            features: features by requested layer, (N, C, h, w).
            masks: float (N, 1, H, W) to multiply them by, or None.
        """
        levels = {s: [features[name] for name in names] for s, names in self.layers.items()}
        if self.pooled:
            levels[32] = [functional.max_pool2d(levels[32][0].relu(), 2)]
        units = tuple(tuple(_unit(maps, masks) for maps in level) for level in levels.values())
        return separate(units, len(next(iter(features.values()))))

    def _match(self, query: Levels, support: Levels) -> Tensor:
        """Return the logits of 1-shot episodes, (B, size, size)."""
        volumes = {}
        for stride, *level in zip(self.layers, query, support, strict=True):
            pairs = zip(*level, strict=True)
            # Equation 2: cosines of all pairs of positions, without the negative ones.
            cosines = [correlation(q, s, normalise=False).relu_() for q, s in pairs]
            volumes[stride] = torch.stack(cosines, 1)  # (B, layers, hq, wq, hs, ws)
        logits = self.hpn_learner(volumes)  # (B, 2, h, w)
        return resize(logits[:, 1:] - logits[:, :1], (self.size, self.size))[:, 0]


def layers_at(backbone: BackboneInfo, stride: int) -> list[str]:
    """Return the names of a scale's block outputs, shallow to deep, before a final ReLU."""
    return [
        f"{name}:pre" if layer.relu else name
        for name, layer in backbone.layers.items()
        if layer.stride == stride
    ]


def _unit(maps: Tensor, masks: Tensor | None) -> Tensor:
    """Return feature vectors divided by their lengths.

    Args:
        maps: (N, C, h, w).
        masks: float (N, 1, H, W) to multiply them by, or None.
    """
    exact = maps.float()  # the mask's borders scale vectors down to lengths near the epsilon
    if masks is not None:
        exact = exact * resize(masks, maps.shape[-2:])
    return (exact / (exact.norm(dim=1, keepdim=True) + _EPSILON)).to(maps.dtype)
