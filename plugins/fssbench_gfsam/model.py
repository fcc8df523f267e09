"""GF-SAM: the query's points most similar to the supports, and SAM's masks of them.

Zhang, Gao, Jiao, Liu, Wei: "Bridge the Points: Graph-based Few-shot Segment Anything Semantically",
NeurIPS 2024. The modules' names are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fssbench import (
    Backbone,
    Encoder,
    EpisodeImages,
    FssbenchError,
    Geometry,
    ImageMatcher,
    PromptableSam,
)
from fssbench_gfsam.config import GfSamConfig
from fssbench_gfsam.graph import components, coverage
from fssbench_gfsam.growth import grow, growth_maps
from fssbench_gfsam.points import best_cells, pixels_of, point_prior
from fssbench_gfsam.selection import merge, select
from fssbench_gfsam.similarity import Similarity, similarity, units

_BATCH = 64  # points in one call of SAM's decoder, as in the authors' code


class GfSam(ImageMatcher):
    """The method without training, on any encoder of features and any promptable SAM.

    Args:
        config: options.
        encoders: a `Backbone` as ``features``, and a `PromptableSam` as ``masks``.

    Raises:
        FssbenchError: an encoder is of another kind, or does not take `feature_size`.
    """

    config: GfSamConfig

    def __init__(self, *, config: GfSamConfig, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(config=config, encoders=encoders)
        for role, kind, example in (
            ("features", Backbone, "a backbone, for instance dinov2-l"),
            ("masks", PromptableSam, "a promptable SAM, for instance promptable-sam-vit-h"),
        ):
            if not isinstance(encoders[role].module, kind):
                raise FssbenchError(
                    f"--encoder {role}={encoders[role].name}: gf-sam needs {example}"
                )
        backbone: Any = encoders["features"].module
        sam: Any = encoders["masks"].module
        self.square = Geometry(config.image_size or sam.side)
        self.input = Geometry(config.feature_size or backbone.info.image_size)
        if self.input.size % backbone.info.multiple:
            raise FssbenchError(
                f"-o feature_size={self.input.size}: {backbone.info.name} takes images whose sides "
                f"are multiples of {backbone.info.multiple}"
            )
        layers = backbone.layers
        # The authors' features are those before the final norm, where an encoder has one.
        with_norm = [name for name in layers if layers[name].norm]
        self.layer = (with_norm or list(layers))[-1]

    def predict(self, episode: EpisodeImages) -> Tensor:
        """Return the logits of the query, 0.5 in the mask and -0.5 outside, (H, W).

        The mask has the size of the square and is resized to the query's (bilinear).
        """
        query, found = self._similarity(episode)
        cells = best_cells(point_prior(found), self.config.points)
        side = self.square.size
        mask = torch.zeros(side, side, dtype=torch.bool, device=query.device)
        if len(cells):
            pixels = pixels_of(cells, len(found.positive_mean), side)
            masks = self._masks(episode.query, pixels)
            labels = components(coverage(masks, pixels))
            foreground, scores = grow(masks, labels, *growth_maps(found))
            selection = select(query, masks, labels, foreground, cells)
            mask = merge(masks, selection, scores)
        return self.square.restore(mask.float(), *episode.query.shape[1:]) - 0.5

    def maps(self, episode: EpisodeImages) -> Mapping[str, Tensor]:
        """Return the map that points are drawn from."""
        return {"prior of points": point_prior(self._similarity(episode)[1])}

    def _similarity(self, episode: EpisodeImages) -> tuple[Tensor, Similarity]:
        """Return the unit vectors of the query's cells, and their similarity to the supports."""
        query, *references = (self._cells(image) for image in (episode.query, *episode.images))
        masks = torch.stack([self.square.mask(mask) == 1 for mask in episode.masks])
        return query, similarity(query, torch.stack(references), masks)

    def _cells(self, image: Tensor) -> Tensor:
        """Return the unit vectors of the cells of an image, (T, C)."""
        purpose = ("gf-sam.cells", self.square.size, self.input.size)
        cells: Tensor = self.encoders["features"].cached(
            image, purpose, lambda image: units(self._features(image))
        )
        return cells

    def _features(self, image: Tensor) -> Tensor:
        """Return the features (C, h, w) of an image, which is resized to the square first."""
        backbone: Any = self.encoders["features"].module
        smaller = self.input.image(self._resized(image))
        features: Tensor = backbone(smaller[None], [self.layer])[self.layer][0]
        return features

    def _masks(self, image: Tensor, pixels: Tensor) -> Tensor:
        """Return SAM's masks of N points (x, y) of the square, bool (N, side, side)."""
        side, sam = self.square.size, self.encoders["masks"].module
        embedding = self.encoders["masks"].cached(
            image, ("gf-sam.embed", side), lambda image: sam.embed(self._resized(image)[None])[0]
        )
        found = [
            sam.predict(
                embedding, (side, side), points=batch.float(), labels=torch.ones_like(batch[..., 0])
            )
            for batch in pixels[:, None].split(_BATCH)
        ]
        return torch.cat([masks.logits[:, 0] > 0 for masks in found])

    def _resized(self, image: Tensor) -> Tensor:
        """Return an image as a square, float (3, side, side) in [0, 1]."""
        return self.square.image(image).float() / 255
