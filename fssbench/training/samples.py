"""What an epoch consists of: episodes of base classes, or images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import attrs

from fssbench import registry
from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.episodes.protocol import class_lists
from fssbench.episodes.sampler import Pool, Sampler
from fssbench.errors import FssbenchError
from fssbench.specs import SamplerSpec
from fssbench.training.recipe import Recipe
from fssbench.training.stage import Feed

SPLIT = "train"

Sample = Episode | str
"""An episode, or the id of an image."""

log = logging.getLogger(__name__)


def base_classes(dataset: Dataset, fold: int) -> tuple[int, ...]:
    """Class ids that are not novel in a fold, ascending.

    Raises:
        FssbenchError: all classes are novel.
    """
    dataset.check_fold(fold)
    novel = set(dataset.fold_classes(fold))
    base = tuple(c for c in range(len(dataset.classes)) if c not in novel)
    if not base:
        raise FssbenchError(
            f"{dataset.name}, fold {fold}: every class is novel, so there is nothing to train on"
        )
    return base


@attrs.frozen(kw_only=True, eq=False)
class Samples:
    """The training samples of a fold; `epoch` draws them in order.

    Attributes:
        feed: episodes, labelled or (plain) images.
        recipe: shots, epoch size, sampler.
        pool: lists of images by base class.
        images: the images that the lists leave, sorted; all of the split for plain images.
        dropped: how many images ``train_filter`` dropped.
        key: what all draws are keyed by, the epoch aside.
        full_size: samples of an epoch, before the rest of a batch is left out.
    """

    feed: Feed
    recipe: Recipe
    pool: Pool
    images: Sequence[str]
    dropped: int
    key: tuple[str | int, ...]
    full_size: int

    def epoch(self, number: int) -> list[Sample]:
        """The samples of an epoch, in the order in which they are trained on.

        The same on every process and after every interruption: they are drawn by the same code as
        manifests, from a stream keyed by dataset, stage, fold, shots, seed and epoch.
        """
        draw = Draw(*self.key, number)
        if self.feed == "episodes":
            sampler: Sampler = registry.load(
                registry.registry().get(SamplerSpec, self.recipe.sampler)
            )
            recipe = self.recipe
            return list(
                sampler(self.pool, episodes=recipe.epoch_size, shots=recipe.shots, draw=draw)
            )
        order: list[Sample] = []
        while len(order) < self.full_size:
            order += draw.shuffled(self.images)
        return order[: self.full_size]


def make_samples(dataset: Dataset, recipe: Recipe, feed: Feed, *, fold: int, seed: int) -> Samples:
    """Find the training images of a fold.

    Raises:
        FssbenchError: no class has enough of them, or an epoch is smaller than a batch.
    """
    base = base_classes(dataset, fold)
    lists: Mapping[int, list[str]] = class_lists(dataset, SPLIT, base, recipe.min_pixels)
    everything = sorted(dataset.image_ids(SPLIT))
    kept = _filtered(dataset, everything, fold) if recipe.train_filter == "base-only" else None
    if kept is not None:
        lists = {c: [image for image in images if image in kept] for c, images in lists.items()}
    if feed == "episodes":
        lists = _with_enough(dataset, lists, recipe.shots + 1)
        images = sorted({image for images in lists.values() for image in images})
        pairs = sum(map(len, lists.values()))
    elif feed == "labelled":
        images = sorted({image for images in lists.values() for image in images})
        pairs = len(images)
    else:
        images = [image for image in everything if kept is None or image in kept]
        pairs = len(images)
    size = recipe.epoch_size or pairs
    if size < recipe.batch or not images:
        raise FssbenchError(
            f"{dataset.name}, fold {fold}: an epoch has {size if images else 0} samples, fewer "
            f"than a batch of {recipe.batch}; lower --batch-size, or raise the recipe's epoch_size"
        )
    return Samples(
        feed=feed,
        recipe=recipe,
        pool=Pool(lists=lists, dataset=dataset),
        images=images,
        dropped=0 if kept is None else len(everything) - len(kept),
        key=("training", dataset.name, recipe.stage, fold, recipe.shots, seed),
        full_size=size,
    )


def _filtered(dataset: Dataset, images: Sequence[str], fold: int) -> set[str]:
    novel = set(dataset.fold_classes(fold))
    return {image for image in images if novel.isdisjoint(dataset.class_pixels(image))}


def _with_enough(
    dataset: Dataset, lists: Mapping[int, list[str]], needed: int
) -> Mapping[int, list[str]]:
    rare = [c for c, images in lists.items() if len(images) < needed]
    if rare:
        log.info(
            "base classes with fewer than %d images are not trained on: %s",
            needed, ", ".join(dataset.classes[c] for c in rare),
        )  # fmt: skip
    return {c: images for c, images in lists.items() if len(images) >= needed}
