"""Cache of features and prepared queries and supports, so that an image is encoded once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fssbench.backbones.backbone import BackboneInfo
from fssbench.data.dataset import Dataset
from fssbench.episodes.annotations import support_mask
from fssbench.episodes.episode import Episode
from fssbench.inference.chunk_loader import ChunkData, ChunkTask, load_chunks
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
from fssbench.inference.pipeline import Features, Pipeline, finite
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
        every = itertools.chain.from_iterable(chunks.values())
        self.memory.expect(uses_of(every, self._pipeline.request, joined=self._joined))
        starts = itertools.accumulate(map(len, chunks.values()), initial=0)
        self._start_times = dict(zip(chunks, starts, strict=False))
        self._scheduled = {}
        return (self._task(chunk, some) for chunk, some in chunks.items() if not skip(chunk))

    def load(
        self,
        chunks: Mapping[int, Sequence[Episode]],
        skip: Callable[[int], bool] = lambda chunk: False,
        *,
        score_size: str,
        void: str = "ignore",
        workers: int = 0,
    ) -> Iterator[ChunkData]:
        """Load chunks that run in this order from now on.

        Args:
            chunks: episodes by chunk number.
            skip: as for `plan`.
            score_size: ``original`` or ``input``, see `ProtocolSpec`.
            void: ``ignore`` or ``background``, see `ProtocolSpec`.
            workers: number of loader processes.

        Raises:
            FssbenchError: an image or mask cannot be read, or a loader process died.
        """
        return load_chunks(
            self.plan(chunks, skip),
            self._dataset,
            self._pipeline.geometry,
            score_size=score_size,
            void=void,
            workers=workers,
            pin=self._pipeline.device.type == "cuda",
        )

    def open(self, data: ChunkData) -> OpenChunk:
        """Return a loaded chunk, ready to be segmented."""
        self._scheduled.pop(data.task.chunk, None)
        return OpenChunk(self, data)

    def _task(self, chunk: int, episodes: Sequence[Episode]) -> ChunkTask:
        scheduled: set[object] = set()
        places: list[Container[object]] = [self.memory, *self._scheduled.values(), scheduled]
        images: dict[ImageKey, None] = {}

        def available(key: object) -> bool:
            found = any(key in each for each in places)
            scheduled.add(key)
            return found

        for episode in episodes:
            query = query_key(episode)
            if not available(query) and not available(image_key((episode.query, None))):
                images[episode.query, None] = None
            for way in episode.ways():
                if not way.support or (self._joined and available(set_key(way))):
                    continue
                for support in way.supports():
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

    def logits(self, batch: range, sizes: Sequence[tuple[int, int]]) -> tuple[list[Tensor], Tensor]:
        """Return the logits of B of the chunk's episodes.

        Args:
            batch: positions of the episodes in the chunk.
            sizes: (height, width) at which each prediction is scored.

        Returns:
            Float32 (H, W) of each episode, (N, H, W) for N ways, and for each whether all its
            logits are finite, bool (B,), all on the device.
        """
        maps, restore = self.segment(batch), self._pipeline.geometry.restore
        restored = [
            [restore(each, *size) for each, size in zip(logits, sizes, strict=True)]
            for logits in maps
        ]
        if len(maps) == 1:
            return restored[0], finite(maps[0])
        joined = [torch.cat(parts) for parts in zip(*restored, strict=True)]
        return joined, torch.stack(list(map(finite, maps))).all(0)

    def segment(self, batch: range) -> list[Tensor]:
        """Return logits over the encoder's input, float32 (B, h', w') or (B, N, h', w').

        If the episodes have C base classes, their logits, (B, C, h', w'), are a second tensor.
        """
        self._cache.memory.move_to(self._first + batch.start)
        episodes = [self.episodes[position] for position in batch]
        ways = [
            way
            for way in zip(*(episode.ways() for episode in episodes), strict=True)
            if way[0].support
        ]
        supports = [
            self._embedded(way, [position * len(ways) + n for position in batch])
            for n, way in enumerate(ways)
        ]
        queries = list(map(self._query, episodes))
        logits = self._pipeline.segment(queries, *supports)
        base = len(episodes[0].targets) - len(ways)
        if not base:
            return [logits]
        novel = logits if len(ways) > 1 else logits[:, None]
        return [novel, self._pipeline.base_logits(queries, base)]

    def _embedded(self, episodes: Sequence[Episode], positions: Sequence[int]) -> Any:
        """Embed the supports of B episodes of one way; their masks have these positions."""

        def joined() -> Any:
            return self._pipeline.embed_support(list(map(self._supports, episodes, positions)))

        if self._cache._joined and len(episodes) == 1:
            return self._cache.memory.get_or_make(set_key(episodes[0]), joined)
        return joined()

    def _query(self, episode: Episode) -> Any:
        return self._cache.memory.get_or_make(
            query_key(episode),
            lambda: self._pipeline.prepare_query(self._features((episode.query, None))),
        )

    def _supports(self, episode: Episode, position: int) -> list[Any]:
        return list(map(self._support, episode.supports(), self._data.support_masks[position]))

    def _support(self, support: SupportKey, mask: Tensor) -> Any:
        image = encoded(support, self._pipeline.request)
        return self._cache.memory.get_or_make(
            support_key(support),
            lambda: self._pipeline.prepare_support(self._features(image), mask),
        )

    def _features(self, key: ImageKey) -> Features:
        found: Features = self._cache.memory.get_or_make(
            image_key(key), lambda: self._ahead.pop(key, None) or self._encode(key)
        )
        return found

    def _encode(self, key: ImageKey) -> Features:
        """Encode an image, together with further images of the chunk that fill up its batch."""
        files = self._cache._files
        image, keep = self._input(key)
        if files is not None:
            found = files.read(pixels_key(image, keep))
            if found is not None:
                return {n: maps.to(self._pipeline.device) for n, maps in found.items()}
        memory = self._cache.memory
        others = [
            other
            for other in self._loaded
            if other != key and other not in self._ahead and image_key(other) not in memory
        ][: self._pipeline.encode_batch - 1]
        images, keeps = zip((image, keep), *map(self._input, others), strict=True)
        features = self._pipeline.encode(torch.stack(images), keeps)
        if files is not None:
            for image, keep, each in zip(images, keeps, features, strict=True):
                files.write(pixels_key(image, keep), each)
        self._ahead.update(zip(others, features[1:], strict=True))
        return features[0]

    def _input(self, key: ImageKey) -> tuple[Tensor, Tensor | None]:
        """Return the encoder's input, and the mask of its visible part or None."""
        position = self._loaded.pop(key, None)
        if position is not None:
            return self._data.images[position], self._data.keep[position]
        # The image was cached when the loading task was created, and has been evicted since.
        image_id, class_id = key
        geometry, dataset = self._pipeline.geometry, self._cache._dataset
        keep = None
        if class_id is not None:
            keep = geometry.mask(support_mask(dataset, image_id, class_id))
        return geometry.image(dataset.image(image_id)), keep


def feature_bytes(info: BackboneInfo, request: FeatureRequest, precision: str) -> int:
    """Return the size in bytes of one image's features."""
    layers = [info.layer(name) for name in request.layers]
    values = sum(each.channels * math.ceil(request.size / each.stride) ** 2 for each in layers)
    return values * (2 if precision == "bf16" else 4)
