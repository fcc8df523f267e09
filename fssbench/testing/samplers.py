"""What every sampler promises; see `fssbench.episodes.sampler`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
from torch import Tensor

from fssbench import build, registry
from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.episodes.protocol import class_lists
from fssbench.episodes.sampler import Pool
from fssbench.specs import SamplerSpec
from fssbench.testing.check import Checks, expect
from fssbench.testing.random_state import Watch, place_generators

CHECKS = Checks("sampler")

_EPISODES = 40


class Annotations(Dataset):
    """A dataset without its images: whoever asks for one is notes off."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.classes, self.folds, self.splits = dataset.classes, dataset.folds, dataset.splits
        self.name = dataset.name  # type: ignore[misc]

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """The dataset's."""
        return self._dataset.fold_classes(fold)

    def image_ids(self, split: str) -> Sequence[str]:
        """The dataset's."""
        return self._dataset.image_ids(split)

    def class_pixels(self, image_id: str) -> Mapping[int, int]:
        """The dataset's."""
        return self._dataset.class_pixels(image_id)

    def image(self, image_id: str) -> Tensor:
        """Nobody needs it to draw episodes.

        Raises:
            AssertionError: always.
        """
        raise AssertionError(f"image {image_id} was opened; episodes are drawn of annotations")

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Nobody needs it to draw episodes.

        Raises:
            AssertionError: always.
        """
        raise AssertionError(f"a mask of {image_id} was opened; `class_pixels` tells what it holds")

    def fingerprint(self, split: str = "val") -> str:
        """The dataset's."""
        return self._dataset.fingerprint(split)


@attrs.frozen(kw_only=True, eq=False, slots=False)
class SamplerSubject:
    """A registered sampler, and lists to draw from.

    Attributes:
        name: the registered name.
        dataset_name: whose annotations it draws from.
        given: the dataset's options.
    """

    name: str
    dataset_name: str = "shapes"
    given: Mapping[str, Any] = attrs.field(factory=lambda: {"images_per_split": 120})

    @cached_property
    def spec(self) -> SamplerSpec:
        """Its spec."""
        return registry.registry().get(SamplerSpec, self.name)

    @cached_property
    def thing(self) -> Any:
        """The function."""
        return registry.load(self.spec)

    @cached_property
    def lists(self) -> Mapping[int, tuple[str, ...]]:
        """Images of the novel classes of fold 0."""
        dataset = build.dataset(self.dataset_name, None, **self.given)
        found = class_lists(dataset, dataset.splits[-1], dataset.fold_classes(0), 1)
        return {class_id: tuple(images) for class_id, images in found.items()}

    def pool(self, seed: int = 0) -> Pool:
        """The lists, and as queries each image of each."""
        dataset = build.dataset(self.dataset_name, None, **self.given)
        queries = [(c, image) for c, images in self.lists.items() for image in images]
        lists = {c: list(images) for c, images in self.lists.items()}
        return Pool(lists=lists, dataset=Annotations(dataset), queries=queries, seed=seed)

    def drawn(self, shots: int, *, episodes: int = _EPISODES, seed: int = 0) -> list[Episode]:
        """Episodes of a new pool."""
        draw = Draw("fssbench.testing", shots, seed)
        found: list[Episode] = self.thing(
            self.pool(seed), episodes=episodes, shots=shots, draw=draw
        )
        return found


@CHECKS.add()
def episodes(subject: SamplerSubject) -> str:
    """As many `Episode`s as asked for, numbered from 0, of K supports."""
    for shots in (1, 5):
        found = subject.drawn(shots)
        wrong = [type(e).__name__ for e in found if not isinstance(e, Episode)]
        expect(not wrong, "a list of `fssbench.Episode`", f"a {wrong[:1]}")
        expect(len(found) == _EPISODES, f"{_EPISODES} episodes", f"{len(found)}")
        expect(
            [e.index for e in found] == list(range(_EPISODES)),
            "index 0, 1, 2, … in the order of the list",
            f"{[e.index for e in found][:4]} …",
        )
        expect(
            all(len(e.support) == shots for e in found),
            f"{shots} supports in each episode",
            f"{sorted({len(e.support) for e in found})}",
        )
    return f"{_EPISODES} of 1 and of 5 shots"


@CHECKS.add()
def from_the_lists(subject: SamplerSubject) -> str:
    """Class, query and supports come from the lists; the query is never among its supports."""
    lists = subject.lists
    for shots in (1, 5):
        for episode in subject.drawn(shots):
            where = f"episode {episode.index}"
            expect(
                episode.class_id in lists,
                f"{where}: a class of the lists",
                f"class {episode.class_id}",
            )
            listed = lists[episode.class_id]
            strange = [i for i in (episode.query, *episode.support) if i not in listed]
            expect(
                not strange,
                f"{where}: query and supports from the list of class {episode.class_id}",
                f"{strange[:1]}",
            )
            expect(
                episode.query not in episode.support,
                f"{where}: supports that are not the query",
                f"{episode.query} is both",
            )
            expect(
                len(episode.support_classes) in (0, shots),
                f"{where}: no support_classes, or one for each support",
                f"{len(episode.support_classes)}",
            )
    return f"{_EPISODES} episodes of 1 and of 5 shots"


@CHECKS.add()
def every_class(subject: SamplerSubject) -> str:
    """Enough episodes ask for every class of the lists, else no manifest can be made."""
    asked = {episode.class_id for episode in subject.drawn(1, episodes=400)}
    silent = sorted(set(subject.lists) - asked)
    expect(
        not silent,
        f"each of {len(subject.lists)} classes in 400 episodes",
        f"none of class {', '.join(map(str, silent))}",
    )
    return f"{len(asked)} classes in 400 episodes"


@CHECKS.add()
def determinism(subject: SamplerSubject) -> str:
    """The same key and seed draw the same episodes, whatever the process drew before."""
    place_generators(1)
    first = subject.drawn(5, seed=3)
    place_generators(2)
    second = subject.drawn(5, seed=3)
    differ = next((n for n, pair in enumerate(zip(first, second, strict=False))
                   if pair[0] != pair[1]), None)  # fmt: skip
    expect(
        first == second,
        "the same episodes from the same key; `draw` is the only source of randomness",
        "another number of episodes" if differ is None else f"episode {differ} differs",
    )
    other = subject.drawn(5, seed=4)
    expect(first != other, "other episodes from another key and seed", "the same episodes")
    return f"{_EPISODES} episodes, twice"


@CHECKS.add()
def generators(subject: SamplerSubject) -> str:
    """Drawing leaves the generators of the process alone."""
    watch = Watch()
    subject.drawn(5)
    expect(
        not watch.moved(),
        "random, numpy.random and torch stay where they are",
        f"{watch.moved()} changed",
    )
    return "random, numpy.random and torch stay where they are"


@CHECKS.add()
def pool_unchanged(subject: SamplerSubject) -> str:
    """The lists that were handed over stay as they are."""
    pool = subject.pool()
    subject.thing(pool, episodes=_EPISODES, shots=1, draw=Draw("fssbench.testing"))
    now = {class_id: tuple(images) for class_id, images in pool.lists.items()}
    changed = [c for c in subject.lists if now.get(c) != subject.lists[c]]
    expect(
        now == subject.lists,
        "the pool's lists as they were; shuffle a copy",
        f"the list of class {changed[0] if changed else '?'} changed",
    )
    return f"{len(now)} lists"
