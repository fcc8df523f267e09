"""Conversion of COCO's annotation files to compressed masks of each image and class."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import attrs
import numpy as np

from fssbench.data.cache import Array, Arrays, pack_names, unpack_names
from fssbench.data.dataset import IGNORE
from fssbench.data.images import MOST_PIXELS
from fssbench.data.index import with_progress
from fssbench.data.json_arrays import top_level
from fssbench.data.run_lengths import Rle, rle, segmentation_mask, union
from fssbench.errors import FssbenchError

CATEGORIES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train",
    8: "truck", 9: "boat", 10: "traffic light", 11: "fire hydrant", 13: "stop sign",
    14: "parking meter", 15: "bench", 16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep",
    21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe", 27: "backpack",
    28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove",
    41: "skateboard", 42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass",
    47: "cup", 48: "fork", 49: "knife", 50: "spoon", 51: "bowl", 52: "banana", 53: "apple",
    54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot", 58: "hot dog", 59: "pizza",
    60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote",
    76: "keyboard", 77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink",
    82: "refrigerator", 84: "book", 85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear",
    89: "hair drier", 90: "toothbrush",
}  # fmt: skip
"""COCO's category ids and names; a class id is an index in this order."""

_KEYS = ("images", "annotations", "categories")
"""Keys of an annotation file whose lists are read."""

Overlaps = Literal["union", "painted"]


class CocoMasks:
    """Masks of N images: one of the instances and one of the crowds for each image and class.

    Args:
        numbers: int (N,), official image numbers, ascending.
        file_names: N names of image files.
        sizes: int (N, 2), height and width.
        starts: int (N + 1); the entries of image n are ``starts[n]`` to ``starts[n + 1]``.
        class_ids: int (E,), class id of each entry.
        pixels: int (E,), number of pixels of the instances, 0 for an entry of crowds only.
        cuts: int (2E + 1); the instances of entry e are ``runs[cuts[2e]:cuts[2e + 1]]``, its crowds
            ``runs[cuts[2e + 1]:cuts[2e + 2]]``; either may be empty.
        runs: uint8, all masks in pycocotools' compressed format.
        left_out: int (), number of polygons that are invalid and not drawn.

    Raises:
        ValueError: the lengths of the arrays do not match.
    """

    def __init__(
        self, *, numbers: Array, file_names: list[str], sizes: Array, starts: Array,
        class_ids: Array, pixels: Array, cuts: Array, runs: Array, left_out: Array,
    ) -> None:  # fmt: skip
        images, entries = len(numbers), len(class_ids)
        if not (
            images == len(file_names) == len(sizes) == len(starts) - 1
            and entries == len(pixels) == starts[-1]
            and len(cuts) == 2 * entries + 1
            and cuts[-1] == len(runs)
        ):
            raise ValueError("the arrays of the masks do not belong together")
        self.image_ids = [f"{number:012d}" for number in numbers.tolist()]
        self._rows = {image_id: row for row, image_id in enumerate(self.image_ids)}
        self._numbers, self._file_names, self._sizes = numbers, file_names, sizes
        self._starts, self._class_ids, self._pixels = starts, class_ids, pixels
        self._cuts, self._runs = cuts, runs
        self.left_out = int(left_out)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> CocoMasks:
        """Return the masks of the arrays that `arrays` returned."""
        numeric = {key: array for key, array in arrays.items() if key != "file_names"}
        return cls(file_names=unpack_names(arrays["file_names"]), **numeric)

    def arrays(self) -> Arrays:
        """Return the masks as arrays for `numpy.savez`."""
        return {
            "numbers": self._numbers,
            "file_names": pack_names(self._file_names),
            "sizes": self._sizes,
            "starts": self._starts,
            "class_ids": self._class_ids,
            "pixels": self._pixels,
            "cuts": self._cuts,
            "runs": self._runs,
            "left_out": np.array(self.left_out),
        }

    def by_file_name(self, prefix: str) -> CocoMasks:
        """Use the file names, after a prefix, as image ids in place of the numbers.

        Raises:
            ValueError: two images have the same file.
        """
        self.image_ids = [f"{prefix}{name}" for name in self._file_names]
        self._rows = {image_id: row for row, image_id in enumerate(self.image_ids)}
        for path, count in Counter(map(PurePosixPath, self._file_names)).items():
            if count > 1:  # also as ./NAME
                raise ValueError(f"two images have the file name {str(path)!r}")
        return self

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._rows

    def file_name(self, image_id: str) -> str:
        """Return the file name of an image."""
        return self._file_names[self._rows[image_id]]

    def class_pixels(self, image_id: str) -> dict[int, int]:
        """Return the number of pixels of each class with any."""
        entries = self._entries(image_id)
        counts = zip(self._class_ids[entries].tolist(), self._pixels[entries].tolist(), strict=True)
        return {class_id: pixels for class_id, pixels in counts if pixels}

    def annotated_images(self, classes: int) -> Array:
        """Return the number of images with instances or crowds of each of `classes` classes."""
        return np.bincount(self._class_ids, minlength=classes)

    def decode(self, image_id: str, class_id: int) -> Array:
        """Return the mask of a class, uint8 (H, W): 1 in instances, 255 in crowds, else 0."""
        size = self._sizes[self._rows[image_id]].tolist()
        entries = self._entries(image_id)
        mask = np.zeros(size, np.uint8)
        for entry in np.flatnonzero(self._class_ids[entries] == class_id) + entries.start:
            for part, value in ((2 * entry + 1, IGNORE), (2 * entry, 1)):
                runs = self._runs[self._cuts[part] : self._cuts[part + 1]].tobytes()
                if runs:
                    mask[rle.decode({"size": size, "counts": runs}).view(bool)] = value
        return mask

    def _entries(self, image_id: str) -> slice:
        row = self._rows[image_id]
        return slice(int(self._starts[row]), int(self._starts[row + 1]))


@attrs.frozen
class _Image:
    """An image of the file.

    Attributes:
        file_name: relative path.
        size: height and width.
        partial: ids of the categories of which only some instances are annotated.
    """

    file_name: str
    size: list[int]
    partial: frozenset[int]


_Part = tuple[int, bool, bytes]
"""Class id, True for a crowd, and compressed mask of an annotation."""

Describe = Callable[[Mapping[str, Any]], tuple[str, Iterable[int]]]
"""A function of an entry of ``images`` that returns the file name, and the ids of the categories of
which only some instances are annotated: these are read as crowds."""


def file_name(image: Mapping[str, Any]) -> tuple[str, Iterable[int]]:
    """Return the field ``file_name``, and no categories; the `Describe` of COCO."""
    return image["file_name"], ()


def read_annotations(
    path: Path,
    overlaps: Overlaps = "union",
    categories: Mapping[int, str] = CATEGORIES,
    describe: Describe = file_name,
) -> CocoMasks:
    """Draw the masks of an annotation file of COCO's object instances.

    The file is parsed twice, since its annotations may precede its images, and only one entry is in
    memory at a time. Polygons of fewer than three points or with invalid coordinates are skipped
    with a warning.

    Args:
        path: annotation file.
        overlaps: pixels of several instances, see `fssbench.data.coco.CocoConfig`.
        categories: names of the categories by id, which the file's must agree with; a class id is
            an index in this order.
        describe: file names and incompletely annotated categories of the images.

    Raises:
        FssbenchError: the file is not valid JSON of this format, or an annotation is invalid.
    """
    with _as_coco(path):
        for key, values in _entries(path, f"Reading {path.name}"):
            if key == "images":
                images = _images(values, describe)
            elif key == "categories":
                _check_categories(values, categories, path)
        for key, values in _entries(path, f"Drawing the masks of {path.name}"):
            if key == "annotations":
                parts, left_out = _draw(values, images, categories, path)
        return _merge(images, parts, overlaps, left_out, path)


def read_categories(path: Path) -> dict[int, str]:
    """Return the names of an annotation file's categories by id, in the order of the file.

    Raises:
        FssbenchError: the file is not valid JSON of this format, or a category is invalid.
    """
    with _as_coco(path):
        for key, values in _entries(path, f"Reading the categories of {path.name}"):
            if key == "categories":
                found = _categories(values)
        return found


def _categories(listed: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for category in listed:
        number, name = category["id"], category["name"]
        if not (type(number) is int and abs(number) < 1 << 63):
            raise ValueError(f"category id {ascii(number)[:40]} is no number")
        if not (type(name) is str and name.strip() and "\0" not in name):
            raise ValueError(f"category {number} has the name {ascii(name)[:40]}")
        name.encode()  # raises for text that is no Unicode
        if number in found:
            raise ValueError(f"category {number} is there twice")
        found[number] = name
    return found


@contextlib.contextmanager
def _as_coco(path: Path) -> Iterator[None]:
    """Convert errors of an annotation file's content to an `FssbenchError`."""
    try:
        yield
    except KeyError as error:
        raise FssbenchError(
            f"{path}: an entry has no {error.args[0]!r}; it must be a COCO file of object instances"
        ) from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FssbenchError(
            f"{path}: it must be a COCO file of object instances: {error}"
        ) from error


def _entries(path: Path, title: str) -> Iterator[tuple[str, Any]]:
    """Yield as `top_level`; raise an `FssbenchError` if the file has not all keys of the format."""
    missing = dict.fromkeys(_KEYS)
    for key, values in top_level(path, title):
        if key in _KEYS:
            missing.pop(key, None)
            if not isinstance(values, Iterator):
                raise TypeError(f"{key} is no list")
            yield key, _objects(key, values)
    if missing:
        raise FssbenchError(
            f"{path}: has no {', '.join(missing)}; it must be a COCO file of object instances"
        )


def _objects(key: str, values: Iterator[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of a list; one that is no JSON object is an error with its position."""
    for position, value in enumerate(values):
        if not isinstance(value, dict):
            raise TypeError(f"{key}[{position}] is {ascii(value)[:40]}, no object")
        yield value


def _draw(
    annotations: Iterable[Mapping[str, Any]],
    images: Mapping[int, _Image],
    categories: Iterable[int],
    path: Path,
) -> tuple[dict[int, list[_Part]], int]:
    """Return the masks of each image in the order of the file, and the number of skipped polygons.

    The annotations of an image need not follow each other.
    """
    class_ids = {category: class_id for class_id, category in enumerate(categories)}
    parts: dict[int, list[_Part]] = {number: [] for number in images}
    left_out = 0
    for annotation in annotations:
        number, category = annotation["image_id"], annotation["category_id"]
        if number not in images or category not in class_ids:
            what = f"image {number!r}" if number not in images else f"category {category!r}"
            raise FssbenchError(
                f"{path}: annotation {annotation.get('id')} is of {what}, which the file does not "
                "have; correct the annotation, or take the original file"
            )
        crowd = _is_crowd(annotation) or category in images[number].partial
        mask, wrong = segmentation_mask(annotation, images[number].size, path)
        left_out += wrong
        if mask:
            parts[number].append((class_ids[category], crowd, mask))
    return parts, left_out


def _merge(
    images: Mapping[int, _Image],
    parts: dict[int, list[_Part]],
    overlaps: Overlaps,
    left_out: int,
    path: Path,
) -> CocoMasks:
    """Return the masks of each image and class; `parts` is emptied."""
    of_classes = _unions if overlaps == "union" else _painted
    numbers = sorted(images)
    starts, class_ids, pixels, masks = [0], [], [], []
    for number in with_progress(numbers, f"Joining the masks of {path.name}", len(numbers)):
        for class_id, both in sorted(of_classes(parts.pop(number), images[number].size).items()):
            if any(rle.area(both)):
                class_ids.append(class_id)
                pixels.append(int(rle.area(both[0])))
                masks += [mask["counts"] for mask in both]
        starts.append(len(class_ids))
    return CocoMasks(
        numbers=np.array(numbers, np.int64),
        file_names=[images[number].file_name for number in numbers],
        sizes=np.array([images[number].size for number in numbers], np.int32),
        starts=np.array(starts, np.int64),
        class_ids=np.array(class_ids, np.int16),
        pixels=np.array(pixels, np.int32),
        cuts=np.cumsum([0, *map(len, masks)]),
        runs=np.frombuffer(b"".join(masks), np.uint8),
        left_out=np.array(left_out),
    )


def _images(listed: Iterable[Mapping[str, Any]], describe: Describe) -> dict[int, _Image]:
    """Return the images by number.

    Raises:
        TypeError, ValueError: an entry is invalid, or its file name leads out of the image folder.
    """
    found: dict[int, _Image] = {}
    for image in listed:
        number, size = image["id"], [image["height"], image["width"]]
        name, partial = describe(image)
        if not (type(number) is int and 0 <= number < 1 << 63):
            raise ValueError(f"image id {ascii(number)[:40]} is no number")
        if number in found:
            raise ValueError(f"image {number} is there twice")
        if type(name) is not str or not _is_inside(name):
            raise ValueError(f"image {number}: {ascii(name)[:80]} is no file name")
        if not all(type(side) is int and side > 0 for side in size) or (
            size[0] * size[1] > MOST_PIXELS
        ):
            raise ValueError(f"image {number}: {ascii(size)[:80]} is no size of an image")
        found[number] = _Image(name, size, frozenset(partial))
    return found


def _is_inside(name: str) -> bool:
    """Return True if a relative path stays below its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    os.fsencode(name)  # raises for text that cannot be a file name
    drive = ":" in path.parts[0] if path.parts else True
    return not (drive or path.is_absolute() or ".." in path.parts or "\0" in name)


def _check_categories(
    categories: Iterable[Mapping[str, Any]], known: Mapping[int, str], path: Path
) -> None:
    for category in categories:
        official = known.get(category["id"])
        if official != category["name"]:
            where, remedy = "COCO", "read files of other classes with the dataset 'coco-json'"
            if known is not CATEGORIES:
                where, remedy = "the file of the other split", "take the files of one release"
            raise FssbenchError(
                f"{path}: category {category['id']} is {category['name']!r}, in {where} it is "
                f"{official!r}; {remedy}"
            )


def _unions(parts: Iterable[_Part], size: list[int]) -> dict[int, list[Rle]]:
    """Return the masks of instances and crowds by class."""
    by_class: dict[int, tuple[list[Rle], list[Rle]]] = defaultdict(lambda: ([], []))
    for class_id, crowd, counts in parts:
        by_class[class_id][crowd].append({"size": size, "counts": counts})
    return {c: [union(masks, size) for masks in both] for c, both in by_class.items()}


def _painted(parts: Iterable[_Part], size: list[int]) -> dict[int, list[Rle]]:
    """Return as `_unions` the pixels of each class in one label map, painted without crowds."""
    labels = np.full(size, -1, np.int16, order="F")
    for class_id, crowd, counts in parts:
        if not crowd:
            labels[rle.decode({"size": size, "counts": counts}).view(bool)] = class_id
    seen = [class_id for class_id in np.unique(labels).tolist() if class_id >= 0]
    masks = {c: rle.encode(np.asfortranarray(labels == c, np.uint8)) for c in seen}
    return {class_id: [mask, union([], size)] for class_id, mask in masks.items()}


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Return True for a crowd region.

    Raises:
        ValueError: ``iscrowd`` is neither 0 nor 1, as a number, a boolean or a text.
    """
    value = str(annotation.get("iscrowd", 0)).strip().lower()
    known = {"0": False, "1": True, "false": False, "true": True, "none": False}
    if value not in known:
        raise ValueError(
            f"iscrowd of annotation {annotation.get('id')} is {annotation['iscrowd']!r}, not 0 or 1"
        )
    return known[value]
