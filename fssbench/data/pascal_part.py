"""PASCAL-Part: parts of the objects of PASCAL VOC 2010, four folds of one superclass each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pycocotools import mask as pycocotools_mask
from torch import Tensor

from fssbench.data.images import image_size, read_image
from fssbench.data.index import IndexedDataset
from fssbench.data.own_data import own_root, read_table
from fssbench.data.run_lengths import run_lengths
from fssbench.errors import FssbenchError

rle: Any = pycocotools_mask  # without type annotations

LIST = "all_obj_part_to_image.json"
IMAGES = "JPEGImages"
PARTS = "Annotations_Part_json_merged_part_classes"
SUPERCLASSES = ("animals", "indoor", "person", "vehicles")
"""Superclass of each fold, as in Matcher's ``matcher/data/pascal_part.py``."""
LEFT_OUT = "aeroplane:TAIL"
"""Class that Matcher's loader skips."""
_BOX = ("xmin", "ymin", "xmax", "ymax")


class PascalPart(IndexedDataset):
    """Parts of PASCAL-Part (Chen et al., CVPR 2014), one cut-out object an image.

    The annotations are Matcher's: the 166 parts of the official files merged to coarse ones
    (``FACE``, ``TORSO``, …), as JSON. A class ``object:PART`` is a part with images in train and in
    val, in the order of the list file. As in Matcher, SANSA and INSID3, an image is the box of one
    object, rows ymin to ymax - 1 and columns xmin to xmax - 1, and its masks are the parts of this
    object. An image id is ``IMAGE/N``, object N of the annotation file of an image, from 0.

    Args:
        root: the folder ``VOC2010``, or a folder with ``VOC2010`` or ``VOCdevkit/VOC2010``.
        config: always None; `PascalPart` has no options.

    Raises:
        FssbenchError: the root or the list file is missing, or the list file is invalid.
    """

    name: ClassVar[str] = "pascal-part"
    folds = len(SUPERCLASSES)
    splits = ("train", "val")

    def __init__(self, *, root: Path | None, config: None = None) -> None:
        del config
        super().__init__()
        needs = f"the folder that holds {LIST}, {PARTS} and {IMAGES}"
        root = own_root(self.name, root, needs)
        folders = (root, root / "VOC2010", root / "VOCdevkit" / "VOC2010")
        found = [folder for folder in folders if (folder / LIST).is_file()]
        if not found:
            raise FssbenchError(
                f"{self.name}: no {LIST} in {root} or its VOC2010; --data-root must name {needs}"
            )
        self.folder = found[0]
        lists = _lists(self.folder / LIST)
        self.classes = tuple(name for of_fold in lists for name in of_fold)
        self._ids = {name: class_id for class_id, name in enumerate(self.classes)}
        starts = np.cumsum([0, *map(len, lists)]).tolist()
        self._folds = [tuple(range(starts[n], starts[n + 1])) for n in range(self.folds)]
        self._images = {
            split: sorted(
                {i for of_fold in lists for part in of_fold.values() for i in part[split]}
            )
            for split in self.splits
        }
        self._objects: dict[str, tuple[str, ...]] = {}

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the class ids of the parts of a superclass."""
        self.check_fold(fold)
        return self._folds[fold]

    def image_ids(self, split: str) -> Sequence[str]:
        """Return the ids of the objects with a part of a class, by image.

        Raises:
            FssbenchError: the split does not exist, or an annotation file is missing or invalid.
        """
        self.check_split(split)
        if split not in self._objects:
            self._objects[split] = tuple(
                f"{image}/{number}"
                for image in self._images[split]
                for number, found in enumerate(_read_objects(self._annotation(image)))
                if _has_pixels(found) and any(name in self._ids for name in found["parts"])
            )
        return self._objects[split]

    def image(self, image_id: str) -> Tensor:
        """Return the cut-out object as uint8 (3, H, W)."""
        found = self._object(image_id)
        return _cut(read_image(self._picture(image_id)), found["box"])

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return the mask of a part of the object as uint8 (H, W) of 0 and 1."""
        return self._mask(image_id, self._object(image_id), self.classes[class_id])

    def mask_path(self, image_id: str) -> Path:
        """Return the annotation file of the image of an object."""
        return self._annotation(image_id.partition("/")[0])

    def count_pixels(self, image_id: str) -> Mapping[int, int]:
        """Count the pixels of each part of the object."""
        found = self._object(image_id)
        names = sorted(name for name in found["parts"] if name in self._ids)
        counts = {self._ids[n]: int(self._mask(image_id, found, n).sum()) for n in names}
        return {class_id: count for class_id, count in counts.items() if count}

    def listed_in(self, split: str) -> str:
        """Return the list file of both splits."""
        del split
        return str(self.folder / LIST)

    def _annotation(self, image: str) -> Path:
        return self.folder / PARTS / f"{image}.json"

    def _picture(self, image_id: str) -> Path:
        return self.folder / IMAGES / f"{image_id.partition('/')[0]}.jpg"

    def _object(self, image_id: str) -> dict[str, Any]:
        path, number = self.mask_path(image_id), image_id.partition("/")[2]
        objects = _read_objects(path)
        if not number.isdecimal() or int(number) >= len(objects):
            raise FssbenchError(f"{path}: has {len(objects)} objects, and no object {number!r}")
        return objects[int(number)]

    def _mask(self, image_id: str, found: Mapping[str, Any], name: str) -> Tensor:
        size = list(image_size(self._picture(image_id)))
        try:
            masks = [run_lengths(mask, size) for mask in found["parts"].get(name, ())]
        except (TypeError, ValueError) as error:
            raise FssbenchError(
                f"{self.mask_path(image_id)}: a mask of {name} {error}; correct the file"
            ) from error
        merged = rle.decode(rle.merge(masks)) if masks else np.zeros(size, np.uint8)
        return _cut(torch.from_numpy(np.ascontiguousarray(merged)), found["box"])


def _cut(pixels: Tensor, box: Sequence[int]) -> Tensor:
    """Return the pixels (…, H, W) of a box xmin, ymin, xmax, ymax without its last row, column."""
    return pixels[..., box[1] : box[3], box[0] : box[2]].contiguous()


def _has_pixels(found: Mapping[str, Any]) -> bool:
    left, top, right, bottom = found["box"]
    return bool(0 <= left < right and 0 <= top < bottom)


def _read_objects(path: Path) -> list[dict[str, Any]]:
    """Return the box and the masks by class name of each object of an annotation file."""
    try:
        objects = json.loads(path.read_text("utf-8"))["object"]
        found = []
        for item in objects:
            parts: dict[str, list[Any]] = {}
            for part in item["parts"]:
                parts.setdefault(f"{item['name']}:{part['name']}", []).extend(part["mask"])
            found.append({"box": [int(item["bndbox"][side]) for side in _BOX], "parts": parts})
        return found
    except OSError as error:
        raise FssbenchError(
            f"{path}: cannot be read: {error.strerror}; {LIST} lists its image"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FssbenchError(
            f"{path}: must have a list 'object' with name, bndbox and parts (name, mask): {error!r}"
        ) from error


def _lists(path: Path) -> list[dict[str, dict[str, list[str]]]]:
    """Return the images of train and val by class name, for each superclass."""
    content = read_table(path)
    found = []
    try:
        for superclass in SUPERCLASSES:
            parts = {
                f"{name}:{part}": {split: [str(i) for i in lists[split]]
                                   for split in PascalPart.splits}
                for name, of_object in content[superclass]["object"].items()
                for part, lists in of_object["part"].items()
            }  # fmt: skip
            found.append(
                {name: part for name, part in parts.items()
                 if all(part.values()) and name != LEFT_OUT}
            )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise FssbenchError(
            f"{path}: must have SUPERCLASS.object.NAME.part.NAME.train and val for "
            f"{', '.join(SUPERCLASSES)}: {error!r}"
        ) from error
    return found
