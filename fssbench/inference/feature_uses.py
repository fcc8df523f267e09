"""When each part of an evaluation is needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from fssbench.episodes.episode import Episode
from fssbench.matchers.matcher import FeatureRequest

ImageKey = tuple[str, int | None]
"""(image id, class id whose mask hides the background, or None): what is encoded."""

SupportKey = tuple[str, int]
"""(image id, class id of its mask)."""


def query_key(episode: Episode) -> Hashable:
    """Key of an episode's prepared query."""
    return "query", episode.query


def support_key(support: SupportKey) -> Hashable:
    """Key of a prepared support image."""
    return "support", support


def set_key(episode: Episode) -> Hashable:
    """Key of an episode's joined supports."""
    return "set", tuple(episode.supports())


def image_key(key: ImageKey) -> Hashable:
    """Key of an image's features."""
    return "image", key


def encoded(support: SupportKey, request: FeatureRequest) -> ImageKey:
    """What is encoded for a support."""
    image, class_id = support
    return image, class_id if request.mask_support else None


def uses_of(
    episodes: Iterable[Episode], request: FeatureRequest, *, joined: bool
) -> dict[Hashable, list[int]]:
    """Moments (numbers of episodes in this order) at which each part is needed, ascending.

    Features are needed until everything is made of them that is made of them; a support image until
    its set is made, if sets are kept and it is all there is in its set.

    Args:
        episodes: in the order of visiting.
        request: of the matcher.
        joined: sets are kept, too.
    """
    uses: dict[Hashable, list[int]] = defaultdict(list)
    seen: set[Hashable] = set()

    def first(key: Hashable) -> bool:
        new = key not in seen
        seen.add(key)
        return new

    for moment, episode in enumerate(episodes):
        supports: Sequence[SupportKey] = episode.supports()
        query = query_key(episode)
        if first(query):
            uses[image_key((episode.query, None))].append(moment)
        uses[query].append(moment)
        new_set = first(set_key(episode))
        if joined:
            uses[set_key(episode)].append(moment)
        for support in dict.fromkeys(supports):
            if first(support_key(support)):
                uses[image_key(encoded(support, request))].append(moment)
            if new_set or len(supports) > 1 or not joined:
                uses[support_key(support)].append(moment)
    return uses
