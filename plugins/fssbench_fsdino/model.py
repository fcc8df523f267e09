"""FS-DINO: few-shot segmentation with DINOv2 alone, and a small segmenter that SAM has taught.

Zhuo, Tang, Xue, Ding, Shen: "DINOv2-powered Few-Shot Semantic Segmentation: A Unified Framework via
Cross-Model Distillation and 4D Correlation Mining", arXiv 2504.15669, version 2. Sections, tables
and equations are that paper's. Its authors have published no code; where the paper is silent the
docstrings say what was chosen, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench import BackboneInfo, FeatureRequest, FssbenchError, Matcher, Stage
from fssbench.nn import correlation, cosine_map, masked_average, masks_at, together
from fssbench_fsdino.adapter import BottleneckAdapter, early_layer
from fssbench_fsdino.decoder import FourierPositions, MaskDecoder, MaskDownscaling
from fssbench_fsdino.prompts import CorrelationPrior, SemanticPrompt
from fssbench_fsdino.stages import stages


@attrs.frozen(kw_only=True)
class FsDinoConfig:
    """Options of `FsDino`; the defaults are the paper's full model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (518 for DINOv2).
        layer: backbone layer that the adapter reads; "" for the 3rd block of DINOv2-B, the 2nd of
            S, the 4th of L, and a quarter of the depth of others.
        prompts: sparse prompts (table 4): ``semantic`` (semantic-aware visual prompts), ``initial``
            (SAM's embedding that stands for no point, one learned token) or ``none`` (SAM's sparse
            prompt when nobody gives one: empty). The paper's "initial sparse prompt embedding" can
            be read as either of the last two.
        correlation: dense prompts (table 4): ``4d``, or ``prototype`` (the similarity map alone;
            with ``prompts=semantic`` that is the compact version).
        volume: entries of the 4D correlation: ``cosine``, or ``dot``, equation 3 to the letter. The
            later version (UINO-FSS, equation 5) has cosines, which also keep it in one scale with
            the similarity map that is added to it.
        support: places of the support that the 4D correlation sees: ``foreground`` (the background
            is zero, as in HSNet and UINO-FSS), or ``all``, equation 3 to the letter.
        prior: what of the prior mask goes into SAM's mask downscaling: ``logits``, what SAM itself
            is given, or ``probability`` (a sigmoid first, as in UINO-FSS).
        adapter: whether the stage ``meta`` trains the adapter: ``frozen``, the paper's, or
            ``trained``, for backbones without a SAM to learn from.
        teacher: backbone whose last layer distillation teaches the adapter: ``sam-vit-h`` (the
            paper's), ``sam-vit-l``, ``sam-vit-b`` or any other that gives `width` channels.
        width: channels of SAM's embedding, of prompts and of the decoder; SAM's checkpoints need
            256.
        adapter_width: channels of the adapter's first convolutions.
        adapter_inner: channels of the adapter's self-attention.
        correlation_width: channels of the 4D branch after its first convolution.
        correlation_channels: channels of the 4D branch while its map grows; three numbers.
    """

    size: int | None = None
    layer: str = ""
    prompts: Literal["semantic", "initial", "none"] = "semantic"
    correlation: Literal["4d", "prototype"] = "4d"
    volume: Literal["cosine", "dot"] = "cosine"
    support: Literal["foreground", "all"] = "foreground"
    prior: Literal["logits", "probability"] = "logits"
    adapter: Literal["frozen", "trained"] = "frozen"
    teacher: str = "sam-vit-h"
    width: int = 256
    adapter_width: int = 256
    adapter_inner: int = 128
    correlation_width: int = 512
    correlation_channels: tuple[int, ...] = (256, 128, 64)

    def __attrs_post_init__(self) -> None:
        for name in ("width", "adapter_width", "adapter_inner", "correlation_width"):
            value = getattr(self, name)
            if value < 16 or value % 16:
                raise ValueError(f"{name} must be a multiple of 16, not {value}")
        if len(self.correlation_channels) != 3 or min(self.correlation_channels) < 1:
            raise ValueError("correlation_channels takes three numbers, e.g. 256,128,64")


@attrs.frozen(kw_only=True, eq=False)
class Support:
    """What the annotated images say.

    Attributes:
        prototypes: mean foreground feature, float (B, C); the mean over shots.
        prompts: sparse prompts, float (B, N, width).
        compared: last-layer features as the 4D correlation takes them (of length 1 for cosines,
            weighted with the mask where it counts), float (B, K, C, h, w); None when none is made.
    """

    prototypes: Tensor
    prompts: Tensor
    compared: Tensor | None


@attrs.frozen(kw_only=True, eq=False)
class Query:
    """What of a query does not depend on its support.

    Attributes:
        embedding: of the adapter, float (B, width, h, w).
        features: of the last layer, float (B, C, h, w).
        compared: the same as the 4D correlation takes them; None when none is made.
    """

    embedding: Tensor
    features: Tensor
    compared: Tensor | None


@attrs.frozen(kw_only=True, eq=False)
class Masks:
    """Logits of the queries.

    Attributes:
        prior: the prior mask of the 4D branch, float (B, 4 h, 4 w); None without that branch.
        final: what the decoder makes of it, float (B, 4 h, 4 w).
    """

    prior: Tensor | None
    final: Tensor


class FsDino(Matcher):
    """Bottleneck adapter, meta-visual prompt generator, and SAM's mask decoder (figure 3).

    Args:
        config: options.
        backbone: names and shapes of the features: a vision transformer of one scale.

    Raises:
        FssbenchError: the backbone is no such transformer, or the size does not suit it.
    """

    config: FsDinoConfig

    def __init__(self, *, config: FsDinoConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        self.layer = early_layer(backbone, config.layer)
        self.last = backbone.last_layer
        self.size = config.size or backbone.image_size
        info = backbone.layer(self.last)
        if self.size % info.stride:
            raise FssbenchError(
                f"fsdino: size={self.size} is no multiple of the patches of {backbone.name}; give "
                f"a multiple of {info.stride}"
            )
        width = config.width
        self.adapter = BottleneckAdapter(
            backbone.layer(self.layer).channels,
            width=config.adapter_width,
            inner=config.adapter_inner,
            out=width,
        )
        self.semantic = (
            SemanticPrompt(info.channels, width=width) if config.prompts == "semantic" else None
        )
        self.initial = nn.Embedding(1, width) if config.prompts == "initial" else None
        self.correlation = (
            CorrelationPrior(
                self.size // info.stride,
                width=config.correlation_width,
                channels=config.correlation_channels,
            )
            if config.correlation == "4d"
            else None
        )
        self.positions = FourierPositions(width)
        self.downscaling = MaskDownscaling(width)
        self.decoder = MaskDecoder(width)

    # --- supports and queries --------------------------------------------------------------------

    def request(self) -> FeatureRequest:
        """The adapter's layer and the last one; images squashed to a square."""
        return FeatureRequest(layers=(self.layer, self.last), size=self.size)

    def embed_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Support:
        """Prototypes and prompts of the supports.

        For K shots, prototypes and prompts are the means of the K supports' own.

        Args:
            features: for each requested layer (B, K, C, h, w).
            masks: uint8 (B, K, H, W); 255 counts as background.
        """
        maps = features[self.last]
        batch, shots, _, height, width = maps.shape
        flat = maps.flatten(0, 1)
        shares = masks_at(masks.flatten(0, 1), 1, height, width)
        prototypes = masked_average(flat, shares).view(batch, shots, -1).mean(1)
        return Support(
            prototypes=prototypes,
            prompts=self._prompts(flat, shares, batch),
            compared=self._compared(maps, shares.view(batch, shots, height, width)),
        )

    def prepare_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Support:
        """A support of one shot.

        Args:
            features: for each requested layer (1, C, h, w).
            mask: uint8 (1, H, W).
        """
        return self.embed_support({n: maps[:, None] for n, maps in features.items()}, mask[:, None])

    def join_supports(self, prepared: Sequence[Sequence[Support]]) -> Support:
        """Means of K images' prototypes and prompts; their features side by side.

        Args:
            prepared: B lists of K values of `prepare_support`.
        """
        shots: list[Support] = [together(shot) for shot in zip(*prepared, strict=True)]
        compared = [one.compared for one in shots if one.compared is not None]
        return Support(
            prototypes=torch.stack([one.prototypes for one in shots]).mean(0),
            prompts=torch.stack([one.prompts for one in shots]).mean(0),
            compared=torch.cat(compared, 1) if compared else None,
        )

    def segment(self, query: Mapping[str, Tensor], support: Support) -> Tensor:
        """Logits of the final masks, (B, 4 h, 4 w)."""
        return self.masks(query, support).final

    def prepare_query(self, features: Mapping[str, Tensor]) -> Query:
        """What the adapter makes of a query, and its last layer.

        Args:
            features: for each requested layer (1, C, h, w).
        """
        last = features[self.last]
        return Query(
            embedding=self.adapter(features[self.layer]),
            features=last,
            compared=self._compared(last),
        )

    def segment_prepared(self, queries: Sequence[Query], support: Support) -> Tensor:
        """As `segment`, of prepared queries."""
        return self._masks(together(queries), support).final

    def masks(self, query: Mapping[str, Tensor], support: Support) -> Masks:
        """Prior and final masks.

        Args:
            query: for each requested layer (B, C, h, w).
            support: of `embed_support`.
        """
        return self._masks(self.prepare_query(query), support)

    def _masks(self, query: Query, support: Support) -> Masks:
        similarity = cosine_map(query.features, support.prototypes)  # equation 2
        size = similarity.shape[-2:]
        prior = None
        if self.correlation is None:
            prompt = functional.interpolate(
                similarity[:, None], [4 * side for side in size], mode="bilinear",
                align_corners=False,
            )  # fmt: skip
        else:
            prior = self.correlation(self._volumes(query, support), similarity)
            prompt = prior[:, None]
            if self.config.prior == "probability":
                prompt = prompt.sigmoid()
        final = self.decoder(
            query.embedding, self.positions(*size), support.prompts, self.downscaling(prompt)
        )
        return Masks(prior=prior, final=final)

    def _prompts(self, features: Tensor, shares: Tensor, batch: int) -> Tensor:
        if self.semantic is not None:
            each: Tensor = self.semantic(features, shares)  # (B·K, width)
            return each.view(batch, -1, each.shape[-1]).mean(1, keepdim=True)
        if self.initial is not None:
            return self.initial.weight.expand(batch, 1, -1)
        return torch.zeros(batch, 0, self.config.width, device=features.device)

    def _compared(self, maps: Tensor, shares: Tensor | None = None) -> Tensor | None:
        """(…, C, h, w) as equation 3 takes it; (…, h, w) shares of foreground for supports."""
        if self.correlation is None:
            return None
        if self.config.volume == "cosine":
            maps = functional.normalize(maps, dim=-3)
        if shares is not None and self.config.support == "foreground":
            maps = maps * shares.unsqueeze(-3).to(maps.dtype)
        return maps

    def _volumes(self, query: Query, support: Support) -> Tensor:
        """Equation 3 for each shot: (B, K, h, w, h, w)."""
        assert query.compared is not None
        assert support.compared is not None
        shots = support.compared.shape[1]
        volumes = correlation(
            query.compared.repeat_interleave(shots, 0),
            support.compared.flatten(0, 1),
            normalise=False,
        )
        return volumes.view(-1, shots, *volumes.shape[1:])

    # --- training --------------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        """Three of distillation, coarse to fine, and one on episodes."""
        return stages(self)
