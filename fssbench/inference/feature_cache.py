"""Cache of features and prepared queries and supports, so that an image is encoded once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fssbench.backbones.backbone import BackboneInfo
from fssbench.data.dataset import Dataset
from fssbench.episodes.episode import Episode
from fssbench.inference.chunk_loader import ChunkData, ChunkTask
from fssbench.inference.feature_files import FeatureFiles, pixels_key
from fssbench.inference.feature_uses import (
    ImageKey,
    SupportKey,
    encoded,
    image_key,
    query_key,
    set_key,
    support_key,
    uses_of,
)
from fssbench.inference.lookahead_cache import LookaheadCache
from fssbench.inference.pipeline import Features, Pipeline
from fssbench.matchers.matcher import FeatureRequest


class FeatureCache:
    """Cache of image features, prepared queries, prepared supports and joined supports.

    The state of the cache never changes a result: each value is computed from one image (or one
    support set) alone.

    Args:
        pipeline: matcher and backbone that compute the values.
        dataset: dataset of the images, for those that were not assigned to a loader process.
        budget: size limit in bytes; the values of the current episodes are not counted.
        files: features on disk, if these are cached too.
        batch_size: episodes that are segmented at once. Joined supports are cached for 1 only.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        dataset: Dataset,
        budget: int,
        *,
        files: FeatureFiles | None = None,
        batch_size: int = 1,
    ) -> None:
        self._pipeline = pipeline
        self._dataset = dataset
        self._files = files
        self._joined = batch_size == 1
        self.memory = LookaheadCache(budget)
        self._start_times: dict[int, int] = {}
        # Keys that the chunks being loaded will add to the cache, by chunk.
        self._scheduled: dict[int, set[object]] = {}

    def plan(
        self,
        chunks: Mapping[int, Sequence[Episode]],
        skip: Callable[[int], bool] = lambda chunk: False,
    ) -> Iterator[ChunkTask]:
        """Yield the loading task of each chunk, for chunks that run in this order from now on.

        Tasks are created lazily and omit the images that are cached at that time.

        Args:
            chunks: episodes by chunk number.
            skip: predicate that is true for chunks that are no longer needed, called just before
                a chunk's task is created.
        """
        every = [episode for episodes in chunks.values() for episode in episodes]
        self.memory.expect(uses_of(every, self._pipeline.request, joined=self._joined))
        self._start_times = {}
        self._scheduled = {}
        time = 0
        for chunk, episodes in chunks.items():
            self._start_times[chunk] = time
            time += len(episodes)
        return (
            self._task(chunk, episodes) for chunk, episodes in chunks.items() if not skip(chunk)
        )

    def open(self, data: ChunkData) -> OpenChunk:
        """Return a loaded chunk, ready to be segmented."""
        self._scheduled.pop(data.task.chunk, None)
        return OpenChunk(self, data)

    def _task(self, chunk: int, episodes: Sequence[Episode]) -> ChunkTask:
        scheduled: set[object] = set()
        images: dict[ImageKey, None] = {}

        def available(key: object) -> bool:
            found = key in self.memory or any(key in each for each in self._scheduled.values())
            found = found or key in scheduled
            scheduled.add(key)
            return found

        for episode in episodes:
            query = query_key(episode)
            if not available(query) and not available(image_key((episode.query, None))):
                images[episode.query, None] = None
            if self._joined and available(set_key(episode)):
                continue
            for support in episode.supports():
                key = encoded(support, self._pipeline.request)
                if not available(support_key(support)) and not available(image_key(key)):
                    images[key] = None
        self._scheduled[chunk] = scheduled
        return ChunkTask(chunk=chunk, episodes=tuple(episodes), images=tuple(images))


class OpenChunk:
    """A loaded chunk whose intermediate values are cached or computed on demand.

    Args:
        cache: cache of the intermediate values.
        data: loaded tensors.
    """

    def __init__(self, cache: FeatureCache, data: ChunkData) -> None:
        self._cache = cache
        self._pipeline = cache._pipeline
        self._data = data
        self.episodes = data.task.episodes
        self._first = cache._start_times.get(data.task.chunk, 0)
        self._loaded = {key: position for position, key in enumerate(data.task.images)}
        self._ahead: dict[ImageKey, Features] = {}

    def logits(self, batch: range) -> Tensor:
        """Return the logits of some of the chunk's episodes, float32 (B, h', w')."""
        episodes = [self.episodes[position] for position in batch]
        self._cache.memory.move_to(self._first + batch.start)
        if len(episodes) == 1:
            support = self._set(episodes[0], batch.start)
        else:
            support = self._pipeline.embed_support(
                [self._supports(e, position) for e, position in zip(episodes, batch, strict=True)]
            )
        queries = [self._query(episode) for episode in episodes]
        return self._pipeline.segment(queries, support)

    def _set(self, episode: Episode, position: int) -> Any:
        key = set_key(episode)
        found = self._cache.memory.get(key)
        if found is None:
            found = self._pipeline.embed_support([self._supports(episode, position)])
            if self._cache._joined:
                self._cache.memory.put(key, found)
        return found

    def _supports(self, episode: Episode, position: int) -> list[Any]:
        return [
            self._support(support, self._data.support_masks[position, shot])
            for shot, support in enumerate(episode.supports())
        ]

    def _support(self, support: SupportKey, mask: Tensor) -> Any:
        found = self._cache.memory.get(support_key(support))
        if found is None:
            features = self._features(encoded(support, self._pipeline.request))
            found = self._pipeline.prepare_support(features, mask)
            self._cache.memory.put(support_key(support), found)
        return found

    def _query(self, episode: Episode) -> Any:
        key = query_key(episode)
        found = self._cache.memory.get(key)
        if found is None:
            found = self._pipeline.prepare_query(self._features((episode.query, None)))
            self._cache.memory.put(key, found)
        return found

    def _features(self, key: ImageKey) -> Features:
        found: Features | None = self._cache.memory.get(image_key(key))
        if found is None:
            found = self._ahead.pop(key, None) or self._encode(key)
            self._cache.memory.put(image_key(key), found)
        return found

    def _encode(self, key: ImageKey) -> Features:
        """Encode an image, together with further images of the chunk that fill up its batch."""
        files = self._cache._files
        image, keep = self._input(key)
        if files is not None:
            found = files.read(pixels_key(image, keep))
            if found is not None:
                return {n: maps.to(self._pipeline.device) for n, maps in found.items()}
        keys, images, keeps = [key], [image], [keep]
        for other in list(self._loaded):
            if len(keys) == self._pipeline.encode_batch:
                break
            if other != key and not self._is_encoded(other):
                image, keep = self._input(other)
                keys.append(other)
                images.append(image)
                keeps.append(keep)
        features = self._pipeline.encode(torch.stack(images), keeps)
        if files is not None:
            for image, keep, each in zip(images, keeps, features, strict=True):
                files.write(pixels_key(image, keep), each)
        self._ahead.update(zip(keys[1:], features[1:], strict=True))
        return features[0]

    def _is_encoded(self, key: ImageKey) -> bool:
        return key in self._ahead or image_key(key) in self._cache.memory

    def _input(self, key: ImageKey) -> tuple[Tensor, Tensor | None]:
        """Return the encoder's input, and the mask of its visible part or None."""
        position = self._loaded.pop(key, None)
        if position is not None:
            return self._data.images[position], self._data.keep[position]
        # The image was cached when the loading task was created, and has been evicted since.
        image_id, class_id = key
        geometry, dataset = self._pipeline.geometry, self._cache._dataset
        keep = None if class_id is None else geometry.mask(dataset.mask(image_id, class_id))
        return geometry.image(dataset.image(image_id)), keep


def feature_bytes(info: BackboneInfo, request: FeatureRequest, precision: str) -> int:
    """Return the size in bytes of one image's features."""
    values = 0
    for name in request.layers:
        layer = info.layer(name)
        values += layer.channels * math.ceil(request.size / layer.stride) ** 2
    return values * (2 if precision == "bf16" else 4)
