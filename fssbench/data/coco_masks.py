"""Conversion of COCO's annotation files to compressed masks of each image and class."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pycocotools import mask as pycocotools_mask

from fssbench.data.cache import Array, Arrays, pack_names, unpack_names
from fssbench.data.dataset import IGNORE
from fssbench.data.images import MOST_PIXELS
from fssbench.data.index import with_progress
from fssbench.errors import FssbenchError
from fssbench.files import MIB, read_within

log = logging.getLogger(__name__)

rle: Any = pycocotools_mask  # without type annotations

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

FARTHEST = 1e5
"""Upper bound of the absolute value of polygon coordinates."""
LONGEST = 1e6
"""Upper bound of the outline of a polygon; the memory for drawing grows with its length."""
MOST_BYTES = 2048 * MIB
"""Maximum size of an annotation file; the largest official one has 450 MiB."""
_LAST_DIGIT = 60
"""Maximum bit offset of a digit in a compressed run length."""

Overlaps = Literal["union", "painted"]

Rle = dict[str, Any]
"""pycocotools' compressed mask: ``{"size": [H, W], "counts": bytes}``."""


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
        for row, name in enumerate(self._file_names):
            if self._rows[f"{prefix}{name}"] != row:
                raise ValueError(f"two images have the file name {name!r}")
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


def read_annotations(
    path: Path, overlaps: Overlaps = "union", categories: Mapping[int, str] = CATEGORIES
) -> CocoMasks:
    """Draw the masks of an annotation file of COCO's object instances.

    Polygons of fewer than three points or with invalid coordinates are skipped with a warning.

    Args:
        path: annotation file.
        overlaps: pixels of several instances, see `fssbench.data.coco.CocoConfig`.
        categories: names of the categories by id, which the file's must agree with; a class id is
            an index in this order.

    Raises:
        FssbenchError: the file is not valid JSON of this format, or an annotation is invalid.
    """
    content = _load_json(path)
    with _as_coco(path):
        return _draw(content, path, overlaps, categories)


def read_categories(path: Path) -> dict[int, str]:
    """Return the names of an annotation file's categories by id, in the order of the file.

    Raises:
        FssbenchError: the file is not valid JSON of this format, or a category is invalid.
    """
    content = _load_json(path)
    with _as_coco(path):
        found: dict[int, str] = {}
        for category in content["categories"]:
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


def _load_json(path: Path) -> dict[str, Any]:
    log.info("reading %s", path)
    try:
        content = json.loads(read_within(path, MOST_BYTES))
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError
        raise FssbenchError(
            f"{path}: is not a complete JSON file ({error}); download or unpack it again"
        ) from error
    wanted = ("images", "annotations", "categories")
    missing = [key for key in wanted if key not in content] if isinstance(content, dict) else wanted
    if missing:
        raise FssbenchError(
            f"{path}: has no {', '.join(missing)}; it must be a COCO file of object instances"
        )
    return dict(content)


def _draw(
    content: Mapping[str, Any], path: Path, overlaps: Overlaps, categories: Mapping[int, str]
) -> CocoMasks:
    _check_categories(content["categories"], categories, path)
    images = _images(content["images"])
    annotations = _by_image(content["annotations"], images, categories, path)
    of_classes = _unions if overlaps == "union" else _painted
    numbers = sorted(images)
    starts, class_ids, pixels, masks, left_out = [0], [], [], [], 0
    for number in with_progress(numbers, f"Drawing the masks of {path.name}", len(numbers)):
        size = [images[number]["height"], images[number]["width"]]
        drawn, wrong = of_classes(annotations[number], size, path)
        left_out += wrong
        for class_id, parts in sorted(drawn.items()):
            if any(rle.area(parts)):
                class_ids.append(class_id)
                pixels.append(int(rle.area(parts[0])))
                masks += [part["counts"] for part in parts]
        starts.append(len(class_ids))
    return CocoMasks(
        numbers=np.array(numbers, np.int64),
        file_names=[images[number]["file_name"] for number in numbers],
        sizes=np.array([[images[n]["height"], images[n]["width"]] for n in numbers], np.int32),
        starts=np.array(starts, np.int64),
        class_ids=np.array(class_ids, np.int16),
        pixels=np.array(pixels, np.int32),
        cuts=np.cumsum([0, *map(len, masks)]),
        runs=np.frombuffer(b"".join(masks), np.uint8),
        left_out=np.array(left_out),
    )


def _images(listed: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Return the images by number.

    Raises:
        TypeError, ValueError: an entry is invalid, or its file name leads out of the image folder.
    """
    found: dict[int, Mapping[str, Any]] = {}
    for image in listed:
        number, name, size = image["id"], image["file_name"], (image["height"], image["width"])
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
        found[number] = image
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
            raise FssbenchError(
                f"{path}: category {category['id']} is {category['name']!r}, in COCO it is "
                f"{official!r}; read files of other classes with the dataset 'coco-json'"
            )


def _by_image(
    annotations: Iterable[Mapping[str, Any]],
    images: Iterable[int],
    categories: Iterable[int],
    path: Path,
) -> dict[int, list[tuple[int, Mapping[str, Any]]]]:
    """Return (class id, annotation) of each image, in the order of the file."""
    class_ids = {category: class_id for class_id, category in enumerate(categories)}
    found: dict[int, list[tuple[int, Mapping[str, Any]]]] = {number: [] for number in images}
    for annotation in annotations:
        number, category = annotation["image_id"], annotation["category_id"]
        if number not in found or category not in class_ids:
            what = f"image {number}" if number not in found else f"category {category}"
            raise FssbenchError(
                f"{path}: annotation {annotation.get('id')} is of {what}, which the file does not "
                "have; correct the annotation, or take the original file"
            )
        found[number].append((class_ids[category], annotation))
    return found


def _unions(
    annotations: Iterable[tuple[int, Mapping[str, Any]]], size: list[int], path: Path
) -> tuple[dict[int, list[Rle]], int]:
    """Return the masks of instances and crowds by class, and the number of skipped polygons."""
    by_class: dict[int, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for class_id, annotation in annotations:
        by_class[class_id][_is_crowd(annotation)].append(annotation)
    drawn: dict[int, list[Rle]] = {}
    left_out = 0
    for class_id, of_class in by_class.items():
        drawn[class_id] = []
        for chosen in of_class:
            mask, wrong = _union(chosen, size, path)
            drawn[class_id].append(mask)
            left_out += wrong
    return drawn, left_out


def _painted(
    annotations: Iterable[tuple[int, Mapping[str, Any]]], size: list[int], path: Path
) -> tuple[dict[int, list[Rle]], int]:
    """Return as `_unions` the pixels of each class in one label map, painted without crowds."""
    labels = np.full(size, -1, np.int16, order="F")
    left_out = 0
    for class_id, annotation in annotations:
        if not _is_crowd(annotation):
            mask, wrong = _union([annotation], size, path)
            left_out += wrong
            if mask["counts"]:
                labels[rle.decode(mask).view(bool)] = class_id
    empty: Rle = {"size": size, "counts": b""}
    seen = [class_id for class_id in np.unique(labels).tolist() if class_id >= 0]
    masks = {c: rle.encode(np.asfortranarray(labels == c, np.uint8)) for c in seen}
    return {class_id: [mask, empty] for class_id, mask in masks.items()}, left_out


def _union(
    annotations: Iterable[Mapping[str, Any]], size: list[int], path: Path
) -> tuple[Rle, int]:
    """Return the union of the annotations' masks and the number of skipped polygons."""
    polygons: list[Array] = []
    masks: list[Rle] = []
    left_out = 0
    for annotation in annotations:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            if not segmentation:  # an object with a box only
                left_out += 1
            elif all(isinstance(number, int | float) for number in segmentation):
                segmentation = [segmentation]  # one polygon without the list around it
            good = [points for part in segmentation if (points := _polygon(part)) is not None]
            left_out += len(segmentation) - len(good)
            polygons += good
        else:
            try:
                masks.append(run_lengths(segmentation, size))
            except (TypeError, ValueError) as error:
                raise FssbenchError(
                    f"{path}: segmentation of annotation {annotation.get('id')}: {error}; "
                    "correct the annotation, or take the original file"
                ) from error
    if polygons:
        masks += rle.frPyObjects(polygons, *size)
    return (rle.merge(masks) if masks else {"size": size, "counts": b""}), left_out


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


def _polygon(points: Any) -> Array | None:
    """Return the corners x, y, x, y, … as float (2n,), or None if they are invalid."""
    try:
        corners = np.array(points, np.float64)
    except (TypeError, ValueError):
        return None
    whole = corners.ndim == 1 and len(corners) >= 6 and len(corners) % 2 == 0
    if not whole or not (np.abs(corners) < FARTHEST).all():  # False for NaN
        return None
    x, y = corners[::2], corners[1::2]
    steps = np.maximum(np.abs(x - np.roll(x, 1)), np.abs(y - np.roll(y, 1)))
    return corners if steps.sum() < LONGEST else None


def run_lengths(segmentation: Any, size: list[int]) -> Rle:
    """Return a run-length mask for pycocotools, which does not validate its input itself.

    Args:
        segmentation: ``{"size": [H, W], "counts": …}``, compressed or not.
        size: expected size, [H, W].

    Raises:
        TypeError: the segmentation is not run-length encoded.
        ValueError: its size differs, or its run lengths do not add up to the size.
    """
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise TypeError("is neither polygons nor run lengths")
    if list(segmentation["size"]) != size:
        raise ValueError(f"has the size {segmentation['size']}, its image {size}")
    counts = segmentation["counts"]
    if not isinstance(counts, list):
        counts = _expand(counts)
    if not all(type(count) is int for count in counts):
        raise TypeError("has run lengths that are no whole numbers")
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError(f"its run lengths do not add up to {size[0] * size[1]} pixels")
    mask: Rle = rle.frPyObjects({"size": size, "counts": counts}, *size)
    return mask


def _expand(text: str | bytes) -> list[int]:
    """Decode run lengths of pycocotools: 5-bit digits of differences to the count before last."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode() if isinstance(text, str) else text:
        digit = code - ord("0")
        if shift > _LAST_DIGIT:
            raise ValueError("has a run length that is no number of pixels")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        value -= (1 << shift) if digit & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
