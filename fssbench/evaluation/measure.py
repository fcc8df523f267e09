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
from fssbench.inference.label_maps import decided, one_way
from fssbench.inference.pipeline import NOT_FINITE
from fssbench.metrics.iou import IoU
from fssbench.metrics.metric import Metric
from fssbench.results.rows import confusion_columns
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
            masks = list(map(decided, logits))
            columns.append(measure_masks(metrics, masks, targets, len(episodes[0].targets)))
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
    classes = ", ".join(str(target.class_id) for target in episodes[0].targets)
    noun = "classes" if episodes[0].further else "class"
    return FssbenchError(f"{which} ({noun} {classes}, query {episodes[0].query}): {what}")


def measure_masks(
    metrics: Sequence[Metric], masks: list[Tensor], targets: list[Tensor], ways: int = 1
) -> dict[str, Tensor]:
    """Measure the predictions of B episodes.

    Args:
        metrics: metrics to measure.
        masks: predictions: bool (H, W), or label maps, uint8 (H, W), of several ways.
        targets: uint8 (H, W) of 0, 1 and 255; label maps of 0 to N and 255 for N ways.
        ways: number of ways N.

    Returns:
        Columns (B,), or (B * N,) with the ways of an episode after each other. Each way is measured
        against the rest, but ``intersection_bg`` and ``union_bg`` are those of the background of
        the label map, in all rows of the episode. Further columns of several ways, see
        `confusion_columns`, count the pixels of the way's class by predicted label.
    """
    target = stack_padded(targets, IGNORE)
    prediction = stack_padded(masks, 0)
    if ways == 1:
        return _measured(metrics, prediction, target)
    background = IoU().measure(prediction == 0, one_way(target, 0))
    tables = []
    for way in range(1, ways + 1):
        table = _measured(metrics, prediction == way, one_way(target, way))
        table |= {
            f"{part}_bg": background[f"{part}_fg"]
            for part in ("intersection", "union")
            if f"{part}_bg" in table
        }
        own = target == way
        counts = [((prediction == label) & own).count_nonzero((1, 2)) for label in range(ways + 1)]
        tables.append({**table, **dict(zip(confusion_columns(ways), counts, strict=True))})
    return {name: torch.stack([table[name] for table in tables], 1).flatten() for name in tables[0]}


def _measured(metrics: Sequence[Metric], prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    columns: dict[str, Tensor] = {}
    for metric in metrics:
        columns.update(metric.measure(prediction, target))
    return columns


def concatenated(columns: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the metric columns of all batches, (E,), from those of each batch."""
    return {name: torch.cat([batch[name] for batch in columns]) for name in columns[0]}


def table_of(episodes: Sequence[Episode], columns: Mapping[str, Tensor]) -> pandas.DataFrame:
    """Return the rows of E episodes from their metric columns: (E,), or (E * N,) for N ways."""
    ways = [(number, way) for e in episodes for number, way in enumerate(e.ways(), 1)]
    table: dict[str, list[object]] = {
        "index": [way.index for _, way in ways],
        **({"way": [number for number, _ in ways]} if len(ways) > len(episodes) else {}),
        **(
            {}
            if all(w.support for _, w in ways)
            else {"novel": [int(bool(w.support)) for _, w in ways]}
        ),
        "class_id": [way.class_id for _, way in ways],
        "query": [way.query for _, way in ways],
    }
    table.update((name, column.tolist()) for name, column in columns.items())
    return pandas.DataFrame(table)
