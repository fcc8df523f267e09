"""The evaluation that one would write down first, as the authors of methods do.

Batch 1; all images of an episode are loaded and encoded for that episode; nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fssbench.data.dataset import Dataset
from fssbench.episodes.episode import Episode
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.inference.pipeline import Features, Pipeline
from fssbench.metrics.iou import IoU

Logits = Callable[[Pipeline, Sequence[Features], Sequence[Features], Tensor], Tensor]
"""Of (pipeline, [query], supports, masks (1, K, S, S)): float (1, h, w)."""

EQUAL = 1e-4
"""Share of an image's pixels by which float32 rows may differ."""


def rows_of(result: ChunkResult) -> dict[int, dict[str, int]]:
    """The rows of a measured chunk by episode."""
    return {row["index"]: row for row in result.rows.to_dict("records")}


def apart(plain: Mapping[int, dict[str, int]], rows: Mapping[int, Mapping[str, int]]) -> float:
    """The largest difference of a count in rows of the same episodes, as a share of the image."""
    return max(
        abs(rows[index][name] - count) / (row["union_bg"] + row["intersection_fg"])
        for index, row in plain.items()
        for name, count in row.items()
    )


def two_halves(
    pipeline: Pipeline, query: Sequence[Features], supports: Sequence[Features], masks: Tensor
) -> Tensor:
    """Prepare, embed and segment one episode."""
    return pipeline.logits_of(query, pipeline.support_of(supports, masks[0]))


def plain_episode(
    pipeline: Pipeline, dataset: Dataset, episode: Episode, logits_of: Logits = two_halves
) -> dict[str, int]:
    """The columns of one episode's row."""
    geometry = pipeline.geometry
    masks = torch.stack([geometry.mask(dataset.mask(*key)) for key in episode.supports()])
    supports = []
    for (image_id, _), mask in zip(episode.supports(), masks, strict=True):
        keep = [mask] if pipeline.request.mask_support else None
        supports += pipeline.encode(geometry.image(dataset.image(image_id))[None], keep)
    query = pipeline.encode(geometry.image(dataset.image(episode.query))[None])
    logits = logits_of(pipeline, query, supports, masks[None])[0]
    target = dataset.mask(episode.query, episode.class_id)
    found = geometry.restore(logits, *target.shape) > 0
    columns = IoU().measure(found[None], target[None])
    return {name: int(column[0]) for name, column in columns.items()}
