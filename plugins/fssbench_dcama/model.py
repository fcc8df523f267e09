"""Dense cross-query-and-support attention weighted mask aggregation (DCAMA).

Shi, Wei, Zhang, Lu, Ning, Chen, Ma, Zheng: "Dense Cross-Query-and-Support Attention Weighted Mask
Aggregation for Few-Shot Segmentation", ECCV 2022. Sections, tables and figures are the paper's;
those that start with S are the supplement's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench import BackboneInfo, FeatureRequest, FssbenchError, Matcher, Stage
from fssbench.nn import together
from fssbench_dcama.attention import MaskAggregation
from fssbench_dcama.ensemble import Ensemble, combine, guided_weights
from fssbench_dcama.stages import Meta
from fssbench_dcama.support import background_off, budget, otsu

# Channels of the decoder; how many there are and their kernels are the authors', not the paper's.
_NARROW, _MIDDLE, _WIDE = 16, 64, 128
_KERNELS = {32: (3, 3, 3), 16: (5, 3, 3), 8: (5, 5, 3)}
_FINEST = 4  # the mixer starts at a quarter of the input


@attrs.frozen(kw_only=True)
class DcamaConfig:
    """Options of `Dcama`; the defaults are the paper's final model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (384 for ResNet and Swin-B).
        attention: strides of the scales whose layers aggregate masks (table S4).
        skip: strides of the scales whose last layer is given to the mixer (table S3).
        support_skip: the mixer sees skip connections of the support, too (table S5, row a).
        background: background pixels of the support take part; without them, support features are
            multiplied with the mask before attention (table 3).
        pixels: support pixels of each shot and scale that take part, up to half of them from the
            foreground, evenly spread; None for all (table S5, row b).
        shots: how several shots are used (table 4): ``one-pass`` (all their pixels are keys at
            once), or ensembles of 1-shot predictions: ``voting``, ``averaging``, ``hsnet`` (votes
            divided by the largest vote) and ``scl`` (cross-guided averaging).
        output: ``mask``, or the aggregated masks of one scale, summed over its layers and binarised
            with Otsu's method (figure 6): ``1/8``, ``1/16`` or ``1/32``.
        heads: attention heads.
        dropout: in training, of features with positions and of attention weights.
        gain: what initial weights of the attention's projections are multiplied with; 1 as in the
            authors' code. Features of small norm need more (not in the paper): theirs is an
            attention that starts almost uniform, and a mixer that learns to do without it.
    """

    size: int | None = None
    attention: tuple[int, ...] = (8, 16, 32)
    skip: tuple[int, ...] = (4, 8)
    support_skip: bool = True
    background: bool = True
    pixels: int | None = None
    shots: Literal["one-pass", "voting", "averaging", "hsnet", "scl"] = "one-pass"
    output: Literal["mask", "1/8", "1/16", "1/32"] = "mask"
    heads: int = 8
    dropout: float = 0.5
    gain: float = 1.0

    def __attrs_post_init__(self) -> None:
        for name, strides, known in (
            ("attention", self.attention, (8, 16, 32)),
            ("skip", self.skip, (4, 8, 16)),
        ):
            if set(strides) - set(known) or len(set(strides)) < len(strides):
                raise ValueError(f"{name}: give each of {', '.join(map(str, known))} at most once")
        if not self.attention:
            raise ValueError("attention: name at least one of 8, 16, 32")
        if self.output != "mask" and int(self.output[2:]) not in self.attention:
            raise ValueError(f"output {self.output}: attention has no such scale")
        if self.pixels is not None and self.pixels < 2:
            raise ValueError("pixels: at least 2, or none for all")
        if self.heads < 1 or not 0 <= self.dropout < 1:
            raise ValueError("heads must be at least 1, and dropout in [0, 1)")
        if not self.gain > 0:
            raise ValueError("gain must be above 0")


@attrs.frozen(eq=False)
class Support:
    """What a support set says.

    Attributes:
        keys: of S support pixels by layer, (B, heads, S, C / heads).
        values: their mask values by stride, (B, S).
        skips: support features for the mixer by layer, (B, C, h, w).
        mixed: what the mixer's first convolution makes of the skips, (B, 128, size / 4, size / 4);
            None where it is not made yet, or there is nothing to mix.
    """

    keys: Mapping[str, Tensor]
    values: Mapping[int, Tensor]
    skips: Mapping[str, Tensor]
    mixed: Tensor | None = None


@attrs.frozen(eq=False)
class Query:
    """What of a query does not depend on its support.

    Attributes:
        projected: of its pixels by layer, (B, heads, h·w, C / heads), scaled for `attend`.
        sizes: (h, w) by stride.
        mixed: what the mixer's first convolution makes of the skips, (B, 128, size / 4, size / 4);
            None where nothing is mixed.
    """

    projected: Mapping[str, Tensor]
    sizes: Mapping[int, tuple[int, int]]
    mixed: Tensor | None


@attrs.frozen(eq=False)
class Guide:
    """A support that is to guide the others, too (the ensemble ``scl``).

    Attributes:
        support: of one shot.
        features: for each requested layer (1, C, h, w).
        mask: uint8 (1, H, W).
    """

    support: Support
    features: Mapping[str, Tensor]
    mask: Tensor


class FirstMixerBlock(nn.Sequential):
    """Its first convolution is a sum: of masks, of the query's and of the support's features.

    Each part is made as often as its input is new.
    """

    def part(self, maps: Tensor, channels: Sequence[int]) -> Tensor:
        """The first convolution of some of its input channels, without the bias.

        Args:
            maps: (B, C, h, w).
            channels: C numbers of these among all input channels.

        Returns:
            (B, 128, h, w).
        """
        weight, padding = self._first.weight, self._first.padding
        return functional.conv2d(maps, weight[:, list(channels)], padding=padding)

    def forward(self, masks: Tensor, *parts: Tensor | None) -> Tensor:
        """The whole block.

        Args:
            masks: (B, 128, h, w), the first of the input channels.
            parts: of `part`, None for what is not there.

        Returns:
            (B, 64, h, w).
        """
        mixed = self.part(masks, range(masks.shape[1]))
        assert self._first.bias is not None
        mixed = mixed + self._first.bias.to(mixed.dtype).view(-1, 1, 1)
        for each in parts:
            if each is not None:
                mixed = mixed + each.to(mixed.dtype)
        for layer in list(self)[1:]:
            mixed = layer(mixed)
        return mixed

    @property
    def _first(self) -> nn.Conv2d:
        first = self[0]
        assert isinstance(first, nn.Conv2d)
        return first


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
        self.layers = {stride: _layers_at(backbone, stride) for stride in scales}
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

        # From the masks of all layers of a scale (L) to 128 channels, and joining two scales.
        self.prepare = nn.ModuleDict(
            {
                str(stride): _convolutions(
                    (len(self.layers[stride]), _NARROW, _MIDDLE, _WIDE), _KERNELS[stride]
                )
                for stride in self.strides
            }
        )
        self.integrate = nn.ModuleDict(
            {str(stride): _convolutions((_WIDE,) * 4, (3, 3, 3)) for stride in self.strides[1:]}
        )

        # The mask-feature mixer: three blocks of two convolutions, 384 / 4 to 384 / 2 to 384.
        sides = 2 if config.support_skip else 1
        skipped = sides * sum(backbone.layer(name).channels for name in self.skips)
        self.mixer = nn.ModuleList(
            [
                FirstMixerBlock(*_mixer_block(_WIDE + skipped, _WIDE, _MIDDLE, last_relu=True)),
                _mixer_block(_MIDDLE, _MIDDLE, _NARROW, last_relu=True),
                _mixer_block(_NARROW, _NARROW, 2, last_relu=False),
            ]
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
            return self._with_mixed(_side_by_side(by_shot))
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
            small = _resize(foreground, size)  # (B, K, h, w)
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
        """Hand masks on from 1/32 to 1/8: (B, 128, h, w) of the finest scale."""
        coarsest, *finer = self.strides
        joined: Tensor = self.prepare[str(coarsest)](masks[coarsest])
        for stride in finer:
            own = self.prepare[str(stride)](masks[stride])
            joined = self.integrate[str(stride)](own + _resize(joined, own.shape[-2:]))
        return joined

    def _mix(self, masks: Tensor, query: Query, support: Support) -> Tensor:
        """Mask-feature mixer: (B, 2, size, size)."""
        side = self.size // _FINEST
        masks = _resize(masks, (side, side))
        mixed: Tensor = self.mixer[0](masks, query.mixed, self._with_mixed(support).mixed)
        for block, factor in zip([*list(self.mixer)[1:], None], (2, 2, 1), strict=True):
            side *= factor
            mixed = _resize(mixed, (side, side))
            mixed = mixed if block is None else block(mixed)
        return mixed

    def _with_mixed(self, support: Support) -> Support:
        """The support with its part of the mixer's first convolution."""
        if support.mixed is not None or not support.skips or self.config.output != "mask":
            return support
        return attrs.evolve(support, mixed=self._mixed_skips(support.skips, side=1))

    def _mixed_skips(self, maps: Mapping[str, Tensor], *, side: int) -> Tensor:
        """The mixer's first convolution of one side's skip connections, without its bias.

        Args:
            maps: features by layer, (B, C, h, w).
            side: 0 for the query, 1 for the support.

        Returns:
            (B, 128, size / 4, size / 4).
        """
        size = (self.size // _FINEST,) * 2
        sides = 2 if self.config.support_skip else 1
        start = _WIDE
        channels: list[int] = []
        for name in self.skips:  # coarse to fine, query before support
            count = self.backbone.layer(name).channels
            channels += range(start + side * count, start + (side + 1) * count)
            start += sides * count
        first = self.mixer[0]
        assert isinstance(first, FirstMixerBlock)
        return first.part(
            torch.cat([_resize(maps[name], size) for name in self.skips], 1), channels
        )

    # --- training --------------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        """One stage, on 1-shot episodes."""
        return (Meta(),)

    def _attention(self, stride: int, name: str) -> MaskAggregation:
        module = self.attention[_attention_name(stride, self.backbone.layer(name).channels)]
        assert isinstance(module, MaskAggregation)
        return module


def _layers_at(backbone: BackboneInfo, stride: int) -> list[str]:
    """Every block's output at a scale, shallow to deep; before its last ReLU, if it ends in one."""
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


def _attention_name(stride: int, channels: int) -> str:
    return f"{stride}-{channels}"


def _convolutions(channels: Sequence[int], kernels: Sequence[int]) -> nn.Sequential:
    """Conv blocks: convolution, group norm, ReLU."""
    steps: list[nn.Module] = []
    for before, after, kernel in zip(channels, channels[1:], kernels, strict=False):
        steps += [
            nn.Conv2d(before, after, kernel, padding=kernel // 2),
            nn.GroupNorm(4, after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*steps)


def _mixer_block(before: int, middle: int, after: int, *, last_relu: bool) -> nn.Sequential:
    """Two convolutions, each with a ReLU unless logits come out."""
    steps = [
        nn.Conv2d(before, middle, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, after, 3, padding=1),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*steps if last_relu else steps[:-1])


def _side_by_side(shots: Sequence[Support]) -> Support:
    """K supports of one shot each as one support of K."""
    first = shots[0]
    if len(shots) == 1:
        return first
    return Support(
        {name: torch.cat([one.keys[name] for one in shots], 2) for name in first.keys},
        {stride: torch.cat([one.values[stride] for one in shots], 1) for stride in first.values},
        {name: torch.stack([one.skips[name] for one in shots]).amax(0) for name in first.skips},
    )


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)
