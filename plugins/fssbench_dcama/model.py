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
    """

    keys: Mapping[str, Tensor]
    values: Mapping[int, Tensor]
    skips: Mapping[str, Tensor]


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
                _mixer_block(_WIDE + skipped, _WIDE, _MIDDLE, last_relu=True),
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
        if isinstance(support, Ensemble):
            return combine(
                [self._segment(query, one) for one in support.members],
                self.config.shots,
                support.weights,
            )
        return self._segment(query, support)

    def _segment(self, query: Mapping[str, Tensor], support: Support) -> Tensor:
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
        return {s: self._aggregate(s, query, support) for s in sorted(self.strides)}

    def _aggregate(self, stride: int, query: Mapping[str, Tensor], support: Support) -> Tensor:
        """Multi-layer DCAMA block: one mask for each layer, (B, L, h, w)."""
        values = support.values[stride]
        return torch.stack(
            [
                self._attention(stride, name)(query[name], support.keys[name], values)
                for name in self.layers[stride]
            ],
            1,
        )

    def _cascade(self, masks: Mapping[int, Tensor]) -> Tensor:
        """Hand masks on from 1/32 to 1/8: (B, 128, h, w) of the finest scale."""
        coarsest, *finer = self.strides
        joined: Tensor = self.prepare[str(coarsest)](masks[coarsest])
        for stride in finer:
            own = self.prepare[str(stride)](masks[stride])
            joined = self.integrate[str(stride)](own + _resize(joined, own.shape[-2:]))
        return joined

    def _mix(self, masks: Tensor, query: Mapping[str, Tensor], support: Support) -> Tensor:
        """Mask-feature mixer: (B, 2, size, size)."""
        side = self.size // _FINEST
        maps = [masks]
        for name in self.skips:  # coarse to fine
            maps.append(query[name])
            if self.config.support_skip:
                maps.append(support.skips[name])
        mixed = torch.cat([_resize(each, (side, side)) for each in maps], 1)
        for block, factor in zip(self.mixer, (2, 2, 1), strict=True):
            mixed = block(mixed)
            side *= factor
            mixed = _resize(mixed, (side, side))
        return mixed

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


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)
