"""Checks of the sampler interface; see `fssbench.episodes.sampler`."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs

from fssbench import build
from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.episodes.protocol import class_lists
from fssbench.episodes.sampler import Pool
from fssbench.runtime.random_state import drawn_twice
from fssbench.specs import SamplerSpec
from fssbench.testing.check import Checks, Subject, expect, expect_unchanged_generators

CHECKS = Checks("sampler")

_EPISODES = 40


class Annotations:
    """A dataset that raises an error when a sampler opens an image or a mask."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name in ("image", "mask"):
            raise AssertionError(f"{name} was opened; samplers use annotations: `class_pixels`")
        return getattr(self._dataset, name)


@attrs.frozen(kw_only=True, eq=False, slots=False)
class SamplerSubject(Subject):
    """A registered sampler, with lists to draw from.

    Attributes:
        dataset_name: dataset whose annotations are used.
        given: options of the dataset.
    """

    spec_class = SamplerSpec
    dataset_name: str = attrs.field(default="shapes", alias="dataset")
    given: Mapping[str, Any] = attrs.field(
        factory=lambda: {"images_per_split": 120}, alias="options"
    )

    @cached_property
    def dataset(self) -> Dataset:
        """Dataset whose annotations are used."""
        return build.dataset(self.dataset_name, None, **self.given)

    @cached_property
    def lists(self) -> Mapping[int, tuple[str, ...]]:
        """Images of the novel classes of fold 0."""
        dataset = self.dataset
        found = class_lists(dataset, dataset.splits[-1], dataset.fold_classes(0), 1)
        return {class_id: tuple(images) for class_id, images in found.items()}

    def pool(self, seed: int = 0) -> Pool:
        """Return a new pool of the lists; its queries are all images of all lists."""
        queries = [(c, image) for c, images in self.lists.items() for image in images]
        lists = {c: list(images) for c, images in self.lists.items()}
        annotations = typing.cast(Dataset, Annotations(self.dataset))
        return Pool(lists=lists, dataset=annotations, queries=queries, seed=seed)

    def drawn(self, shots: int, *, episodes: int = _EPISODES, seed: int = 0) -> list[Episode]:
        """Draw episodes from a new pool."""
        draw, pool = Draw("fssbench.testing", shots, seed), self.pool(seed)
        return list(self.thing(pool, episodes=episodes, shots=shots, draw=draw))


@CHECKS.add()
def episodes(subject: SamplerSubject) -> str:
    """A sampler returns the requested number of `Episode`s, numbered from 0, of K supports."""
    for shots in (1, 5):
        found = subject.drawn(shots)
        wrong = [type(e).__name__ for e in found if not isinstance(e, Episode)]
        expect(not wrong, "a list of `fssbench.Episode`", f"a {wrong[:1]}")
        indices = [e.index for e in found]
        expect(indices == list(range(_EPISODES)), f"index 0, 1, … of {_EPISODES} episodes",
               f"{len(found)} episodes, {indices[:4]} …")  # fmt: skip
        supports = {len(e.support) for e in found}
        expect(supports == {shots}, f"{shots} supports in each episode", f"{sorted(supports)}")
    return f"{_EPISODES} of 1 and of 5 shots"


@CHECKS.add()
def from_the_lists(subject: SamplerSubject) -> str:
    """Class, query and supports are from the lists; the query is not one of its supports."""
    for shots in (1, 5):
        for episode in subject.drawn(shots):
            where, class_id = f"episode {episode.index}", episode.class_id
            expect(class_id in subject.lists, f"{where}: a class of the lists", f"{class_id}")
            used = {episode.query, *episode.support}
            strange = sorted(used - set(subject.lists[class_id]))
            expect(not strange, f"{where}: images from the list of class {class_id}",
                   f"{strange[:1]}")  # fmt: skip
            expect(episode.query not in episode.support, f"{where}: supports other than the query",
                   f"{episode.query} is both")  # fmt: skip
            classes = len(episode.support_classes)
            expect(classes in (0, shots), f"{where}: no support_classes, or one for each support",
                   f"{classes}")  # fmt: skip
    return f"{_EPISODES} episodes of 1 and of 5 shots"


@CHECKS.add()
def every_class(subject: SamplerSubject) -> str:
    """All classes of the lists occur in enough episodes; manifests require it."""
    drawn = {episode.class_id for episode in subject.drawn(1, episodes=400)}
    absent = sorted(set(subject.lists) - drawn)
    expect(not absent, f"each of {len(subject.lists)} classes in 400 episodes",
           f"none of class {', '.join(map(str, absent))}")  # fmt: skip
    return f"{len(drawn)} classes in 400 episodes"


@CHECKS.add()
def determinism(subject: SamplerSubject) -> str:
    """The same key and seed give the same episodes, whatever the global generators' states."""
    first, second = drawn_twice(lambda: subject.drawn(5, seed=3))
    differ = [n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b]
    expect(
        first == second,
        "the same episodes from the same key; `draw` is the only source of randomness",
        f"episode {differ[0]} differs" if differ else "another number of episodes",
    )
    expect(first != subject.drawn(5, seed=4), "other episodes from another seed", "the same")
    return f"{_EPISODES} episodes, twice"


@CHECKS.add()
def generators(subject: SamplerSubject) -> str:
    """Drawing does not use the global random generators."""
    with expect_unchanged_generators():
        subject.drawn(5)
    return "random, numpy.random and torch are unchanged"


@CHECKS.add()
def pool_unchanged(subject: SamplerSubject) -> str:
    """The lists of the pool are not changed."""
    pool = subject.pool()
    subject.thing(pool, episodes=_EPISODES, shots=1, draw=Draw("fssbench.testing"))
    changed = [c for c in subject.lists if tuple(pool.lists.get(c, ())) != subject.lists[c]]
    expect(
        not changed and len(pool.lists) == len(subject.lists),
        "unchanged lists; shuffle a copy",
        f"the list of class {changed[0] if changed else '?'} changed",
    )
    return f"{len(pool.lists)} lists"
