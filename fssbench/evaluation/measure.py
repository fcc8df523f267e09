"""The evaluation loop: from loaded chunks to rows, without any sampling."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas
import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.data.geometry import stack_padded
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError, lacks_memory
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.inference.feature_cache import FeatureCache, OpenChunk
from fssbench.inference.image_chunks import ImageChunks, OpenImageChunk
from fssbench.inference.pipeline import NOT_FINITE
from fssbench.metrics.metric import Metric
from fssbench.runtime.device import to_host

OUT_OF_MEMORY = (
    "out of memory; run the same command again with a lower --cache-memory or fewer --workers to "
    "resume, or start another run with a lower --batch-size or --precision bf16"
)


def measure_chunks(
    loaded: Iterable[Any],
    device: torch.device,
    cache: FeatureCache | ImageChunks,
    metrics: Sequence[Metric],
    *,
    batch_size: int,
) -> Iterator[ChunkResult]:
    """Measure loaded chunks in order.

    A batch never crosses the border of a chunk, so the rows of a chunk do not depend on the chunks
    before it.

    Args:
        loaded: chunks, as the cache loads them.
        device: device of the matcher.
        cache: feature cache.
        metrics: metrics to measure.
        batch_size: episodes that are segmented at once.

    Yields:
        The result of each chunk.

    Raises:
        FssbenchError: the matcher broke its contract; the message names the episode.
    """
    before = time.perf_counter()
    for data in loaded:
        opened: OpenChunk | OpenImageChunk = cache.open(data)
        episodes = data.task.episodes
        columns: list[Mapping[str, Tensor]] = []
        predictions: list[Tensor] = []
        sound: list[Tensor] = []
        for start in range(0, len(episodes), batch_size):
            batch = slice(start, start + batch_size)
            targets = [t.to(device, non_blocking=True) for t in data.targets[batch]]
            sizes = [(target.shape[0], target.shape[1]) for target in targets]
            logits, fine = _logits(opened, range(*batch.indices(len(episodes))), sizes)
            sound.append(fine)
            masks = [each > 0 for each in logits]
            columns.append(measure_masks(metrics, masks, targets))
            predictions += masks
        table = concatenated(columns)
        good, *found = to_host([torch.cat(sound), *table.values(), *predictions])
        for episode, fine in zip(episodes, good.tolist(), strict=True):
            if not fine:
                raise _named([episode], NOT_FINITE)
        rows = table_of(episodes, dict(zip(table, found, strict=False)))
        now = time.perf_counter()
        yield ChunkResult(
            chunk=data.task.chunk,
            episodes=episodes,
            rows=rows,
            predictions=found[len(table) :],
            seconds=now - before,
        )
        before = now


def _logits(
    opened: OpenChunk | OpenImageChunk, batch: range, sizes: Sequence[tuple[int, int]]
) -> tuple[list[Tensor], Tensor]:
    try:
        return opened.logits(batch, sizes)
    except (FssbenchError, MemoryError, RuntimeError) as error:
        known = isinstance(error, FssbenchError)
        if not known and not lacks_memory(error):
            raise
        episodes = opened.episodes[batch.start : batch.stop]
        raise _named(episodes, str(error) if known else OUT_OF_MEMORY) from error


def _named(episodes: Sequence[Episode], what: str) -> FssbenchError:
    first, last = episodes[0].index, episodes[-1].index
    which = f"episode {first}" if len(episodes) == 1 else f"episodes {first} to {last}"
    return FssbenchError(
        f"{which} (class {episodes[0].class_id}, query {episodes[0].query}): {what}"
    )


def measure_masks(
    metrics: Sequence[Metric], masks: list[Tensor], targets: list[Tensor]
) -> dict[str, Tensor]:
    """Return the metric columns (B,) of B masks, bool (H, W), against targets, uint8 (H, W)."""
    target = stack_padded(targets, IGNORE)
    prediction = stack_padded(masks, 0)
    columns: dict[str, Tensor] = {}
    for metric in metrics:
        columns.update(metric.measure(prediction, target))
    return columns


def concatenated(columns: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the metric columns of all batches, (E,), from those of each batch."""
    return {name: torch.cat([batch[name] for batch in columns]) for name in columns[0]}


def table_of(episodes: Sequence[Episode], columns: Mapping[str, Tensor]) -> pandas.DataFrame:
    """Return the rows of E episodes from their metric columns (E,)."""
    table: dict[str, list[object]] = {
        "index": [e.index for e in episodes],
        "class_id": [e.class_id for e in episodes],
        "query": [e.query for e in episodes],
    }
    table.update((name, column.tolist()) for name, column in columns.items())
    return pandas.DataFrame(table)
