"""The loop: chunks of a manifest through a pipeline, to rows. It never samples."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas
import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.data.geometry import stack_padded
from fssbench.episodes.episode import Episode
from fssbench.episodes.loader import ChunkData
from fssbench.errors import FssbenchError
from fssbench.harness.features import FeatureCache, ImageKey, query_key, support_keys
from fssbench.harness.pipeline import Features, Pipeline
from fssbench.metrics.metric import Metric

CHUNK = 20
"""Episodes of a chunk: the unit of work, of the journal and of resuming."""


def chunks_of(episodes: Sequence[Episode]) -> dict[int, Sequence[Episode]]:
    """A manifest's episodes cut into chunks, by number."""
    return {
        start // CHUNK: episodes[start : start + CHUNK] for start in range(0, len(episodes), CHUNK)
    }


def measure_chunks(
    loaded: Iterable[ChunkData],
    pipeline: Pipeline,
    cache: FeatureCache,
    metrics: Sequence[Metric],
    *,
    batch_size: int,
) -> Iterator[tuple[ChunkData, pandas.DataFrame, list[Tensor], float]]:
    """Measure loaded chunks one after the other.

    A chunk's batches are made of its own episodes only, in manifest order, so its rows do not
    depend on what ran before it.

    Args:
        loaded: chunks, as the cache planned them.
        pipeline: matcher and backbone.
        cache: features.
        metrics: what to measure.
        batch_size: episodes that are segmented at once.

    Yields:
        The chunk, its rows, its predictions (bool (H, W), at the scored size), and the seconds that
        it took, loading included.

    Raises:
        FssbenchError: the matcher failed its contract; the message names the episode.
    """
    before = time.perf_counter()
    for data in loaded:
        features = cache.features(data)
        episodes = data.task.episodes
        columns: list[Mapping[str, Tensor]] = []
        predictions: list[Tensor] = []
        for start in range(0, len(episodes), batch_size):
            batch = slice(start, start + batch_size)
            logits = _logits(pipeline, features, episodes[batch], data.support_masks[batch])
            targets = [target.to(pipeline.device) for target in data.targets[batch]]
            masks = [
                pipeline.geometry.restore(each, *target.shape) > 0
                for each, target in zip(logits, targets, strict=True)
            ]
            columns.append(_measure(metrics, masks, targets))
            predictions += masks
        rows = _rows(episodes, columns)
        now = time.perf_counter()
        yield data, rows, predictions, now - before
        before = now


def _logits(
    pipeline: Pipeline,
    features: Mapping[ImageKey, Features],
    episodes: Sequence[Episode],
    masks: Tensor,
) -> Tensor:
    supports = [[features[k] for k in support_keys(e, pipeline.request)] for e in episodes]
    try:
        support = pipeline.embed_support(supports, masks)
        return pipeline.segment([features[query_key(e)] for e in episodes], support)
    except FssbenchError as error:
        first, last = episodes[0].index, episodes[-1].index
        which = f"episode {first}" if first == last else f"episodes {first} to {last}"
        raise FssbenchError(
            f"{which} (class {episodes[0].class_id}, query {episodes[0].query}): {error}"
        ) from error


def _measure(
    metrics: Sequence[Metric], masks: list[Tensor], targets: list[Tensor]
) -> dict[str, Tensor]:
    target = stack_padded(targets, IGNORE)
    prediction = stack_padded(masks, 0)
    columns: dict[str, Tensor] = {}
    for metric in metrics:
        columns.update(metric.measure(prediction, target))
    return columns


def _rows(episodes: Sequence[Episode], columns: list[Mapping[str, Tensor]]) -> pandas.DataFrame:
    table: dict[str, list[object]] = {
        "index": [e.index for e in episodes],
        "class_id": [e.class_id for e in episodes],
        "query": [e.query for e in episodes],
    }
    for name in columns[0]:
        table[name] = torch.cat([batch[name] for batch in columns]).cpu().tolist()
    return pandas.DataFrame(table)
