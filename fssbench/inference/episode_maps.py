"""Intermediate maps of single episodes, for pictures."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from fssbench.data.dataset import Dataset
from fssbench.episodes.annotations import support_mask
from fssbench.episodes.episode import Episode
from fssbench.inference.image_chunks import episode_images
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.inference.pipeline import Pipeline


@attrs.frozen(kw_only=True, eq=False)
class EpisodeMaps:
    """Computation of the intermediate maps that a matcher offers for an episode.

    Each episode is loaded and encoded anew: maps are drawn for few episodes, and no result of an
    evaluation depends on them.

    Attributes:
        dataset: dataset of the images.
        pipeline: matcher and its encoders.
    """

    dataset: Dataset
    pipeline: Pipeline | ImagePipeline

    def of(self, episode: Episode) -> dict[str, Tensor]:
        """Return float (H, W) maps at the size of the query, on the CPU, by caption."""
        pipeline, dataset = self.pipeline, self.dataset
        if isinstance(pipeline, ImagePipeline):
            images = episode_images(pipeline, dataset, episode)
            size = tuple(images.query.shape[-2:])
            return {
                caption: torch.nn.functional.interpolate(each[None, None], size, mode="bilinear")[
                    0, 0
                ].cpu()
                for caption, each in pipeline.maps(images).items()
            }
        geometry = pipeline.geometry
        shown = episode.supports()
        masks = torch.stack([geometry.mask(support_mask(dataset, *key)) for key in shown])
        squares = torch.stack([geometry.image(dataset.image(image)) for image, _ in shown])
        keep = list(masks) if pipeline.request.mask_support else None
        support = pipeline.support_of(pipeline.encode(squares, keep), masks)
        image = dataset.image(episode.query)
        query = [pipeline.prepare_query(pipeline.encode(geometry.image(image)[None])[0])]
        found = {}
        for caption, each in pipeline.maps(query, support).items():
            # At the size of the encoder's input it is known which part of a map is padding.
            whole = torch.nn.functional.interpolate(
                each[:1, None], (geometry.size, geometry.size), mode="bilinear", align_corners=True
            )
            found[caption] = geometry.restore(whole[0, 0], *image.shape[-2:]).cpu()
        return found
