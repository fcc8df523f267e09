"""COCO-20i: the 80 classes of COCO in four interleaved folds of twenty."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor

from fssbench.data.cache import saved_or_built
from fssbench.data.coco_masks import CATEGORIES, CocoMasks, Overlaps, read_annotations
from fssbench.data.dataset import Dataset
from fssbench.data.images import check_same_size, read_image
from fssbench.data.index import fingerprint, likely_first
from fssbench.errors import FssbenchError

log = logging.getLogger(__name__)

YEARS = ("2014", "2017")
"""Search order of ``auto``; the literature uses 2014."""


@attrs.frozen
class CocoConfig:
    """Options of `Coco`.

    Attributes:
        year: year of the annotation files ``instances_{train,val}YEAR.json``; ``auto`` uses 2014 if
            it exists, else 2017, else ``instances.json``.
        overlaps: pixels of several instances: ``union`` (they belong to each of their classes;
            crowds are 255) or ``painted`` (to the last instance in the order of the file; crowds
            are background), as in the label maps of HSNet, PFENet, BAM and HDMNet.
    """

    year: Literal["auto", "2014", "2017"] = "auto"
    overlaps: Overlaps = "union"


class Coco(Dataset):
    """COCO instances as class masks; fold i has the classes i, i + 4, …, i + 76 (HSNet, PFENet).

    The mask of a class is the union of its instances; masks of different classes may overlap. A
    crowd region of the class is 255 outside its instances; crowds of other classes are 0, because
    their class is known. Another rule: `CocoConfig.overlaps`.

    Layouts below the root:

    * ``annotations/instances_val2014.json`` with ``val2014/COCO_val2014_000000000042.jpg``, and so
      for ``train2014``, ``val2017`` and ``train2017``; image folders may be below ``images/``;
    * ``annotations/instances.json`` with ``images/``: both splits then contain every image.

    An image id is the official number with twelve digits, ``000000000042``. The annotations of a
    split are read once and saved in the cache folder as compressed masks of each image and class.

    Args:
        root: folder of ``annotations/`` and the images.
        config: see `CocoConfig`.

    Raises:
        FssbenchError: the root or its annotations are missing.
    """

    name: ClassVar[str] = "coco20i"
    classes = tuple(CATEGORIES.values())
    folds = 4
    splits = ("train", "val")

    def __init__(self, *, root: Path | None, config: CocoConfig | None = None) -> None:
        needs = "the folder that holds annotations/ and the images"
        if root is None:
            raise FssbenchError(f"{self.name} needs --data-root, {needs}")
        if not root.is_dir():
            raise FssbenchError(f"{self.name}: no folder {root}; --data-root must name {needs}")
        self.root = root
        config = config or CocoConfig()
        self.year = _year(root, config.year)
        self.overlaps = config.overlaps
        self._fingerprints: dict[str, str] = {}
        self._masks: dict[str, CocoMasks] = {}
        self._unsaved: set[str] = set()

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the twenty novel class ids of a fold."""
        self.check_fold(fold)
        return tuple(range(fold, len(self.classes), self.folds))

    def image_ids(self, split: str) -> Sequence[str]:
        """Return all images of the split's annotation file, with or without objects, by number."""
        self.prepare(split)
        return self._masks[split].image_ids

    def class_pixels(self, image_id: str) -> Mapping[int, int]:
        """Return the number of pixels of each class's mask."""
        return self._masks[self._split_of(image_id)].class_pixels(image_id)

    def image(self, image_id: str) -> Tensor:
        """Return the image as uint8 (3, H, W)."""
        return read_image(self.image_path(image_id), missing=_LISTED)

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return the mask of a class, uint8 (H, W): 1, 255 in crowds of a union, else 0."""
        split = self._split_of(image_id)
        mask = torch.from_numpy(self._masks[split].decode(image_id, class_id))
        path = self.image_path(image_id)
        check_same_size(mask, self._annotations(split), path, missing=_LISTED)
        return mask

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image."""
        split = self._split_of(image_id)
        return self._images(split) / self._masks[split].file_name(image_id)

    def fingerprint(self, split: str = "val") -> str:
        """Return the SHA-256 (hex) of the split's name, annotation file, classes and options.

        Raises:
            FssbenchError: the split does not exist, or its annotation file is missing.
        """
        self.check_split(split)
        if split not in self._fingerprints:
            files = {split: self._annotations(split)}
            missing = f"no such file, the {split} annotations of {self.name}; put it there"
            rule = "" if self.overlaps == "union" else f" overlaps={self.overlaps}"
            found = fingerprint(f"{self.name}{rule}", self.classes, files, missing)
            self._fingerprints[split] = found
        return self._fingerprints[split]

    def prepare(self, split: str) -> None:
        """Load the split's masks from the cache folder, or build them from the annotations.

        Raises:
            FssbenchError: the split does not exist, or its annotation file is missing or invalid.
        """
        self.check_split(split)
        if split in self._masks:
            return
        self._masks[split], saved = saved_or_built(
            f"{self.name}-{self.fingerprint(split)}",
            lambda: read_annotations(self._annotations(split), self.overlaps),
            CocoMasks.from_arrays,
        )
        if not saved:
            self._unsaved.add(split)
        for problem in self.problems(split):
            log.warning("%s", problem)

    def problems(self, split: str) -> Sequence[str]:
        """Return a line about polygons that are invalid and not drawn."""
        self.prepare(split)
        count = self._masks[split].left_out
        where = f"{self._annotations(split)}: {count} polygons are invalid or empty"
        return [f"{where}; their objects are not in the masks"] if count else []

    def __getstate__(self) -> dict[str, Any]:
        kept = {split: self._masks[split] for split in self._unsaved}
        return {**self.__dict__, "_masks": kept}

    def _annotations(self, split: str) -> Path:
        name = f"instances_{split}{self.year}" if self.year else "instances"
        return self.root / "annotations" / f"{name}.json"

    def _images(self, split: str) -> Path:
        if not self.year:
            return self.root / "images"
        folder = self.root / f"{split}{self.year}"
        nested = self.root / "images" / folder.name
        return nested if not folder.is_dir() and nested.is_dir() else folder

    def _split_of(self, image_id: str) -> str:
        for split, masks in self._masks.items():
            if image_id in masks:
                return split
        for split in likely_first(self.splits, self._fingerprints):
            if split not in self._masks and self._annotations(split).is_file():
                self.prepare(split)
                if image_id in self._masks[split]:
                    return split
        raise FssbenchError(f"{self.name} has no image {image_id!r} in {self.root}")


_LISTED = "no such image; the annotations list it, so put it there"


def _year(root: Path, wanted: str) -> str:
    """Return the year of the annotation files, or "" for the single file ``instances.json``."""
    folder = root / "annotations"
    years = YEARS if wanted == "auto" else (wanted,)
    for year in years:
        if any((folder / f"instances_{split}{year}.json").is_file() for split in Coco.splits):
            return year
    if wanted == "auto" and (folder / "instances.json").is_file():
        return ""
    names = [f"instances_val{year}.json" for year in years]
    names += ["instances.json"] if wanted == "auto" else []
    raise FssbenchError(
        f"{Coco.name}: no {' or '.join(names)} in {folder}; --data-root must name the folder that "
        "holds annotations/ and the images"
    )
