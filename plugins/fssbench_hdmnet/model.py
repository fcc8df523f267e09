"""Hierarchically decoupled matching network with correlation map distillation (HDMNet).

Peng, Tian, Wu, Wang, Liu, Su, Jia: "Hierarchical Dense Correlation Distillation for Few-Shot
Segmentation", CVPR 2023. Sections, equations, tables and figures are the paper's. Where paper and
the authors' code differ the code is followed, for it made the published numbers; the modules' doc
strings name the differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fssbench import BackboneInfo, FeatureRequest, FssbenchError, Matcher
from fssbench.nn import PspHead, resize, separate, together
from fssbench_hdmnet.base import any_base_class
from fssbench_hdmnet.config import HdmNetConfig
from fssbench_hdmnet.decoder import Decoder
from fssbench_hdmnet.ensemble import Ensemble, gram
from fssbench_hdmnet.layers import choose_layers
from fssbench_hdmnet.maps import resize_nearest, sides
from fssbench_hdmnet.matching import MatchingModule, joined_keys
from fssbench_hdmnet.prepared import Outputs, Query, Support
from fssbench_hdmnet.priors import directions, foreground_vectors, joined_vectors, prior_map
from fssbench_hdmnet.pyramid import LEAST_SIDE, Pyramid
from fssbench_hdmnet.reduction import Merge, Reduction, prototypes

_CHANNELS = 64
_PRIORS = 2


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

        self.base = PspHead(infos[2].channels, config.base_classes + 1)
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
        """Request three layers of images squashed to a square; supports masked before encoding."""
        return FeatureRequest(
            layers=(self.middle, self.upper, self.deepest),
            size=self.size,
            mask_support=self.config.support_mask,
        )

    # --- support ---------------------------------------------------------------------------------

    def prepare_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Sequence[Support]:
        """Pool, project, build the pyramid (sections 3.2, 3.5) of N images.

        Masks are resized in two ways: bilinearly for the prototype, nearest for all else. On a CPU,
        except in training, the background's pixels are dropped, which have no effect; a GPU would
        have to be waited for to count them.

        Args:
            features: features by requested layer, (N, C, h, w), of masked images.
            masks: uint8 (N, H, W); 255 counts as background.

        Returns:
            N supports of one shot.
        """
        foreground = (masks == 1).float().unsqueeze(1)  # (N, 1, H, W)
        if not self.config.support_mask:
            foreground = torch.ones_like(foreground)
        middle, upper = self._on_grid(features)
        reduced = self.reduce_support(torch.cat([upper, middle], 1))
        pooled = prototypes(reduced, foreground[:, 0])  # (N, 256)
        levels = self.pyramid(self.merge_support(reduced, pooled))
        keys = []
        for module, level in zip(self.matching, levels, strict=True):
            assert isinstance(module, MatchingModule)
            small = resize_nearest(foreground, level.size).flatten(1)
            keys.append(module.keys(level.tokens, small))
        first, second = (
            [foreground_vectors(maps.unsqueeze(1), foreground)[:, 0]]
            for maps in (self._embedding(features), features[self.deepest])
        )
        support = Support(
            keys=keys,
            prototype=pooled,
            priors=(first, second),
            grams=None if self.ensemble is None else gram(middle).unsqueeze(1),
        )
        each = separate(support, len(masks))
        if self.training or masks.device.type != "cpu":
            return each
        return [one.foreground_only() for one in each]

    def embed_support(self, support: Sequence[Sequence[Support]]) -> Support:
        """Concatenate the images of B episodes.

        Args:
            support: B lists of K values of `prepare_support`.
        """
        grams = None
        if self.ensemble is not None:
            every = [[one.grams for one in shots if one.grams is not None] for shots in support]
            grams = torch.cat([torch.cat(shots, 1) for shots in every])
        keys = [
            joined_keys([[one.keys[stage] for one in shots] for shots in support])
            for stage in range(len(self.matching))
        ]
        first, second = (
            joined_vectors([[one.priors[n][0] for one in shots] for shots in support])
            for n in (0, 1)
        )
        means = [torch.stack([one.prototype for one in shots]).mean(0) for shots in support]
        return Support(keys=keys, prototype=torch.cat(means), priors=(first, second), grams=grams)

    # --- query -----------------------------------------------------------------------------------

    def prepare_query(self, features: Mapping[str, Tensor]) -> Sequence[Query]:
        """Reduce features, embed them for the base learner, find their directions.

        Args:
            features: features by requested layer, (N, C, h, w).
        """
        middle, upper = self._on_grid(features)
        embedding = self._embedding(features)
        deepest = features[self.deepest]
        reduced = self.reduce_query(torch.cat([upper, middle], 1))
        ensemble = self.ensemble is not None
        with torch.no_grad():
            base = self.base.classify(embedding) if ensemble else None
        query = Query(
            merged=self.merge_query.of_features(reduced),
            grid=sides(upper),
            directions=(directions(embedding), directions(deepest)),
            sizes=(sides(embedding), sides(deepest)),
            base=base,
            gram=gram(middle) if ensemble else None,
        )
        return separate(query, len(deepest))

    def segment(self, query: Sequence[Query], support: Support) -> Tensor:
        """Return the logits of the queries.

        Args:
            query: B values of `prepare_query`.
            support: result of `embed_support`.

        Returns:
            (B, size, size), foreground minus background of the final output.
        """
        return self.margin(self.outputs(query, support).final, self.size)

    def base_logits(self, query: Sequence[Query]) -> Tensor:
        """Return the base learner's probabilities: each base class minus background.

        The ensemble's logits of novel classes are differences of probabilities too.

        Args:
            query: B values of `prepare_query`.

        Returns:
            (B, base classes, h', w').

        Raises:
            FssbenchError: the ensemble is switched off, so the base learner does not classify.
        """
        logits = together(query).base
        if logits is None:
            raise FssbenchError("hdmnet classifies base classes only with -o ensemble=true")
        probabilities = logits.float().softmax(1)
        return probabilities[:, 1:] - probabilities[:, :1]

    def outputs(
        self, queries: Sequence[Query], support: Support, *, left_out: Tensor | None = None
    ) -> Outputs:
        """Return all outputs of the network; see `Outputs`.

        Args:
            queries: B values of `prepare_query`.
            support: result of `embed_support`.
            left_out: int64 (B,), channel of the base learner to leave out: in training it
                is the episode's class, which is a base class.
        """
        query: Query = together(queries)
        priors = torch.cat(
            [
                resize(prior_map(directed, vectors).view(-1, 1, *size), query.grid)
                for directed, vectors, size in zip(
                    query.directions, support.priors, query.sizes, strict=True
                )
            ],
            1,
        )
        merged = self.merge_query.join(query.merged, support.prototype, priors, query.grid)
        levels = self.pyramid(merged)
        matched, correlations = [], []
        for module, level, keys in zip(self.matching, levels, support.keys, strict=True):
            found = module(level.tokens, level.size, keys, resize(priors, level.size))
            matched.append(found[0])
            correlations.append(found[1])
        meta = self.decoder(matched)
        final = meta
        if self.ensemble is not None:
            assert support.grams is not None
            assert query.gram is not None
            assert query.base is not None
            with torch.no_grad():
                known = any_base_class(resize(query.base, query.grid), left_out)
                difference = self.ensemble.difference(query.gram, support.grams)
            final = self.ensemble(meta.softmax(1), known, difference)
        return Outputs(final, meta, query.base, priors, correlations)

    @staticmethod
    def margin(outputs: Tensor, size: int) -> Tensor:
        """Return foreground minus background at another size: (B, 2, h, w) to (B, size, size).

        Resizing is linear, so the difference may be resized instead of both.
        """
        return resize((outputs[:, 1:] - outputs[:, :1]).float(), (size, size))[:, 0]

    def maps(self, query: Sequence[Query], support: Support) -> dict[str, Tensor]:
        """Return correlation maps of all stages, as in figures 7, 12 and 13: (B, h, w) by caption.

        Args:
            query: B values of `prepare_query`.
            support: result of `embed_support`.
        """
        found = self.outputs(query, support).correlations
        return {f"correlation, stage {n}": each for n, each in enumerate(found, start=1)}

    def _on_grid(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the two middle layers at one size: the second one's, unless `grid` is set."""
        middle, upper = features[self.middle], features[self.upper]
        size: Sequence[int] = upper.shape[-2:]
        if self.config.grid is not None:
            stride = self.backbone.layer(self.upper).stride
            size = [max(LEAST_SIDE, side * stride // self.config.grid) for side in size]
        return resize(middle, size), resize(upper, size)

    def _embedding(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the base learner's embedding: "layer 5" of the authors' code, not trained here."""
        with torch.no_grad():
            return self.base.embed(features[self.deepest])
