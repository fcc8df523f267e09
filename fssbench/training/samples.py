"""Samples of an epoch: episodes of base classes, or images."""

from __future__ import annotations

import logging
import os
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
from fssbench.training.stage import Feed, Stage

SPLIT = "train"

Sample = Episode | str
"""An episode, or the id of an image."""

log = logging.getLogger(__name__)


def base_classes(dataset: Dataset, fold: int) -> tuple[int, ...]:
    """Return the base classes of a fold: class ids that are not novel, ascending.

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
        feed: ``episodes``, ``labelled`` or (plain) ``images``.
        recipe: recipe with shots, epoch size and sampler.
        pool: lists of images by base class.
        images: images in the lists, sorted; all of the split for plain images.
        dropped: number of images that ``train_filter`` dropped.
        key: key of all random draws, without the epoch.
        full_size: samples of an epoch, including an incomplete last batch.
    """

    feed: Feed
    recipe: Recipe
    pool: Pool
    images: Sequence[str]
    dropped: int
    key: tuple[str | int, ...]
    full_size: int

    def epoch(self, number: int) -> list[Sample]:
        """Return the samples of an epoch, in order.

        They are the same in every process and after every interruption: they are drawn by the code
        that draws manifests, from a stream keyed by dataset, stage, fold, shots, seed and epoch.
        """
        draw = Draw(*self.key, number)
        if self.feed == "episodes":
            recipe = self.recipe
            sampler: Sampler = registry.load(registry.registry().get(SamplerSpec, recipe.sampler))
            return [*sampler(self.pool, episodes=recipe.epoch_size, shots=recipe.shots, draw=draw)]
        order: list[Sample] = []
        while len(order) < self.full_size:
            order += draw.shuffled(self.images)
        return order[: self.full_size]


def make_samples(dataset: Dataset, recipe: Recipe, feed: Feed, *, fold: int, seed: int) -> Samples:
    """Return the training samples of a fold.

    Raises:
        FssbenchError: no class has enough images, or an epoch is smaller than a batch.
    """
    lists: Mapping[int, list[str]] = class_lists(
        dataset, SPLIT, base_classes(dataset, fold), recipe.min_pixels
    )
    everything = sorted(dataset.image_ids(SPLIT))
    allowed = everything
    if recipe.train_filter == "base-only":
        novel = set(dataset.fold_classes(fold))
        allowed = [i for i in everything if novel.isdisjoint(dataset.class_pixels(i))]
        left = set(allowed)
        lists = {c: [image for image in images if image in left] for c, images in lists.items()}
    if feed == "episodes":
        rare = [c for c, images in lists.items() if len(images) <= recipe.shots]
        lists = {c: images for c, images in lists.items() if c not in rare}
        if rare:
            log.info(
                "base classes with fewer than %d images are not trained on: %s",
                recipe.shots + 1, ", ".join(dataset.classes[c] for c in rare),
            )  # fmt: skip
    images = sorted(set[str]().union(*lists.values()))
    if feed == "images" or (feed == "labelled" and recipe.train_filter == "all"):
        images = [i for i in allowed if feed == "images" or dataset.class_pixels(i)]
    samples = Samples(
        feed=feed,
        recipe=recipe,
        pool=Pool(lists=lists, dataset=dataset),
        images=images,
        dropped=len(everything) - len(allowed),
        key=("training", dataset.name, recipe.stage, fold, recipe.shots, seed),
        full_size=recipe.epoch_size or len(images),
    )
    if feed == "episodes" and images and recipe.epoch_size is None:
        samples = attrs.evolve(samples, full_size=len(samples.epoch(0)))
    if samples.full_size < recipe.batch or not images:
        raise FssbenchError(
            f"{dataset.name}, fold {fold}: an epoch has {samples.full_size if images else 0} "
            f"samples, fewer than a batch of {recipe.batch}; lower --batch-size, or raise the "
            "recipe's epoch_size"
        )
    return samples


def warn_of_tested_images(dataset: Dataset, images: Sequence[str], fold: int) -> None:
    """Log the number of training images that a test of a fold can show.

    These images show a novel class, and their files are images of the last split. This estimate
    comes before a training and reads no image; an evaluation compares contents, see
    `fssbench.evaluation.training_overlap.TrainingOverlap.images`.

    Args:
        dataset: dataset of the images.
        images: ids of the training images.
        fold: fold of the novel classes.
    """
    novel = set(dataset.fold_classes(fold))
    try:
        shown = [image for image in images if not novel.isdisjoint(dataset.class_pixels(image))]
        if not shown:
            return
        files = {_file(dataset, image) for image in dataset.image_ids(dataset.splits[-1])}
        files.discard(None)
        count = sum(_file(dataset, image) in files for image in shown)
    except Exception as error:  # a training needs no test split
        log.debug("%s: the test split cannot be listed: %s", dataset.name, error)
        return
    if count:
        log.warning(
            "%d images of this training are in split %s too and show novel classes of fold %d; "
            "records that test these images never rank; "
            'train_filter = "base-only" in the recipe leaves them out',
            count,
            dataset.splits[-1],
            fold,
        )


def _file(dataset: Dataset, image: str) -> str | None:
    path = dataset.image_path(image)
    return None if path is None else os.path.realpath(path)


def held_out_images(dataset: Dataset, stage: Stage) -> list[str]:
    """Return the ids of a stage's held-out images, evenly spread over the split ``val``.

    Raises:
        FssbenchError: all images of that split are training images.
    """
    if not stage.held_out:
        return []
    trained = set(dataset.image_ids(SPLIT))
    left = sorted(image for image in dataset.image_ids("val") if image not in trained)
    if not left:
        raise FssbenchError(
            f"{dataset.name}: stage {stage.name} needs held-out images, but all images of split "
            "'val' are training images; choose another dataset"
        )
    count = min(stage.held_out, len(left))
    return [left[number * len(left) // count] for number in range(count)]
