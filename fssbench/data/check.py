"""Checks of a dataset on the disk: damaged files, and counts against the official ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import attrs
from torch import Tensor

from fssbench.data.dataset import Dataset
from fssbench.data.image_digest import content_hashes
from fssbench.data.images import image_size
from fssbench.data.index import IndexedDataset
from fssbench.data.official_counts import Known, known
from fssbench.data.own_data import OwnData
from fssbench.errors import FssbenchError

NEARLY = 0.95
"""Share of a split's images from which a class is in nearly every image, and share of an image's
pixels from which a mask is nearly the whole image."""
FEW_IMAGES = 10
"""Minimum number of images of a split for the check for classes in nearly every image."""
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


def sizes(dataset: Dataset, split: str) -> str:
    """Return a line about the sizes of a split's images and masks, in pixels.

    Raises:
        FssbenchError: a file cannot be read.
    """
    ids = dataset.image_ids(split)
    paths = [path for image_id in ids if (path := dataset.image_path(image_id)) is not None]
    areas = sorted((height * width, width, height) for height, width in map(image_size, paths))
    masks = [n for image_id in ids for n in dataset.class_pixels(image_id).values()]
    parts = []
    if areas:
        (_, *small), (_, *large) = areas[0], areas[-1]
        parts.append(f"images of {small[0]}x{small[1]} to {large[0]}x{large[1]}")
    if masks:
        parts.append(
            f"{len(masks):,} masks of {min(masks):,} to {max(masks):,}, median {median(masks):,.0f}"
        )
    return ", ".join(parts)


def suspicions(dataset: Dataset, splits: Sequence[str]) -> list[str]:
    """Return what is unusual in people's own data, one line each; none for other datasets.

    Args:
        dataset: dataset whose files can be read.
        splits: splits to examine.

    Raises:
        FssbenchError: a file cannot be read.
    """
    if not isinstance(dataset, OwnData):
        return []
    lines = [f"{split}: {line}" for split in splits for line in _unusual(dataset, split)]
    if {"train", "val"} <= set(splits) and not dataset.shares_images():
        trained, tested = (
            content_hashes(dataset, dataset.image_ids(split)) for split in ("train", "val")
        )
        of = {content: image_id for image_id, content in trained.items()}
        both = [f"{image} ({of[found]})" for image, found in tested.items() if found in of]
        if both:
            lines.append(
                f"val: {len(both)} images are also in train, with the same content: {_named(both)}"
            )
    return lines


def _unusual(dataset: Dataset, split: str) -> Iterable[str]:
    ids, images = dataset.image_ids(split), [0] * len(dataset.classes)
    framed: dict[str, list[str]] = {}
    empty = []
    for image_id in ids:
        pixels = dataset.class_pixels(image_id)
        for class_id in pixels:
            images[class_id] += 1
            if _is_frame(dataset.mask(image_id, class_id) == 1):
                framed.setdefault(dataset.classes[class_id], []).append(image_id)
        if not pixels:
            empty.append(image_id)
    named = dict(zip(dataset.classes, images, strict=True))
    if sum(map(bool, images)) > 1 and len(ids) >= FEW_IMAGES:
        for name, count in named.items():
            if count >= NEARLY * len(ids):
                yield f"class {name} is in {count} of {len(ids)} images"
    for name, where in framed.items():
        yield (
            f"{len(where)} masks of class {name} are the frame of the image or all of it: "
            f"{_named(where)}"
        )
    if none := [name for name, count in named.items() if not count]:
        yield f"{len(none)} classes have no annotation: {_named(none)}"
    if empty:
        yield f"{len(empty)} images have no annotation: {_named(empty)}"


def _is_frame(mask: Tensor) -> bool:
    """Return True if a mask (H, W) has all pixels of the image's edge, or nearly all pixels."""
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return all(bool(edge.all()) for edge in edges) or float(mask.float().mean()) >= NEARLY


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
