"""Features of images, kept while they are needed again soon: encoded once, not once an episode."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from fssbench.backbones.backbone import BackboneInfo
from fssbench.episodes.episode import Episode
from fssbench.episodes.loader import ChunkData, ChunkTask
from fssbench.harness.pipeline import Features, Pipeline
from fssbench.matchers.matcher import FeatureRequest

ImageKey = tuple[str, int | None]
"""(image id, class id whose mask hides the background, or None)."""


def query_key(episode: Episode) -> ImageKey:
    """Key of an episode's query."""
    return episode.query, None


def support_keys(episode: Episode, request: FeatureRequest) -> list[ImageKey]:
    """Keys of an episode's supports."""
    return [(image, c if request.mask_support else None) for image, c in episode.supports()]


class FeatureCache:
    """The most recently used features within a budget of bytes.

    Which images a run must load follows from its episodes alone, so the whole run is planned
    beforehand and loader processes never wait for an answer.

    Args:
        pipeline: what encodes.
        budget: bytes of features to keep; a chunk's own are kept however many they are.
    """

    def __init__(self, pipeline: Pipeline, budget: int) -> None:
        self._pipeline = pipeline
        size = feature_bytes(pipeline.backbone.info, pipeline.request, pipeline.precision)
        self._keys = _RecentKeys(max(1, budget // size))
        self._features: dict[ImageKey, Features] = {}

    def plan(self, chunks: Mapping[int, Sequence[Episode]]) -> list[ChunkTask]:
        """What must be loaded for each chunk when the chunks run in this order from now on."""
        keys = copy.deepcopy(self._keys)
        return [
            ChunkTask(
                chunk=chunk,
                episodes=tuple(episodes),
                images=tuple(keys.admit(self._needed(episodes))[0]),
            )
            for chunk, episodes in chunks.items()
        ]

    def features(self, data: ChunkData) -> dict[ImageKey, Features]:
        """Features of all images of a loaded chunk, those that were kept and those encoded now."""
        new, evicted = self._keys.admit(self._needed(data.task.episodes))
        for key in evicted:
            del self._features[key]
        encoded = self._pipeline.encode(data.images, data.keep) if new else []
        self._features.update(zip(new, encoded, strict=True))
        return self._features

    def _needed(self, episodes: Sequence[Episode]) -> Iterable[ImageKey]:
        for episode in episodes:
            yield query_key(episode)
            yield from support_keys(episode, self._pipeline.request)


class _RecentKeys:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._order: OrderedDict[ImageKey, None] = OrderedDict()

    def admit(self, keys: Iterable[ImageKey]) -> tuple[list[ImageKey], list[ImageKey]]:
        """Touch keys; return those that are new and those that had to go for them."""
        wanted = dict.fromkeys(keys)
        new = [key for key in wanted if key not in self._order]
        for key in wanted:
            self._order[key] = None
            self._order.move_to_end(key)
        surplus = len(self._order) - max(self.capacity, len(wanted))
        return new, [self._order.popitem(last=False)[0] for _ in range(surplus)]


def feature_bytes(info: BackboneInfo, request: FeatureRequest, precision: str) -> int:
    """Bytes of one image's features."""
    values = 0
    for name in request.layers:
        layer = info.layer(name)
        values += layer.channels * math.ceil(request.size / layer.stride) ** 2
    return values * (2 if precision == "bf16" else 4)
