"""Datasets of COCO's annotation files of object instances."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fssbench.data.cache import saved_or_built
from fssbench.data.coco_masks import CocoMasks, Overlaps, file_name, read_annotations
from fssbench.data.dataset import Dataset
from fssbench.data.images import check_same_size, read_image
from fssbench.data.index import fingerprint, likely_first
from fssbench.errors import FssbenchError

log = logging.getLogger(__name__)


class CocoInstances(Dataset):
    """Base class of datasets with an annotation file of COCO's format for each split.

    The mask of a class is the union of its instances; masks of different classes may overlap. A
    crowd region of the class is 255 outside its instances; crowds of other classes are 0, because
    their class is known. Another rule: `overlaps`.

    The annotations of a split are read once and saved in the cache folder as compressed masks of
    each image and class. A subclass implements `annotations` and `image_folder`.

    Args:
        root: folder of the annotation files and the images.
        overlaps: pixels of several instances, see `fssbench.data.coco.CocoConfig`.

    Attributes:
        categories: names of the categories by id; a class id is an index in this order.
    """

    splits: tuple[str, ...] = ("train", "val")
    categories: Mapping[int, str]

    def __init__(self, root: Path, overlaps: Overlaps) -> None:
        self.root, self.overlaps = root, overlaps
        self._fingerprints: dict[str, str] = {}
        self._masks: dict[str, CocoMasks] = {}
        self._unsaved: set[str] = set()

    @abstractmethod
    def annotations(self, split: str) -> Path:
        """Return the annotation file of a split."""

    @abstractmethod
    def image_folder(self, split: str) -> Path:
        """Return the folder that the file names of a split's images are relative to."""

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
        check_same_size(mask, self.annotations(split), path, missing=_LISTED)
        return mask

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image."""
        split = self._split_of(image_id)
        return self.image_folder(split) / self._masks[split].file_name(image_id)

    def fingerprint(self, split: str = "val") -> str:
        """Return the SHA-256 (hex) of the split's name, annotation file, classes and options.

        Raises:
            FssbenchError: the split does not exist, or its annotation file is missing.
        """
        self.check_split(split)
        if split not in self._fingerprints:
            files = {split: self.annotations(split)}
            missing = f"no such file, the {split} annotations of {self.name}; put it there"
            options = "".join(f" {name}={value}" for name, value in self._options().items())
            found = fingerprint(f"{type(self).name}{options}", self.classes, files, missing)
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
        masks, saved = saved_or_built(
            f"{type(self).name}-{self.fingerprint(split)}",
            lambda: read_annotations(
                self.annotations(split), self.overlaps, self.categories, self._describe
            ),
            CocoMasks.from_arrays,
        )
        self._masks[split] = self._with_ids(masks, split)
        if not saved:
            self._unsaved.add(split)
        for problem in self.problems(split):
            log.warning("%s", problem)

    def problems(self, split: str) -> Sequence[str]:
        """Return a line about polygons that are invalid and not drawn."""
        self.prepare(split)
        count = self._masks[split].left_out
        where = f"{self.annotations(split)}: {count} polygons are invalid or empty"
        return [f"{where}; their objects are not in the masks"] if count else []

    def __getstate__(self) -> dict[str, Any]:
        kept = {split: self._masks[split] for split in self._unsaved}
        return {**self.__dict__, "_masks": kept}

    def _options(self) -> Mapping[str, str]:
        """Return options that change masks or folds, if they differ from their defaults."""
        return {} if self.overlaps == "union" else {"overlaps": self.overlaps}

    def _describe(self, image: Mapping[str, Any]) -> tuple[str, Iterable[int]]:
        """Describe an image of the annotation file; see `fssbench.data.coco_masks.Describe`."""
        return file_name(image)

    def _with_ids(self, masks: CocoMasks, split: str) -> CocoMasks:
        """Return the masks of a split with the dataset's image ids: the official numbers."""
        del split
        return masks

    def _split_of(self, image_id: str) -> str:
        for split, masks in self._masks.items():
            if image_id in masks:
                return split
        for split in likely_first(self.splits, self._fingerprints):
            if split not in self._masks and self.annotations(split).is_file():
                self.prepare(split)
                if image_id in self._masks[split]:
                    return split
        raise FssbenchError(f"{self.name} has no image {image_id!r} in {self.root}")


_LISTED = "no such image; the annotations list it, so put it there"
