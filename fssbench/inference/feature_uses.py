"""Times at which each intermediate value of an evaluation is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from fssbench.episodes.episode import Episode
from fssbench.matchers.matcher import FeatureRequest

ImageKey = tuple[str, int | None]
"""(image id, class id whose mask hides the background, or None) of an encoder input."""

SupportKey = tuple[str, int]
"""(image id, class id of its mask)."""


def query_key(episode: Episode) -> Hashable:
    """Return the key of an episode's prepared query."""
    return "query", episode.query


def support_key(support: SupportKey) -> Hashable:
    """Return the key of a prepared support image."""
    return "support", support


def set_key(episode: Episode) -> Hashable:
    """Return the key of the joined supports of an episode of one way."""
    return "set", tuple(episode.supports())


def image_key(key: ImageKey) -> Hashable:
    """Return the key of an image's features."""
    return "image", key


def encoded(support: SupportKey, request: FeatureRequest) -> ImageKey:
    """Return the encoder input of a support."""
    image, class_id = support
    return image, class_id if request.mask_support else None


def uses_of(
    episodes: Iterable[Episode], request: FeatureRequest, *, joined: bool
) -> dict[Hashable, list[int]]:
    """Return the ascending times (episode positions in this order) at which each value is used.

    Features are used until all values that depend on them are computed. A prepared support image is
    used until its support set is joined, if joined sets are cached and it is the only image in it.

    Args:
        episodes: episodes in the order of evaluation.
        request: feature request of the matcher.
        joined: True if joined support sets are cached.
    """
    uses: dict[Hashable, list[int]] = defaultdict(list)
    seen: set[Hashable] = set()

    def first(key: Hashable) -> bool:
        new = key not in seen
        seen.add(key)
        return new

    for time, episode in enumerate(episodes):
        query = query_key(episode)
        if first(query):
            uses[image_key((episode.query, None))].append(time)
        uses[query].append(time)
        for way in (way for way in episode.ways() if way.support):
            supports: Sequence[SupportKey] = way.supports()
            new_set = first(set_key(way))
            if joined:
                uses[set_key(way)].append(time)
            for support in dict.fromkeys(supports):
                if first(support_key(support)):
                    uses[image_key(encoded(support, request))].append(time)
                if new_set or len(supports) > 1 or not joined:
                    uses[support_key(support)].append(time)
    return uses
