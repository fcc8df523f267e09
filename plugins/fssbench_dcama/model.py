"""Dense cross-query-and-support attention weighted mask aggregation (DCAMA).

Shi, Wei, Zhang, Lu, Ning, Chen, Ma, Zheng: "Dense Cross-Query-and-Support Attention Weighted Mask
Aggregation for Few-Shot Segmentation", ECCV 2022. Sections, tables and figures are the paper's;
those that start with S are the supplement's. The ablations are in `fssbench_dcama.ablations`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from fssbench import BackboneInfo, FeatureRequest, FssbenchError, Matcher
from fssbench.nn import resize, separate, together
from fssbench_dcama.attention import MaskAggregation
from fssbench_dcama.cascade import cascade, integrate_blocks, prepare_blocks
from fssbench_dcama.config import DcamaConfig
from fssbench_dcama.mixer import Mixer
from fssbench_dcama.prepared import Query, Support, side_by_side


class Dcama(Matcher):
    """The network of figure 2, on any backbone with layers at strides 4, 8, 16 and 32.

    Args:
        config: options.
        backbone: names and shapes of the features.

    Raises:
        FssbenchError: the backbone lacks a scale, or the heads do not divide a layer's channels.
    """

    config: DcamaConfig

    def __init__(self, *, config: DcamaConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        self.size = config.size or backbone.image_size
        scales = sorted({*config.attention, *config.skip})
        self.layers = {stride: layers_at(backbone, stride) for stride in scales}
        self.skips = [self.layers[s][-1] for s in sorted(config.skip, reverse=True)]
        self.strides = sorted(config.attention, reverse=True)  # coarse to fine, as in the cascade

        # Layers of one scale share their attention. This needs one width, as in the paper's
        # backbones; on others, each width of a scale has its own attention.
        self.attention = nn.ModuleDict()
        for stride in self.strides:
            for name in self.layers[stride]:
                channels = backbone.layer(name).channels
                if channels % config.heads:
                    raise FssbenchError(
                        f"dcama: {channels} channels of layer {name!r} of {backbone.name} cannot "
                        f"be divided among {config.heads} heads; choose another number of heads"
                    )
                if _attention_name(stride, channels) not in self.attention:
                    self.attention[_attention_name(stride, channels)] = MaskAggregation(
                        channels,
                        heads=config.heads,
                        pixels=math.ceil(self.size / stride) ** 2,
                        dropout=config.dropout,
                        gain=config.gain,
                    )

        self.prepare = prepare_blocks({stride: len(self.layers[stride]) for stride in self.strides})
        self.integrate = integrate_blocks(self.strides[1:])
        self.mixer = Mixer(
            {name: backbone.layer(name).channels for name in self.skips},
            sides=2 if config.support_skip else 1,
            size=self.size,
        )

    def request(self) -> FeatureRequest:
        """Request every block of the scales in use, on square images (aspect ratio not kept)."""
        names = [name for stride in self.layers for name in self.layers[stride]]
        wanted = {n for s in self.strides for n in self.layers[s]} | set(self.skips)
        return FeatureRequest(layers=tuple(n for n in names if n in wanted), size=self.size)

    # --- support ---------------------------------------------------------------------------------

    def prepare_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Sequence[Any]:
        """Project keys and resize masks of N images (section 3.3).

        Args:
            features: features by requested layer, (N, C, h, w).
            masks: uint8 (N, H, W); 255 counts as background.

        Returns:
            N values `Support` of one shot.
        """
        foreground = (masks == 1).float().unsqueeze(1)  # (N, 1, H, W)
        keys: dict[str, Tensor] = {}
        values: dict[int, Tensor] = {}
        for stride in self.strides:
            small = resize(foreground, self._size(features, stride))  # (N, 1, h, w)
            scale_keys, values[stride] = self._project(stride, features, small)
            keys.update(scale_keys)
        skips = self.skips if self.config.support_skip else []
        return separate(Support(keys, values, {n: features[n] for n in skips}), len(masks))

    def embed_support(self, support: Sequence[Sequence[Any]]) -> Any:
        """Concatenate the keys of K images; pool and mix their skip connections.

        Args:
            support: B lists of K values of `prepare_support`.
        """
        by_shot: list[Support] = [together(shot) for shot in zip(*support, strict=True)]
        joined = side_by_side(by_shot)
        if not joined.skips:
            return joined
        return attrs.evolve(joined, mixed=self._mixed_skips(joined.skips, side=1))

    def _project(
        self, stride: int, features: Mapping[str, Tensor], masks: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return one scale's keys by layer, and its mask values (N, h·w).

        Args:
            stride: stride of the scale.
            features: features by requested layer, (N, C, h, w).
            masks: float (N, 1, h, w) in [0, 1].
        """
        keys = {
            name: self._attention(stride, name).keys(features[name].unsqueeze(1))
            for name in self.layers[stride]
        }
        return keys, masks.flatten(1)

    # --- query -----------------------------------------------------------------------------------

    def prepare_query(self, features: Mapping[str, Tensor]) -> Sequence[Query]:
        """Project the pixels of N queries and mix their skip connections.

        Args:
            features: features by requested layer, (N, C, h, w).
        """
        projected = {
            name: self._attention(stride, name).queries(features[name])
            for stride in self.strides
            for name in self.layers[stride]
        }
        sizes = {stride: self._size(features, stride) for stride in self.strides}
        query = Query(projected, sizes, self._mixed_skips(features, side=0))
        return separate(query, len(features[self.layers[self.strides[0]][0]]))

    def segment(self, query: Sequence[Query], support: Any) -> Tensor:
        """Return the logits of the queries.

        Args:
            query: B values of `prepare_query`.
            support: result of `embed_support`.

        Returns:
            (B, size, size), foreground minus background.
        """
        return self._match(together(query), support)

    def maps(self, query: Sequence[Query], support: Any) -> dict[str, Tensor]:
        """Return the intermediate masks of figure 4 (b): (B, h, w) by caption, means over layers.

        Args:
            query: B values of `prepare_query`.
            support: result of `embed_support`.
        """
        joined = together(query)
        return {
            f"masks at 1/{stride}": self.aggregate(stride, joined, support).mean(1)
            for stride in sorted(self.strides)
        }

    def _match(self, query: Query, support: Any) -> Tensor:
        """Aggregate masks at every scale, join the scales, mix in the skip connections."""
        masks = {stride: self.aggregate(stride, query, support) for stride in self.strides}
        joined = cascade(masks, prepare=self.prepare, integrate=self.integrate)
        mixed: Tensor = self.mixer(joined, query.mixed, support.mixed)  # (B, 2, H, W)
        return mixed[:, 1] - mixed[:, 0]

    def aggregate(self, stride: int, query: Query, support: Support) -> Tensor:
        """Apply a multi-layer DCAMA block: one mask for each layer, (B, L, h, w)."""
        values = support.values[stride]
        masks = [
            self._attention(stride, name).aggregate(
                query.projected[name], support.keys[name], values
            )
            for name in self.layers[stride]
        ]
        stacked = torch.stack(masks, 1)
        return stacked.view(*stacked.shape[:2], *query.sizes[stride])

    def _mixed_skips(self, maps: Mapping[str, Tensor], *, side: int) -> Tensor | None:
        return self.mixer.skipped(maps, side=side) if self.skips else None

    def _size(self, features: Mapping[str, Tensor], stride: int) -> tuple[int, int]:
        height, width = features[self.layers[stride][0]].shape[-2:]
        return height, width

    def _attention(self, stride: int, name: str) -> MaskAggregation:
        module = self.attention[_attention_name(stride, self.backbone.layer(name).channels)]
        assert isinstance(module, MaskAggregation)
        return module


def _attention_name(stride: int, channels: int) -> str:
    return f"{stride}-{channels}"


def layers_at(backbone: BackboneInfo, stride: int) -> list[str]:
    """Return the names of a scale's block outputs, shallow to deep, before a final ReLU.

    Args:
        backbone: names and shapes of the features.
        stride: stride of the scale.

    Raises:
        FssbenchError: the backbone has no such scale.
    """
    names = [
        f"{name}:pre" if layer.relu else name
        for name, layer in backbone.layers.items()
        if layer.stride == stride
    ]
    if not names:
        strides = sorted({layer.stride for layer in backbone.layers.values()})
        raise FssbenchError(
            f"dcama needs a layer of stride {stride}, and {backbone.name} has strides "
            f"{', '.join(map(str, strides))}; choose resnet50, resnet101, swin-b or another "
            "backbone of four scales"
        )
    return names
