"""Checks of a dataset on the disk: damaged files, and counts against the official ones."""

from __future__ import annotations

from typing import Any

import attrs

from fssbench.data.dataset import Dataset
from fssbench.data.index import IndexedDataset
from fssbench.data.official_counts import Known, known
from fssbench.errors import FssbenchError

NAMED = 12
"""Maximum number of class names in one line."""


@attrs.frozen(kw_only=True)
class ClassCount:
    """Counts of one class in a split.

    Attributes:
        fold: fold in which the class is novel, or None.
        name: class name.
        images: number of images with the class.
        pixels: number of pixels of the class in all images.
        counted: number of images with at least `SplitCount.official_pixels` pixels of the class.
        official: the same number in the complete dataset, or None if it is unknown.
    """

    fold: int | None
    name: str
    images: int
    pixels: int
    counted: int
    official: int | None


@attrs.frozen(kw_only=True)
class FoldCount:
    """Counts of the novel classes of a fold in a split.

    Attributes:
        fold: index of the fold.
        classes: number of novel classes with at least one image.
        images: number of distinct images with at least one novel class.
        pairs: number of (image, class) pairs, as in `ClassCount.counted`.
        official: number of such pairs in the complete dataset, or None if it is unknown.
    """

    fold: int
    classes: int
    images: int
    pairs: int
    official: int | None


@attrs.frozen(kw_only=True)
class SplitCount:
    """Counts of a split and of the same split in the complete dataset.

    Attributes:
        images: number of images in the split.
        official: number of images in the split of the complete dataset, or None.
        official_pixels: minimum number of pixels of a class for an image in `ClassCount.counted`.
        classes: counts of each class.
        folds: counts of each fold.
        missing: differences from the complete dataset, one line each.
    """

    images: int
    official: int | None
    official_pixels: int
    classes: tuple[ClassCount, ...]
    folds: tuple[FoldCount, ...]
    missing: tuple[str, ...]

    def to_fields(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return attrs.asdict(self)


def check_image(dataset: Dataset, image_id: str) -> list[str]:
    """Return the errors of an image and of the masks of its classes, one line each."""
    try:
        size = dataset.image(image_id).shape[-2:]
        # The index of a split cannot be built if one of its masks is invalid.
        if isinstance(dataset, IndexedDataset):
            pixels = dataset.count_pixels(image_id)
        else:
            pixels = dataset.class_pixels(image_id)
        problems = []
        for class_id, count in pixels.items():
            mask = dataset.mask(image_id, class_id)
            if mask.shape != size:
                problems.append(
                    f"{image_id}: mask of {dataset.classes[class_id]} is {tuple(mask.shape)}, the "
                    f"image {tuple(size)}"
                )
            elif int((mask == 1).sum()) != count:
                problems.append(
                    f"{image_id}: pixels of {dataset.classes[class_id]} differ from the index"
                )
        return problems
    except FssbenchError as error:
        return [str(error)]


def count_split(dataset: Dataset, split: str) -> SplitCount:
    """Return the counts of a split by class and fold, with those of the complete dataset.

    Raises:
        FssbenchError: the split does not exist, or an annotation cannot be read.
    """
    whole = known(dataset, split) or Known()
    folds = {c: fold for fold in range(dataset.folds) for c in dataset.fold_classes(fold)}
    images, pixels, counted = ([0] * len(dataset.classes) for _ in range(3))
    of_fold: list[set[str]] = [set() for _ in range(dataset.folds)]
    image_ids = dataset.image_ids(split)
    for image_id in image_ids:
        for class_id, count in dataset.class_pixels(image_id).items():
            images[class_id] += 1
            pixels[class_id] += count
            counted[class_id] += count >= whole.pixels
            if class_id in folds:
                of_fold[folds[class_id]].add(image_id)
    classes = tuple(
        ClassCount(
            fold=folds.get(c),
            name=name,
            images=images[c],
            pixels=pixels[c],
            counted=counted[c],
            official=whole.classes[c] if whole.classes else whole.each,
        )
        for c, name in enumerate(dataset.classes)
        if c in folds or images[c]
    )
    return SplitCount(
        images=len(image_ids),
        official=whole.images,
        official_pixels=whole.pixels,
        classes=classes,
        folds=tuple(_fold(fold, classes, len(of_fold[fold])) for fold in range(dataset.folds)),
        missing=tuple(_missing(len(image_ids), whole, classes)),
    )


def _fold(fold: int, classes: tuple[ClassCount, ...], images: int) -> FoldCount:
    own = [line for line in classes if line.fold == fold]
    officials = [line.official for line in own if line.official is not None]
    return FoldCount(
        fold=fold,
        classes=sum(line.images > 0 for line in own),
        images=images,
        pairs=sum(line.counted for line in own),
        official=sum(officials) if officials and len(officials) == len(own) else None,
    )


def _missing(images: int, whole: Known, classes: tuple[ClassCount, ...]) -> list[str]:
    lines = []
    if whole.images is not None and images < whole.images:
        lines.append(f"{whole.images - images:,} of the {whole.images:,} images")
    elif whole.images is not None and images > whole.images:
        lines.append(f"nothing, but there are {images - whole.images:,} images too many")
    none = [line.name for line in classes if not line.images]
    if none and whole.images is not None:
        lines.append(f"every image of {_named(none)}")
    if whole.each is not None:
        few = [f"{line.name} ({line.images})" for line in classes if line.images != whole.each]
        if few:
            lines.append(f"{whole.each} images in each class; others in {_named(few)}")
    return lines


def _named(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
