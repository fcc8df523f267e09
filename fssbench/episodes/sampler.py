"""The samplers that come with fssbench.

A sampler is a function ``sampler(pool, *, episodes, shots, draw) -> list[Episode]``. It may use no
randomness but `draw` (one that replays an authors' code: a private generator seeded with
`Pool.seed`), and nothing of the dataset but annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError


@attrs.frozen(kw_only=True)
class Pool:
    """What a sampler draws from.

    Attributes:
        lists: for each class of the fold the ids of its images, sorted; every list holds at least
            K+1 images. Of a protocol with authors' list files: in the files' order, as many as they
            have.
        dataset: for what else a sampler wants to know of annotations.
        queries: of a protocol with list files, the order in which they ask, see `Listed`.
        seed: the manifest's. Only for replaying an authors' own generator; `Draw` is keyed by it.
    """

    lists: Mapping[int, Sequence[str]]
    dataset: Dataset
    queries: Sequence[tuple[int | None, str]] = ()
    seed: int = 0


Sampler = Callable[..., list[Episode]]


def class_balanced(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """The house sampler: every class equally often, no query twice before each was asked once.

    Consecutive blocks of as many episodes as there are classes hold each class once, so any prefix
    of a manifest is balanced too. Supports are distinct and never the query.

    Args:
        pool: class lists.
        episodes: how many; None for one episode for each (class, image) of the lists.
        shots: K.
        draw: the only source of randomness.
    """
    if episodes is None:
        pairs = [(c, image) for c in sorted(pool.lists) for image in pool.lists[c]]
        questions: Iterator[tuple[int, str]] = iter(draw.shuffled(pairs))
        episodes = len(pairs)
    else:
        questions = _balanced_questions(pool.lists, draw)
    made = []
    for index in range(episodes):
        class_id, query = next(questions)
        support = draw.distinct(pool.lists[class_id], shots, but=query)
        made.append(Episode(index=index, class_id=class_id, query=query, support=tuple(support)))
    return made


def wrong_mask(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """A control: the episodes of `class_balanced`, but each support shows another class's mask.

    The other class is drawn uniformly from those that the support image holds. A method that heeds
    its support must fail here; one that segments whatever stands out does not notice.

    Raises:
        FssbenchError: a support image holds no other class.
    """
    made = []
    for episode in class_balanced(pool, episodes=episodes, shots=shots, draw=draw):
        shown = []
        for image in episode.support:
            others = sorted(set(pool.dataset.class_pixels(image)) - {episode.class_id})
            if not others:
                raise FssbenchError(
                    f"sampler wrong-mask: image {image} holds one class only; "
                    "use it with datasets whose images all hold several"
                )
            shown.append(others[draw.below(len(others))])
        made.append(attrs.evolve(episode, support_classes=tuple(shown)))
    return made


def shared_class(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """A control: what supports and query have in common is never one class only.

    The queries of `class_balanced`, but for images whose other classes are in fewer than K other
    images of the asked class. For each query one of its other classes is drawn uniformly, and the
    supports from the images of both. So only masks say which of the two is meant; a method that
    segments whatever comes back does not know.

    Raises:
        FssbenchError: a class has no K + 1 images that hold the same second class.
    """
    held = {
        image: frozenset(pool.dataset.class_pixels(image))
        for image in sorted({image for images in pool.lists.values() for image in images})
    }
    # By asked class and other class, the images of both: enough for a query and its supports.
    both: dict[int, dict[int, list[str]]] = {}
    for asked, images in pool.lists.items():
        others = sorted(frozenset().union(*(held[image] for image in images)) - {asked})
        groups = {other: [image for image in images if other in held[image]] for other in others}
        both[asked] = {other: group for other, group in groups.items() if len(group) > shots}
        if not both[asked]:
            raise FssbenchError(
                f"sampler shared-class: no {shots + 1} images of class {asked} hold the same "
                "second class; use it with datasets whose images hold several"
            )
    lists = {
        asked: [image for image in images if held[image] & both[asked].keys()]
        for asked, images in pool.lists.items()
    }
    made = []
    ordinary = attrs.evolve(pool, lists=lists)
    for episode in class_balanced(ordinary, episodes=episodes, shots=shots, draw=draw):
        groups = both[episode.class_id]
        others = [other for other in groups if other in held[episode.query]]
        group = groups[others[draw.below(len(others))]]
        support = draw.distinct(group, shots, but=episode.query)
        made.append(attrs.evolve(episode, support=tuple(support)))
    return made


def _balanced_questions(
    lists: Mapping[int, Sequence[str]], draw: Draw
) -> Iterator[tuple[int, str]]:
    waiting: dict[int, list[str]] = {class_id: [] for class_id in sorted(lists)}
    while True:
        for class_id in draw.shuffled(list(waiting)):
            if not waiting[class_id]:
                waiting[class_id] = draw.shuffled(lists[class_id])
            yield class_id, waiting[class_id].pop()
