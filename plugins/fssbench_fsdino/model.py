"""FS-DINO: few-shot segmentation with DINOv2 and a small segmenter distilled from SAM.

Zhuo, Tang, Xue, Ding, Shen: "DINOv2-powered Few-Shot Semantic Segmentation: A Unified Framework via
Cross-Model Distillation and 4D Correlation Mining", arXiv 2504.15669, version 2. Sections, tables
and equations are that paper's. The authors have published no code; docstrings describe the
choices made where the paper gives no detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from fssbench import BackboneInfo, FeatureRequest
from fssbench.nn import correlation, cosine_map, masked_average, masks_at, separate, together
from fssbench_fsdino.config import FsDinoConfig
from fssbench_fsdino.prompts import CorrelationPrior, SemanticPrompt
from fssbench_fsdino.segmenter import Masks, Segmenter, as_prompt, enlarged


@attrs.frozen(kw_only=True, eq=False)
class Support:
    """Features of the annotated images.

    Attributes:
        prototypes: mean foreground features over all shots, float (B, C).
        prompts: sparse prompts, float (B, N, width).
        compared: last-layer features for the 4D correlation (of length 1 for cosines, weighted with
            the mask if the option ``support`` is ``foreground``), float (B, K, C, h, w); None
            without a 4D correlation.
    """

    prototypes: Tensor
    prompts: Tensor
    compared: Tensor | None


@attrs.frozen(kw_only=True, eq=False)
class Query:
    """The support-independent part of a query.

    Attributes:
        embedding: output of the adapter, float (B, width, h, w).
        features: last-layer features, float (B, C, h, w).
        compared: last-layer features for the 4D correlation; None without one.
    """

    embedding: Tensor
    features: Tensor
    compared: Tensor | None


class FsDino(Segmenter):
    """Bottleneck adapter, meta-visual prompt generator, and SAM's mask decoder (figure 3).

    Args:
        config: options.
        backbone: names and shapes of the features: a vision transformer of one scale.

    Raises:
        FssbenchError: the backbone is no such transformer, or the size does not suit it.
    """

    method = "fsdino"
    config: FsDinoConfig

    def __init__(self, *, config: FsDinoConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        info, width = backbone.layer(self.last), config.width
        self.semantic = (
            SemanticPrompt(info.channels, width=width) if config.prompts == "semantic" else None
        )
        self.correlation = None
        if config.correlation == "4d":
            grid = self.size // info.stride
            self.correlation = CorrelationPrior(
                grid, width=config.correlation_width, channels=config.correlation_channels
            )
        self.add_decoder()

    # --- supports and queries --------------------------------------------------------------------

    def request(self) -> FeatureRequest:
        """Request the adapter's layer and the last one, of images resized to a square."""
        return FeatureRequest(layers=(self.layer, self.last), size=self.size)

    def prepare_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Sequence[Support]:
        """Compute prototypes and prompts of N images.

        Args:
            features: feature maps of each requested layer, (N, C, h, w).
            masks: uint8 (N, H, W); 255 counts as background.

        Returns:
            N supports of one shot.
        """
        maps = features[self.last]
        shares = masks_at(masks, 1, *maps.shape[-2:])
        compared = self._compared(maps, shares)
        support = Support(
            prototypes=masked_average(maps, shares),
            prompts=self._prompts(maps, shares),
            compared=None if compared is None else compared.unsqueeze(1),
        )
        return separate(support, len(masks))

    def embed_support(self, support: Sequence[Sequence[Support]]) -> Support:
        """Average the prototypes and prompts of K images and concatenate their features.

        Args:
            support: B lists of K values of `prepare_support`.
        """
        shots: list[Support] = [together(shot) for shot in zip(*support, strict=True)]
        compared = [one.compared for one in shots if one.compared is not None]
        return Support(
            prototypes=torch.stack([one.prototypes for one in shots]).mean(0),
            prompts=torch.stack([one.prompts for one in shots]).mean(0),
            compared=torch.cat(compared, 1) if compared else None,
        )

    def prepare_query(self, features: Mapping[str, Tensor]) -> Sequence[Query]:
        """Compute the support-independent part of N queries.

        Args:
            features: feature maps of each requested layer, (N, C, h, w).
        """
        last = features[self.last]
        query = Query(
            embedding=self.adapter(features[self.layer]),
            features=last,
            compared=self._compared(last),
        )
        return separate(query, len(last))

    def masks(self, query: Query, support: Support) -> Masks:
        """Return prior and final masks of B queries."""
        similarity = cosine_map(query.features, support.prototypes)  # equation 2
        if self.correlation is None:
            return self.decoded(query, support, enlarged(similarity))
        prior = self.correlation(self._volumes(query, support), similarity)
        return self.decoded(query, support, as_prompt(prior, self.config.prior), prior)

    def _prompts(self, features: Tensor, shares: Tensor) -> Tensor:
        if self.semantic is not None:
            each: Tensor = self.semantic(features, shares)  # (N, width)
            return each.unsqueeze(1)
        return self.plain_prompts(len(features), features.device)

    def _compared(self, maps: Tensor, shares: Tensor | None = None) -> Tensor | None:
        """Normalise and mask features (…, C, h, w) for equation 3.

        Args:
            maps: features of queries or supports.
            shares: foreground share of each support position, (…, h, w); None for queries.
        """
        if self.correlation is None:
            return None
        if self.config.volume == "cosine":
            maps = functional.normalize(maps, dim=-3)
        if shares is not None and self.config.support == "foreground":
            maps = maps * shares.unsqueeze(-3).to(maps.dtype)
        return maps

    def _volumes(self, query: Query, support: Support) -> Tensor:
        """Return equation 3 for each shot, (B, K, h, w, h, w)."""
        assert query.compared is not None
        assert support.compared is not None
        shots = support.compared.shape[1]
        volumes = correlation(
            query.compared.repeat_interleave(shots, 0),
            support.compared.flatten(0, 1),
            normalise=False,
        )
        return volumes.view(-1, shots, *volumes.shape[1:])
