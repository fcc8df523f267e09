"""What was made of images, kept while it is needed again: once an image, not once an episode."""

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
from fssbench.inference.feature_files import FeatureFiles
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
    """Features of images, prepared queries, prepared supports, and joined supports.

    What is in it changes what must be computed, never what comes out: everything is made of one
    image (or one support set) alone, in the same way whenever it is made.

    Args:
        pipeline: what encodes and prepares.
        dataset: where images are, for those that no loader process was asked for.
        budget: bytes that are kept in memory; what an episode needs at a time comes on top.
        files: features on disk, if they are kept there, too.
        batch_size: episodes that are segmented at once. Joined supports are kept for 1 only.
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
        self.kept = LookaheadCache(budget)
        self._moments: dict[int, int] = {}
        # Made when the chunk that a loader works on comes; by chunk.
        self._promised: dict[int, set[object]] = {}

    def plan(
        self,
        chunks: Mapping[int, Sequence[Episode]],
        unwanted: Callable[[int], bool] = lambda chunk: False,
    ) -> Iterator[ChunkTask]:
        """What must be loaded for each chunk when the chunks run in this order from now on.

        A task is made when somebody asks for it, after what is kept at that time.

        Args:
            chunks: episodes by the chunk's number.
            unwanted: whether nobody needs a chunk any more, asked when its task is to be made.
        """
        every = [episode for episodes in chunks.values() for episode in episodes]
        self.kept.expect(uses_of(every, self._pipeline.request, joined=self._joined))
        self._moments = {}
        self._promised = {}
        passed = 0
        for chunk, episodes in chunks.items():
            self._moments[chunk] = passed
            passed += len(episodes)
        return (
            self._task(chunk, episodes) for chunk, episodes in chunks.items() if not unwanted(chunk)
        )

    def open(self, data: ChunkData) -> OpenChunk:
        """Start with a loaded chunk."""
        self._promised.pop(data.task.chunk, None)
        return OpenChunk(self, data)

    def _task(self, chunk: int, episodes: Sequence[Episode]) -> ChunkTask:
        promised: set[object] = set()
        images: dict[ImageKey, None] = {}

        def there(key: object) -> bool:
            known = key in self.kept or any(key in each for each in self._promised.values())
            known = known or key in promised
            promised.add(key)
            return known

        for episode in episodes:
            if not there(query_key(episode)) and not there(image_key((episode.query, None))):
                images[episode.query, None] = None
            if self._joined and there(set_key(episode)):
                continue
            for support in episode.supports():
                key = encoded(support, self._pipeline.request)
                if not there(support_key(support)) and not there(image_key(key)):
                    images[key] = None
        self._promised[chunk] = promised
        return ChunkTask(chunk=chunk, episodes=tuple(episodes), images=tuple(images))


class OpenChunk:
    """One loaded chunk: its episodes' parts, from the cache or made now.

    Args:
        cache: where parts are kept.
        data: what was loaded.
    """

    def __init__(self, cache: FeatureCache, data: ChunkData) -> None:
        self._cache = cache
        self._pipeline = cache._pipeline
        self._data = data
        self.episodes = data.task.episodes
        self._first = cache._moments.get(data.task.chunk, 0)
        self._loaded = {key: place for place, key in enumerate(data.task.images)}
        self._ahead: dict[ImageKey, Features] = {}

    def logits(self, batch: range) -> Tensor:
        """Logits of some of the chunk's episodes, float32 (B, h', w')."""
        kept = self._cache.kept
        episodes = [self.episodes[place] for place in batch]
        kept.move_to(self._first + batch.start)
        if len(episodes) == 1:
            support = self._set(episodes[0], batch.start)
        else:
            support = self._pipeline.join_supports(
                [self._supports(e, place) for e, place in zip(episodes, batch, strict=True)]
            )
        queries = [self._query(episode) for episode in episodes]
        return self._pipeline.segment_prepared(queries, support)

    def _set(self, episode: Episode, place: int) -> Any:
        key = set_key(episode)
        found = self._cache.kept.get(key)
        if found is None:
            found = self._pipeline.join_supports([self._supports(episode, place)])
            if self._cache._joined:
                self._cache.kept.put(key, found)
        return found

    def _supports(self, episode: Episode, place: int) -> list[Any]:
        return [
            self._support(support, self._data.support_masks[place, shot])
            for shot, support in enumerate(episode.supports())
        ]

    def _support(self, support: SupportKey, mask: Tensor) -> Any:
        found = self._cache.kept.get(support_key(support))
        if found is None:
            features = self._features(encoded(support, self._pipeline.request))
            found = self._pipeline.prepare_support(features, mask)
            self._cache.kept.put(support_key(support), found)
        return found

    def _query(self, episode: Episode) -> Any:
        key = query_key(episode)
        found = self._cache.kept.get(key)
        if found is None:
            found = self._pipeline.prepare_query(self._features((episode.query, None)))
            self._cache.kept.put(key, found)
        return found

    def _features(self, key: ImageKey) -> Features:
        found: Features | None = self._cache.kept.get(image_key(key))
        if found is None:
            found = self._ahead.pop(key, None) or self._encode(key)
            self._cache.kept.put(image_key(key), found)
        return found

    def _encode(self, key: ImageKey) -> Features:
        """Features of an image, and ahead of time of those that fill up its batch."""
        files = self._cache._files
        image, keep = self._input(key)
        if files is not None:
            found = files.read(image, keep)
            if found is not None:
                return {n: maps.to(self._pipeline.device) for n, maps in found.items()}
        keys, images, keeps = [key], [image], [keep]
        for other in list(self._loaded):
            if len(keys) == self._pipeline.encode_batch:
                break
            if other != key and not self._made(other):
                image, keep = self._input(other)
                keys.append(other)
                images.append(image)
                keeps.append(keep)
        features = self._pipeline.encode(torch.stack(images), keeps)
        if files is not None:
            for image, keep, each in zip(images, keeps, features, strict=True):
                files.write(image, keep, each)
        self._ahead.update(zip(keys[1:], features[1:], strict=True))
        return features[0]

    def _made(self, key: ImageKey) -> bool:
        return key in self._ahead or image_key(key) in self._cache.kept

    def _input(self, key: ImageKey) -> tuple[Tensor, Tensor | None]:
        """The encoder's input, and which part of it is not hidden."""
        place = self._loaded.pop(key, None)
        if place is not None:
            return self._data.images[place], self._data.keep[place]
        # It was in memory when the loader was told what to load, and is not any more.
        image_id, class_id = key
        geometry, dataset = self._pipeline.geometry, self._cache._dataset
        keep = None if class_id is None else geometry.mask(dataset.mask(image_id, class_id))
        return geometry.image(dataset.image(image_id)), keep


def feature_bytes(info: BackboneInfo, request: FeatureRequest, precision: str) -> int:
    """Bytes of one image's features."""
    values = 0
    for name in request.layers:
        layer = info.layer(name)
        values += layer.channels * math.ceil(request.size / layer.stride) ** 2
    return values * (2 if precision == "bf16" else 4)
