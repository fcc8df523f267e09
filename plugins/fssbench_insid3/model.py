"""INSID3, in-context segmentation with one frozen encoder.

Cuttano, Trivigno, Reich, Cremers, Masone, Roth: "INSID3: Training-Free In-Context Segmentation with
DINOv3", CVPR 2026. The steps are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from fssbench import BackboneInfo, Encoder, EpisodeImages, FssbenchError, ImageMatcher
from fssbench_insid3.aggregation import cluster_scores, mask_at_size
from fssbench_insid3.candidates import candidates, mask_on_grid, reference_prototype, votes
from fssbench_insid3.clusters import clusters
from fssbench_insid3.config import Insid3Config
from fssbench_insid3.debias import debias, positional_basis

_SIZE, _STRIDE, _COMPONENTS = 1024, 16, 500  # with DINOv3


class Insid3(ImageMatcher):
    """Matching in features without their positional part, on clusters of the features themselves.

    Args:
        config: options.
        encoders: the encoder ``features``; its deepest layer is used, after the final norm.

    Raises:
        FssbenchError: the encoder has no layers, or too few channels or positions for
            ``svd_components``.
    """

    config: Insid3Config

    def __init__(self, *, config: Insid3Config, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(config=config, encoders=encoders)
        self.encoder = encoders["features"]
        info = self.encoder.info
        layer = info.layers[info.last_layer]
        self.layer = f"{info.last_layer}:norm" if layer.norm else info.last_layer
        self.size = config.image_size or default_size(info)
        positions = (self.size // layer.stride) ** 2
        most = min(layer.channels, positions)
        given = config.svd_components
        self.components = default_components(most) if given is None else given
        if most <= max(self.components, 1):  # 1 position has no clusters
            raise FssbenchError(
                f"insid3: svd_components={self.components} leaves nothing of {info.name}, which "
                f"has {layer.channels} channels and {positions} positions at {self.size} pixels; "
                f"give at most {most - 1}"
            )
        self._basis: Tensor | None = None

    def predict(self, episode: EpisodeImages) -> Tensor:
        """Segment the query of an episode.

        Returns:
            ``mask - 0.5``, float (H, W).
        """
        mask = self.maps(episode)["score of the cluster"] > self.config.merge_threshold
        return mask_at_size(mask, self.size, episode.query.shape[-2:]).float() - 0.5

    def maps(self, episode: EpisodeImages) -> Mapping[str, Tensor]:
        """Return similarity to the supports, candidates and scores at the features' resolution."""
        features = self._features(episode.query)
        basis = self._positional_basis(episode.query)
        query = debias(features, basis)
        references = torch.stack([debias(self._features(each), basis) for each in episode.images])
        grid = features.shape[-2:]
        masks = torch.stack([mask_on_grid(mask, self.size, grid) for mask in episode.masks])
        prototype = reference_prototype(references, masks)
        similarity = torch.einsum("chw,c->hw", query, prototype)
        found = candidates(similarity, votes(query, references, masks), len(masks))
        scores = torch.zeros_like(similarity)
        if found.any():
            labels = clusters(features, self.config.tau)
            scores = cluster_scores(labels, found, similarity, prototype, features, query)[labels]
        return {
            "similarity to the supports": similarity,
            "candidates": found.float(),
            "score of the cluster": scores,
        }

    def _features(self, image: Tensor) -> Tensor:
        """Return unit features of an image, (C, h, w)."""
        maps = self.encoder.features(image, [self.layer], size=self.size)
        return functional.normalize(maps[self.layer].float(), dim=0)

    def _positional_basis(self, image: Tensor) -> Tensor:
        """Return the basis of the encoder's positional subspace, on the device of an image."""
        if self._basis is None:
            black = image.new_zeros(3, self.size, self.size)
            self._basis = positional_basis(self._features(black), self.components)
        return self._basis.to(image.device)


def default_size(info: BackboneInfo) -> int:
    """Return 1024 pixels for an encoder of stride 16 that takes them, or the encoder's own side."""
    fits = info.layers[info.last_layer].stride == _STRIDE and _SIZE % info.multiple == 0
    return _SIZE if fits else info.image_size


def default_components(most: int) -> int:
    """Return 500, or half of the channels or positions on a small encoder.

    Args:
        most: number of channels or of positions, whichever is smaller.
    """
    return _COMPONENTS if most > _COMPONENTS else most // 2
