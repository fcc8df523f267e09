"""Dense cross-query-and-support attention weighted mask aggregation (DCAMA).

Shi, Wei, Zhang, Lu, Ning, Chen, Ma, Zheng: "Dense Cross-Query-and-Support Attention Weighted Mask
Aggregation for Few-Shot Segmentation", ECCV 2022. Sections, tables and figures are the paper's;
those that start with S are the supplement's. The ablations are in `fssbench_dcama.ablations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from fssbench import BackboneInfo, FeatureRequest, FssbenchError, Matcher
from fssbench.nn import resize, together
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
                        pixels=(self.size // stride) ** 2,
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

    def embed_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Any:
        """Project keys, resize masks, pool skip connections (section 3.3).

        Args:
            features: for each requested layer (B, K, C, h, w).
            masks: uint8 (B, K, H, W); 255 counts as background.

        Returns:
            A `Support`.
        """
        foreground = (masks == 1).float()  # (B, K, H, W)
        keys: dict[str, Tensor] = {}
        values: dict[int, Tensor] = {}
        for stride in self.strides:
            small = resize(foreground, self._size(features, stride))  # (B, K, h, w)
            scale_keys, values[stride] = self._project(stride, features, small)
            keys.update(scale_keys)
        skips = self.skips if self.config.support_skip else []
        return Support(keys, values, {name: features[name].amax(1) for name in skips})

    def prepare_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Any:
        """Return the keys, mask values and skip connections of one image.

        Args:
            features: for each requested layer (1, C, h, w).
            mask: uint8 (1, H, W).
        """
        return Dcama.embed_support(
            self, {n: f[:, None] for n, f in features.items()}, mask[:, None]
        )

    def join_supports(self, prepared: Sequence[Sequence[Any]]) -> Any:
        """Concatenate the keys of K images; pool and mix their skip connections.

        Args:
            prepared: B lists of K values of `prepare_support`.
        """
        by_shot: list[Support] = [together(shot) for shot in zip(*prepared, strict=True)]
        return self._with_mixed(side_by_side(by_shot))

    def _project(
        self, stride: int, features: Mapping[str, Tensor], masks: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return one scale's keys by layer, and its mask values (B, K·h·w).

        Args:
            stride: stride of the scale.
            features: for each requested layer (B, K, C, h, w).
            masks: float (B, K, h, w) in [0, 1].
        """
        keys = {n: self._attention(stride, n).keys(features[n]) for n in self.layers[stride]}
        return keys, masks.flatten(1)

    # --- query -----------------------------------------------------------------------------------

    def segment(self, query: Mapping[str, Tensor], support: Any) -> Tensor:
        """Return the logits of the queries.

        Args:
            query: for each requested layer (B, C, h, w).
            support: result of `embed_support`.

        Returns:
            (B, size, size), foreground minus background.
        """
        return self._match(self.prepare_query(query), support)

    def prepare_query(self, features: Mapping[str, Tensor]) -> Query:
        """Project the query's pixels and mix its skip connections.

        Args:
            features: for each requested layer (B, C, h, w).
        """
        projected = {
            name: self._attention(stride, name).queries(features[name])
            for stride in self.strides
            for name in self.layers[stride]
        }
        sizes = {stride: self._size(features, stride) for stride in self.strides}
        return Query(projected, sizes, self._mixed_skips(features, side=0))

    def segment_prepared(self, queries: Sequence[Query], support: Any) -> Tensor:
        """Return the logits of prepared queries, as `segment` does."""
        return self._match(together(queries), support)

    def aggregated_masks(self, query: Mapping[str, Tensor], support: Any) -> dict[int, Tensor]:
        """Return the intermediate query masks of figures 4 (b) and 6.

        Args:
            query: for each requested layer (B, C, h, w).
            support: result of `embed_support`.

        Returns:
            For each stride (8, 16, 32) the masks of its L layers, (B, L, h, w) in [0, 1].
        """
        prepared = self.prepare_query(query)
        return {s: self._aggregate(s, prepared, support) for s in sorted(self.strides)}

    def _match(self, query: Query, support: Any) -> Tensor:
        """Aggregate masks at every scale, join the scales, mix in the skip connections."""
        masks = {stride: self._aggregate(stride, query, support) for stride in self.strides}
        mixed = self._join(masks, query, support)  # (B, 2, H, W)
        return mixed[:, 1] - mixed[:, 0]

    def _join(self, masks: Mapping[int, Tensor], query: Query, support: Support) -> Tensor:
        joined = cascade(masks, prepare=self.prepare, integrate=self.integrate)
        mixed: Tensor = self.mixer(joined, query.mixed, self._with_mixed(support).mixed)
        return mixed

    def _aggregate(self, stride: int, query: Query, support: Support) -> Tensor:
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

    def _with_mixed(self, support: Support) -> Support:
        """Return the support with its share of the mixer's first convolution."""
        if support.mixed is not None or not support.skips:
            return support
        return attrs.evolve(support, mixed=self._mixed_skips(support.skips, side=1))

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
