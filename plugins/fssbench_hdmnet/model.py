"""Hierarchically decoupled matching network with correlation map distillation (HDMNet).

Peng, Tian, Wu, Wang, Liu, Su, Jia: "Hierarchical Dense Correlation Distillation for Few-Shot
Segmentation", CVPR 2023. Sections, equations, tables and figures are the paper's. Where paper and
the authors' code differ the code is followed, for it made the published numbers; the modules' doc
strings name the differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor, nn

from fssbench import BackboneInfo, FeatureRequest, FssbenchError, Matcher, Stage
from fssbench.nn import together
from fssbench_hdmnet.base import BaseLearner
from fssbench_hdmnet.decoder import Decoder
from fssbench_hdmnet.distillation import Distillation
from fssbench_hdmnet.ensemble import Ensemble, gram
from fssbench_hdmnet.layers import choose_layers
from fssbench_hdmnet.maps import resize, resize_nearest
from fssbench_hdmnet.matching import Keys, Matching, MatchingModule, joined_keys
from fssbench_hdmnet.meta import Meta
from fssbench_hdmnet.priors import (
    directions,
    distinct_vectors,
    foreground_vectors,
    padded,
    prior_map,
)
from fssbench_hdmnet.pyramid import LEAST_SIDE, Pyramid
from fssbench_hdmnet.reduction import Merge, Reduction, prototypes
from fssbench_hdmnet.stages import Base

_CHANNELS = 64
_PRIORS = 2


@attrs.frozen(kw_only=True)
class HdmNetConfig:
    """Options of `HdmNet`; the defaults are the paper's final model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (473 for PSPNet's). The
            authors take 473 for PASCAL and 633 for COCO.
        base_classes: base classes of a fold, which the base learner tells apart: 15 on PASCAL-5i
            and shapes, 60 on COCO-20i.
        shots: K that the model is trained for. It matters to the ensemble's reweighting of shots
            alone; any number of supports is accepted.
        layers: backbone layers that take the places of a ResNet's ``layer2``, ``layer3`` (fused)
            and ``layer4`` (priors and base learner); empty for the last three stages.
        grid: stride of the map that is matched; None for the size of the second layer.
        stages: depth of the pyramid (table 7).
        matching: how weights are made of correlations (table 5).
        temperature: t of equation 4.
        distillation: what teaches correlation maps (table 6).
        distillation_temperature: T of equation 8 (table 9).
        ensemble: base learner and matching are merged (table 4, "Ens."); without it, the base
            learner makes one of the two priors and nothing else.
        support_mask: supports are masked; without it the matcher is not told which object is meant
            (appendix A.2).
        dropout: probability that a channel of the reduced features is dropped.
        attention_dropout: rate of dropout behind attention and in feed-forward layers.
    """

    size: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    base_classes: int = attrs.field(default=15, validator=attrs.validators.ge(1))
    shots: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    layers: tuple[str, ...] = ()
    grid: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    stages: Literal["S1", "S2", "S3", "S4"] = "S3"
    matching: Matching = "cosine-inverse-softmax"
    temperature: float = attrs.field(default=0.1, validator=attrs.validators.gt(0))
    distillation: Distillation = "kl-kd"
    distillation_temperature: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    ensemble: bool = True
    support_mask: bool = True
    dropout: float = attrs.field(
        default=0.5, validator=[attrs.validators.ge(0), attrs.validators.lt(1)]
    )

    attention_dropout: float = attrs.field(
        default=0.1, validator=[attrs.validators.ge(0), attrs.validators.lt(1)]
    )

    def __attrs_post_init__(self) -> None:
        if len(self.layers) not in (0, 3):
            raise ValueError("layers: name three, e.g. layer2,layer3,layer4, or none")


@attrs.frozen(eq=False)
class Support:
    """What a support set says.

    Attributes:
        keys: of each stage of the pyramid, fine to coarse; pixels of all K shots side by side.
        prototype: mean over shots, (B, 256).
        priors: foreground vectors that priors compare with, of each shot (B, S, C): of the base
            learner's embedding, and of the deepest layer.
        grams: channel cosines of each shot, (B, K, C, C); None without the ensemble.
    """

    keys: Sequence[Keys]
    prototype: Tensor
    priors: tuple[Sequence[Tensor], Sequence[Tensor]]
    grams: Tensor | None


@attrs.frozen(eq=False)
class Query:
    """What of a query does not depend on its support.

    Attributes:
        merged: the query's part of what goes into the pyramid, (B, h·w, 64).
        grid: h, w.
        directions: (B, C, h'·w') that priors compare with supports: of the base learner's
            embedding, and of the deepest layer.
        sizes: h', w' of both.
        base: logits of the base learner, (B, 1 + base classes, h', w'); None without the ensemble.
        gram: channel cosines, (B, C, C); None without the ensemble.
    """

    merged: Tensor
    grid: tuple[int, int]
    directions: tuple[Tensor, Tensor]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    base: Tensor | None
    gram: Tensor | None


@attrs.frozen(eq=False)
class Outputs:
    """All that the network finds in B queries, before it is brought to the input's size.

    Attributes:
        final: merged (B, 2, h, w), channel 1 is foreground; with the ensemble, no logits (see
            `fssbench_hdmnet.ensemble.Ensemble`), without it the same as `meta`.
        meta: logits of the matching alone, (B, 2, h, w).
        base: logits of the base learner, (B, 1 + base classes, h', w'); None without the ensemble.
        priors: (B, 2, h, w), in [0, 1]: from the base learner's embedding, and the deepest layer.
        correlations: maps C' of equation 7, fine to coarse, (B, h, w) each.
    """

    final: Tensor
    meta: Tensor
    base: Tensor | None
    priors: Tensor
    correlations: Sequence[Tensor]


class HdmNet(Matcher):
    """The network of figure 3, on any backbone with three layers.

    Args:
        config: options.
        backbone: names and shapes of the features.

    Raises:
        FssbenchError: the backbone lacks a layer, or its maps are too small.
    """

    config: HdmNetConfig

    def __init__(self, *, config: HdmNetConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        self.size = config.size or backbone.image_size
        self.middle, self.upper, self.deepest = config.layers or choose_layers(backbone)
        infos = [backbone.layer(name) for name in (self.middle, self.upper, self.deepest)]
        fused = infos[0].channels + infos[1].channels
        side = -(-self.size // (config.grid or infos[1].stride))
        if side < LEAST_SIDE:
            raise FssbenchError(
                f"hdmnet: layer {self.upper!r} of {backbone.name} gives {side} x {side} positions "
                f"of {self.size} pixels; at least {LEAST_SIDE} are needed: raise size, or lower "
                "grid"
            )
        stages = int(config.stages[1:])

        self.base = BaseLearner(infos[2].channels, config.base_classes + 1)
        self.reduce_query = Reduction(fused, dropout=config.dropout)
        self.reduce_support = Reduction(fused, dropout=config.dropout)
        self.merge_query = Merge(_CHANNELS, priors=_PRIORS)
        self.merge_support = Merge(_CHANNELS)
        self.pyramid = Pyramid(_CHANNELS, stages=stages, dropout=config.attention_dropout)
        self.matching = nn.ModuleList(
            MatchingModule(
                _CHANNELS,
                priors=_PRIORS,
                matching=config.matching,
                temperature=config.temperature,
                dropout=config.attention_dropout,
            )
            for _ in range(stages)
        )
        self.decoder = Decoder(_CHANNELS, stages=stages)
        self.ensemble = Ensemble(shots=config.shots) if config.ensemble else None
        # Not learned with the matching, and not counted: the stage `base` switches gradients on.
        self.base.requires_grad_(False)

    def request(self) -> FeatureRequest:
        """Three layers of images squashed to a square; supports masked before encoding."""
        return FeatureRequest(
            layers=(self.middle, self.upper, self.deepest),
            size=self.size,
            mask_support=self.config.support_mask,
        )

    # --- support ---------------------------------------------------------------------------------

    def embed_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Support:
        """Pool, project, build the pyramid (sections 3.2, 3.5).

        Masks are resized in two ways: bilinearly for the prototype, nearest for all else.

        Args:
            features: for each requested layer (B, K, C, h, w), of masked images.
            masks: uint8 (B, K, H, W); 255 counts as background.
        """
        foreground = (masks == 1).float()
        if not self.config.support_mask:
            foreground = torch.ones_like(foreground)
        batch, shots = masks.shape[:2]
        flat = {name: maps.flatten(0, 1) for name, maps in features.items()}
        middle, upper = self._on_grid(flat)
        reduced = self.reduce_support(torch.cat([upper, middle], 1))
        pooled = prototypes(reduced, foreground.flatten(0, 1))  # (B·K, 256)
        levels = self.pyramid(self.merge_support(reduced, pooled))
        keys = []
        for module, level in zip(self.matching, levels, strict=True):
            assert isinstance(module, MatchingModule)
            tokens = level.tokens.reshape(batch, -1, _CHANNELS)  # (B, K·h·w, C)
            keys.append(module.keys(tokens, resize_nearest(foreground, level.size).flatten(1)))
        embedding = self._embedding(flat)
        embedding = embedding.view(batch, shots, *embedding.shape[1:])
        grams = None
        if self.ensemble is not None:
            each = gram(middle)
            grams = each.view(batch, shots, *each.shape[1:])
        return Support(
            keys=keys,
            prototype=pooled.view(batch, shots, -1).mean(1),
            priors=(
                foreground_vectors(embedding, foreground).unbind(1),
                foreground_vectors(features[self.deepest], foreground).unbind(1),
            ),
            grams=grams,
        )

    def prepare_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Support:
        """A support of one shot, without the pixels that say nothing: those of the background.

        Args:
            features: for each requested layer (1, C, h, w), of the masked image.
            mask: uint8 (1, H, W).
        """
        whole = self.embed_support(
            {n: maps[:, None] for n, maps in features.items()}, mask[:, None]
        )
        return attrs.evolve(
            whole,
            keys=[keys.foreground_only() for keys in whole.keys],
            priors=(
                [distinct_vectors(shot) for shot in whole.priors[0]],
                [distinct_vectors(shot) for shot in whole.priors[1]],
            ),
        )

    def join_supports(self, prepared: Sequence[Sequence[Support]]) -> Support:
        """Images of B episodes side by side.

        Args:
            prepared: B lists of K values of `prepare_support`.
        """
        grams = None
        if self.ensemble is not None:
            every = [[one.grams for one in shots if one.grams is not None] for shots in prepared]
            grams = torch.cat([torch.cat(shots, 1) for shots in every])
        return Support(
            keys=[
                joined_keys([[one.keys[stage] for one in shots] for shots in prepared])
                for stage in range(len(self.matching))
            ],
            prototype=torch.cat(
                [torch.stack([one.prototype for one in shots]).mean(0) for shots in prepared]
            ),
            priors=(self._joined_priors(prepared, 0), self._joined_priors(prepared, 1)),
            grams=grams,
        )

    @staticmethod
    def _joined_priors(prepared: Sequence[Sequence[Support]], which: int) -> list[Tensor]:
        by_shot = zip(*prepared, strict=True)
        return [padded([one.priors[which][0] for one in shot]) for shot in by_shot]

    # --- query -----------------------------------------------------------------------------------

    def segment(self, query: Mapping[str, Tensor], support: Support) -> Tensor:
        """Logits of the queries.

        Args:
            query: for each requested layer (B, C, h, w).
            support: of `embed_support`.

        Returns:
            (B, size, size), foreground minus background of the final output.
        """
        return self.margin(self.outputs(query, support).final, self.size)

    def prepare_query(self, features: Mapping[str, Tensor]) -> Query:
        """Reduce features, embed them for the base learner, find their directions.

        Args:
            features: for each requested layer (1, C, h, w).
        """
        middle, upper = self._on_grid(features)
        embedding = self._embedding(features)
        deepest = features[self.deepest]
        reduced = self.reduce_query(torch.cat([upper, middle], 1))
        ensemble = self.ensemble is not None
        base = None
        if ensemble:
            with torch.no_grad():
                base = self.base.classify(embedding)
        return Query(
            merged=self.merge_query.of_features(reduced),
            grid=_sides(upper),
            directions=(directions(embedding), directions(deepest)),
            sizes=(_sides(embedding), _sides(deepest)),
            base=base,
            gram=gram(middle) if ensemble else None,
        )

    def segment_prepared(self, queries: Sequence[Query], support: Support) -> Tensor:
        """As `segment`, of prepared queries."""
        return self.margin(self.matched(together(queries), support).final, self.size)

    def outputs(
        self, query: Mapping[str, Tensor], support: Support, *, left_out: Tensor | None = None
    ) -> Outputs:
        """All that the network finds; see `Outputs`.

        Args:
            query: as in `segment`.
            support: of `embed_support`.
            left_out: int64 (B,), a channel of the base learner that does not count: in training it
                is the episode's class, which is a base class.
        """
        return self.matched(self.prepare_query(query), support, left_out=left_out)

    def matched(self, query: Query, support: Support, *, left_out: Tensor | None = None) -> Outputs:
        """As `outputs`, of prepared queries."""
        priors = torch.cat(
            [
                resize(prior_map(found, vectors).view(-1, 1, *size), query.grid)
                for found, vectors, size in zip(
                    query.directions, support.priors, query.sizes, strict=True
                )
            ],
            1,
        )
        merged = self.merge_query.join(query.merged, support.prototype, priors, query.grid)
        levels = self.pyramid(merged)
        matched, correlations = [], []
        for module, level, keys in zip(self.matching, levels, support.keys, strict=True):
            results, correlation = module(
                level.tokens, level.size, keys, resize(priors, level.size)
            )
            matched.append(results)
            correlations.append(correlation)
        meta = self.decoder(matched)
        final = meta
        if self.ensemble is not None:
            assert support.grams is not None
            assert query.gram is not None
            assert query.base is not None
            with torch.no_grad():
                known = _any_base_class(resize(query.base, query.grid), left_out)
                difference = self.ensemble.difference(query.gram, support.grams)
            final = self.ensemble(meta.softmax(1), known, difference)
        return Outputs(final, meta, query.base, priors, correlations)

    @staticmethod
    def margin(outputs: Tensor, size: int) -> Tensor:
        """Foreground minus background at another size: (B, 2, h, w) to (B, size, size).

        Resizing is linear, so the difference may be resized instead of both.
        """
        return resize((outputs[:, 1:] - outputs[:, :1]).float(), (size, size))[:, 0]

    def maps(self, query: Mapping[str, Tensor], support: Support) -> dict[str, Tensor]:
        """Correlation maps of all stages, as in figures 7, 12 and 13: (B, h, w) by caption.

        Args:
            query: as in `segment`.
            support: of `embed_support`.
        """
        found = self.outputs(query, support).correlations
        return {f"correlation, stage {n}": each for n, each in enumerate(found, start=1)}

    def stages(self) -> tuple[Stage, ...]:
        """The base learner with its encoder first, then all else, on episodes."""
        return (Base(learner=self.base, layer=self.deepest), Meta())

    def _on_grid(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The two middle layers at one size: that of the second one, unless `grid` says another."""
        middle, upper = features[self.middle], features[self.upper]
        size: Sequence[int] = upper.shape[-2:]
        if self.config.grid is not None:
            stride = self.backbone.layer(self.upper).stride
            size = [max(LEAST_SIDE, side * stride // self.config.grid) for side in size]
        return resize(middle, size), resize(upper, size)

    def _embedding(self, features: Mapping[str, Tensor]) -> Tensor:
        """The base learner's, "layer 5" of the authors' code; not trained with the matcher."""
        with torch.no_grad():
            return self.base.embed(features[self.deepest])


def _sides(maps: Tensor) -> tuple[int, int]:
    height, width = maps.shape[-2:]
    return height, width


def _any_base_class(logits: Tensor, left_out: Tensor | None) -> Tensor:
    """Probability of all base classes together: (B, 1 + classes, h, w) to (B, 1, h, w)."""
    counted = torch.ones(logits.shape[:2], device=logits.device)
    counted[:, 0] = 0
    if left_out is not None:
        counted.scatter_(1, left_out.unsqueeze(1), 0)
    return torch.einsum("bnhw,bn->bhw", logits.float().softmax(1), counted).unsqueeze(1)
