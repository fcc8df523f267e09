"""The samplers of fssbench.

A sampler is a function ``sampler(pool, *, episodes, shots, draw) -> list[Episode]``. It reads only
annotations of the dataset, and its only source of randomness is `draw` (or, to replay an authors'
code, a private generator seeded with `Pool.seed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import attrs

from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode, Target
from fssbench.errors import FssbenchError


@attrs.frozen(kw_only=True)
class Pool:
    """The images that a sampler draws from.

    Attributes:
        lists: ids of the images of each class of the fold, sorted, at least K+1 of each. For a
            protocol with authors' list files: the ids in the order of the files, of any number.
        dataset: source of other annotations.
        queries: queries in the order of the authors' list files, see `Listed`; empty without files.
        seed: seed of the manifest, for authors' own generators only; `Draw` is keyed by it already.
        ways: number of classes of each episode. Samplers other than ``n-way`` may ignore it; the
            protocol then must have one way.
        base: ids of the images of each base class, for a protocol with base classes; else empty.
    """

    lists: Mapping[int, Sequence[str]]
    dataset: Dataset
    queries: Sequence[tuple[int | None, str]] = ()
    seed: int = 0
    ways: int = 1
    base: Mapping[int, Sequence[str]] = attrs.field(factory=dict)


Sampler = Callable[..., list[Episode]]


def class_balanced(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Draw every class equally often, and no query twice before each was drawn once.

    Each block of as many episodes as there are classes has each class once, so any prefix of a
    manifest is balanced too. Supports are distinct and never the query.

    Args:
        pool: class lists.
        episodes: number of episodes; None for one for each (class, image) of the lists.
        shots: number of supports K.
        draw: source of randomness.
    """
    queries: Iterable[tuple[int, str]]
    if episodes is None:
        queries = draw.shuffled([(c, image) for c in sorted(pool.lists) for image in pool.lists[c]])
    else:
        queries = islice(_balanced_queries(pool.lists, draw), episodes)
    made = []
    for index, (class_id, query) in enumerate(queries):
        support = draw.distinct(pool.lists[class_id], shots, but=query)
        made.append(Episode(index=index, class_id=class_id, query=query, support=tuple(support)))
    return made


def class_uniform(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Draw a class uniformly, then one of its images as the query.

    It is how HSNet and DCAMA draw training episodes of COCO-20i. Supports are distinct and never
    the query.

    Args:
        pool: class lists.
        episodes: number of episodes; None for the number of different images in the lists.
        shots: number of supports K.
        draw: source of randomness.
    """
    classes, made = sorted(pool.lists), []
    for index in range(
        len(set[str]().union(*pool.lists.values())) if episodes is None else episodes
    ):
        class_id = classes[draw.below(len(classes))]
        images = pool.lists[class_id]
        query = images[draw.below(len(images))]
        support = tuple(draw.distinct(images, shots, but=query))
        made.append(Episode(index=index, class_id=class_id, query=query, support=support))
    return made


def n_way(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Draw the episodes of `class_balanced`, each with further classes, in a drawn order.

    The further classes are distinct and drawn uniformly from the others of the fold; they may be
    absent from the query. The order of the ways is drawn too, since it would otherwise show which
    class the query was drawn for. The supports of a class are drawn from its list, distinct and
    never the query; an image may be a support of two classes.

    With base classes, queries are drawn for these too, and the last ways of each episode are all
    base classes by ascending id, without supports.
    """
    every = attrs.evolve(pool, lists={**pool.lists, **pool.base})
    base = [Target(class_id=class_id, support=()) for class_id in sorted(pool.base)]
    made = []
    for episode in class_balanced(every, episodes=episodes, shots=shots, draw=draw):
        asked = [] if episode.class_id in pool.base else [*episode.targets]
        others = draw.distinct(sorted(pool.lists), pool.ways - len(asked), but=episode.class_id)
        drawn = [
            Target(
                class_id=other,
                support=tuple(draw.distinct(pool.lists[other], shots, but=episode.query)),
            )
            for other in others
        ]
        first, *further = [*draw.shuffled([*asked, *drawn]), *base]
        fields = attrs.asdict(first, recurse=False)
        made.append(attrs.evolve(episode, **fields, further=tuple(further)))
    return made


def wrong_mask(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Draw the episodes of `class_balanced`, whose supports show the mask of another class.

    The other class is drawn uniformly from those of the support image. In this control, a method
    that uses its support must fail, and one that segments any salient object does not.

    Raises:
        FssbenchError: a support image has no other class.
    """
    made = []
    for episode in class_balanced(pool, episodes=episodes, shots=shots, draw=draw):
        shown = []
        for image in episode.support:
            others = sorted(set(pool.dataset.class_pixels(image)) - {episode.class_id})
            if not others:
                raise FssbenchError(
                    f"sampler wrong-mask: image {image} holds one class only; "
                    "use a dataset whose images all hold several"
                )
            shown.append(others[draw.below(len(others))])
        made.append(attrs.evolve(episode, support_classes=tuple(shown)))
    return made


def shared_class(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Draw episodes whose query and supports have at least two classes in common.

    Queries are those of `class_balanced`, without images whose other classes are in fewer than K
    other images of the class. For each query one of its other classes is drawn uniformly, and the
    supports from the images of both classes. In this control only masks determine the class; a
    method that segments any recurring object fails.

    Raises:
        FssbenchError: a class has no K + 1 images with the same second class.
    """
    held = {
        image: frozenset(pool.dataset.class_pixels(image))
        for image in sorted(set[str]().union(*pool.lists.values()))
    }
    # Images of a class and another one, by both; at least K + 1, for a query and its supports.
    both: dict[int, dict[int, list[str]]] = {}
    for asked, images in pool.lists.items():
        others = sorted(frozenset().union(*(held[image] for image in images)) - {asked})
        groups = {other: [image for image in images if other in held[image]] for other in others}
        both[asked] = {other: group for other, group in groups.items() if len(group) > shots}
        if not both[asked]:
            raise FssbenchError(
                f"sampler shared-class: no {shots + 1} images of class {asked} hold the same "
                "second class; use a dataset whose images hold several"
            )
    lists = {
        asked: [image for image in images if held[image] & both[asked].keys()]
        for asked, images in pool.lists.items()
    }
    made = []
    reduced = attrs.evolve(pool, lists=lists)
    for episode in class_balanced(reduced, episodes=episodes, shots=shots, draw=draw):
        fit = [g for other, g in both[episode.class_id].items() if other in held[episode.query]]
        support = draw.distinct(fit[draw.below(len(fit))], shots, but=episode.query)
        made.append(attrs.evolve(episode, support=tuple(support)))
    return made


def _balanced_queries(lists: Mapping[int, Sequence[str]], draw: Draw) -> Iterator[tuple[int, str]]:
    waiting: dict[int, list[str]] = {class_id: [] for class_id in sorted(lists)}
    while True:
        for class_id in draw.shuffled(list(waiting)):
            if not waiting[class_id]:
                waiting[class_id] = draw.shuffled(lists[class_id])
            yield class_id, waiting[class_id].pop()
