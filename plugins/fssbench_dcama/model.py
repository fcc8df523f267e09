"""Dense cross-query-and-support attention weighted mask aggregation (DCAMA).

Shi, Wei, Zhang, Lu, Ning, Chen, Ma, Zheng: "Dense Cross-Query-and-Support Attention Weighted Mask
Aggregation for Few-Shot Segmentation", ECCV 2022. Sections, tables and figures are the paper's;
those that start with S are the supplement's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn

from fssbench import BackboneInfo, FeatureRequest, FssbenchError, Matcher, Stage
from fssbench.nn import resize, together
from fssbench_dcama.ablations import background_off, budget, otsu
from fssbench_dcama.attention import MaskAggregation
from fssbench_dcama.cascade import cascade, integrate_blocks, prepare_blocks
from fssbench_dcama.config import DcamaConfig
from fssbench_dcama.ensemble import Ensemble, combine, guided_weights
from fssbench_dcama.layers import layers_at
from fssbench_dcama.mixer import Mixer
from fssbench_dcama.prepared import Guide, Query, Support, side_by_side
from fssbench_dcama.stages import Meta


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
        # Coarse to fine, as masks are handed on.
        self.strides = sorted(config.attention, reverse=True)

        # Layers of one scale share their attention; so they must be of one width (all are in the
        # paper's backbones; where they are not, each width has its own).
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
        """Every block of the scales in use, squashed to a square."""
        names = [name for stride in self.layers for name in self.layers[stride]]
        wanted = {n for s in self.strides for n in self.layers[s]} | set(self.skips)
        return FeatureRequest(layers=tuple(n for n in names if n in wanted), size=self.size)

    # --- support ---------------------------------------------------------------------------------

    def embed_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Support | Ensemble:
        """Project keys, resize masks, pool skip connections (section 3.3).

        Args:
            features: for each requested layer (B, K, C, h, w).
            masks: uint8 (B, K, H, W); 255 counts as background.
        """
        if self.config.shots == "one-pass" or masks.shape[1] == 1:
            return self._support(features, masks)
        each = [
            self._support({n: f[:, k : k + 1] for n, f in features.items()}, masks[:, k : k + 1])
            for k in range(masks.shape[1])
        ]
        return self._ensemble(each, features, masks)

    def prepare_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Support | Guide:
        """Keys, mask values and skip connections of one image.

        Args:
            features: for each requested layer (1, C, h, w).
            mask: uint8 (1, H, W).
        """
        support = self._support({n: maps[:, None] for n, maps in features.items()}, mask[:, None])
        return Guide(support, features, mask) if self.config.shots == "scl" else support

    def join_supports(self, prepared: Sequence[Sequence[Support | Guide]]) -> Support | Ensemble:
        """Keys of K images side by side, skip connections pooled and mixed.

        Args:
            prepared: B lists of K values of `prepare_support`.
        """
        guides = [[one for one in shots if isinstance(one, Guide)] for shots in prepared]
        plain = [
            [one.support if isinstance(one, Guide) else one for one in shots] for shots in prepared
        ]
        by_shot: list[Support] = [together(shot) for shot in zip(*plain, strict=True)]
        if self.config.shots == "one-pass" or len(by_shot) == 1:
            return self._with_mixed(side_by_side(by_shot))
        features: dict[str, Tensor] = {}
        masks = torch.empty(0)
        if guides[0]:
            features = {
                name: torch.stack([torch.cat([one.features[name] for one in k]) for k in guides])
                for name in guides[0][0].features
            }
            masks = torch.stack([torch.cat([one.mask for one in k]) for k in guides])
        return self._ensemble([self._with_mixed(one) for one in by_shot], features, masks)

    def _ensemble(
        self, each: Sequence[Support], features: Mapping[str, Tensor], masks: Tensor
    ) -> Ensemble:
        weights = None
        if self.config.shots == "scl":
            weights = guided_weights(self._segment, features, masks, each)
        return Ensemble(each, weights)

    def _support(self, features: Mapping[str, Tensor], masks: Tensor) -> Support:
        foreground = (masks == 1).float()  # (B, K, H, W)
        keys: dict[str, Tensor] = {}
        values: dict[int, Tensor] = {}
        for stride in self.strides:
            size = features[self.layers[stride][0]].shape[-2:]
            small = resize(foreground, size)  # (B, K, h, w)
            values[stride] = small.flatten(1)  # (B, K·h·w)
            chosen = None if self.config.pixels is None else budget(small, self.config.pixels)
            if chosen is not None:
                values[stride] = values[stride].gather(1, chosen)
            for name in self.layers[stride]:
                maps = features[name]
                if not self.config.background:
                    maps = background_off(maps, small)
                key = self._attention(stride, name).keys(maps)
                if chosen is not None:
                    _, heads, _, width = key.shape
                    key = key.gather(2, chosen[:, None, :, None].expand(-1, heads, -1, width))
                keys[name] = key
        skips = self.skips if self.config.support_skip else []
        return Support(keys, values, {name: features[name].amax(1) for name in skips})

    # --- query -----------------------------------------------------------------------------------

    def segment(self, query: Mapping[str, Tensor], support: Support | Ensemble) -> Tensor:
        """Logits of the queries.

        Args:
            query: for each requested layer (B, C, h, w).
            support: of `embed_support`.

        Returns:
            (B, size, size), foreground minus background; with the option ``output`` set to a scale,
            (B, h, w) of 1 and -1.
        """
        return self._matched(self._query(query), support)

    def prepare_query(self, features: Mapping[str, Tensor]) -> Query:
        """Project the query's pixels, mix its skip connections.

        Args:
            features: for each requested layer (1, C, h, w).
        """
        return self._query(features)

    def segment_prepared(self, queries: Sequence[Query], support: Support | Ensemble) -> Tensor:
        """As `segment`, of prepared queries."""
        return self._matched(together(queries), support)

    def _matched(self, query: Query, support: Support | Ensemble) -> Tensor:
        if isinstance(support, Ensemble):
            return combine(
                [self._match(query, one) for one in support.members],
                self.config.shots,
                support.weights,
            )
        return self._match(query, support)

    def _segment(self, query: Mapping[str, Tensor], support: Support) -> Tensor:
        return self._match(self._query(query), support)

    def _query(self, features: Mapping[str, Tensor]) -> Query:
        projected = {
            name: self._attention(stride, name).queries(features[name])
            for stride in self.strides
            for name in self.layers[stride]
        }
        mixed = None
        if self.config.output == "mask" and self.skips:
            mixed = self._mixed_skips(features, side=0)
        return Query(projected, {s: self._size(features, s) for s in self.strides}, mixed)

    def _size(self, features: Mapping[str, Tensor], stride: int) -> tuple[int, int]:
        height, width = features[self.layers[stride][0]].shape[-2:]
        return height, width

    def _match(self, query: Query, support: Support) -> Tensor:
        if self.config.output != "mask":
            stride = int(self.config.output[2:])
            return otsu(self._aggregate(stride, query, support).sum(1))
        masks = {stride: self._aggregate(stride, query, support) for stride in self.strides}
        mixed = self._mix(self._cascade(masks), query, support)  # (B, 2, H, W)
        return mixed[:, 1] - mixed[:, 0]

    def aggregated_masks(
        self, query: Mapping[str, Tensor], support: Support | Ensemble
    ) -> dict[int, Tensor]:
        """The intermediate query masks of figures 4 (b) and 6.

        Args:
            query: as in `segment`.
            support: of `embed_support`, with the option ``shots`` at ``one-pass``, or one shot.

        Returns:
            For each stride (8, 16, 32) the masks of its L layers, (B, L, h, w) in [0, 1].

        Raises:
            FssbenchError: the support is an ensemble.
        """
        if isinstance(support, Ensemble):
            raise FssbenchError("dcama: an ensemble has no common aggregated masks; use one-pass")
        prepared = self._query(query)
        return {s: self._aggregate(s, prepared, support) for s in sorted(self.strides)}

    def _aggregate(self, stride: int, query: Query, support: Support) -> Tensor:
        """Multi-layer DCAMA block: one mask for each layer, (B, L, h, w)."""
        values = support.values[stride]
        masks = [
            self._attention(stride, name).aggregate(
                query.projected[name], support.keys[name], values
            )
            for name in self.layers[stride]
        ]
        stacked = torch.stack(masks, 1)
        return stacked.view(*stacked.shape[:2], *query.sizes[stride])

    def _cascade(self, masks: Mapping[int, Tensor]) -> Tensor:
        return cascade(masks, prepare=self.prepare, integrate=self.integrate)

    def _mix(self, masks: Tensor, query: Query, support: Support) -> Tensor:
        mixed: Tensor = self.mixer(masks, query.mixed, self._with_mixed(support).mixed)
        return mixed

    def _with_mixed(self, support: Support) -> Support:
        """The support with its part of the mixer's first convolution."""
        if support.mixed is not None or not support.skips or self.config.output != "mask":
            return support
        return attrs.evolve(support, mixed=self._mixed_skips(support.skips, side=1))

    def _mixed_skips(self, maps: Mapping[str, Tensor], *, side: int) -> Tensor:
        return self.mixer.skipped(maps, side=side)

    # --- training --------------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        """One stage, on 1-shot episodes."""
        return (Meta(),)

    def _attention(self, stride: int, name: str) -> MaskAggregation:
        module = self.attention[_attention_name(stride, self.backbone.layer(name).channels)]
        assert isinstance(module, MaskAggregation)
        return module


def _attention_name(stride: int, channels: int) -> str:
    return f"{stride}-{channels}"
