"""Datasets of images with a mask file each, whose images are all tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from fssbench.data.grey_masks import HALF
from fssbench.data.images import check_same_size, read_image
from fssbench.data.index import IndexedDataset
from fssbench.data.masks import read_foreground
from fssbench.errors import FssbenchError


@attrs.frozen
class Annotated:
    """Files of one image.

    Attributes:
        image: image file.
        mask: mask file.
        class_id: class of the mask's foreground, grey values of 128 and more; None for a mask in
            the colours of all classes.
    """

    image: Path
    mask: Path
    class_id: int | None = None


class AnnotatedImages(IndexedDataset):
    """Base class of datasets with one split, ``test``, and one fold, whose classes are all novel.

    Attributes:
        codes: colour of each class in a mask of all classes, 4 R + 2 G + B, where a channel is 1
            from a value of 128; other colours are background.

    Args:
        root: folder of the dataset, for error messages.
        files: files by image id, in the order of the split.

    Raises:
        FssbenchError: there are no files, or one is missing.
    """

    splits = ("test",)
    folds = 1
    codes: ClassVar[tuple[int, ...]] = ()

    def __init__(self, root: Path, files: Mapping[str, Annotated]) -> None:
        super().__init__()
        self.root, self.files = root, dict(files)
        for each in self.files.values():
            for path in (each.image, each.mask):
                if not path.is_file():
                    raise FssbenchError(f"{path}: no such file; complete the dataset in {root}")

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return all class ids."""
        self.check_fold(fold)
        return tuple(range(len(self.classes)))

    def image_ids(self, split: str) -> Sequence[str]:
        """Return the ids of all images."""
        self.check_split(split)
        return list(self.files)

    def image(self, image_id: str) -> Tensor:
        """Return the image as uint8 (3, H, W)."""
        return read_image(self.image_path(image_id))

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return the mask of a class as uint8 (H, W) of 0 and 1."""
        return (self._labels(image_id) == class_id + 1).to(torch.uint8)

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image."""
        return self._found(image_id).image

    def mask_path(self, image_id: str) -> Path:
        """Return the mask file of an image."""
        return self._found(image_id).mask

    def count_pixels(self, image_id: str) -> Mapping[int, int]:
        """Count the pixels of each class in a mask."""
        counts = torch.bincount(self._labels(image_id).flatten()).tolist()
        return {class_id: count for class_id, count in enumerate(counts[1:]) if count}

    def listed_in(self, split: str) -> str:
        """Return the root folder."""
        del split
        return str(self.root)

    def fitted(self, labels: Tensor, files: Annotated) -> Tensor:
        """Return labels (H, W) of the image's size.

        Raises:
            FssbenchError: the sizes differ.
        """
        check_same_size(labels, files.mask, files.image)
        return labels

    def _found(self, image_id: str) -> Annotated:
        if image_id not in self.files:
            raise FssbenchError(f"{self.name} has no image {image_id!r} in {self.root}")
        return self.files[image_id]

    def _labels(self, image_id: str) -> Tensor:
        """Return class id + 1 of each pixel, uint8 (H, W); 0 is background."""
        files = self._found(image_id)
        if files.class_id is not None:
            labels = read_foreground(files.mask, "bright") * (files.class_id + 1)
        else:
            label_of = torch.zeros(8, dtype=torch.uint8)
            label_of[list(self.codes)] = torch.arange(1, len(self.codes) + 1, dtype=torch.uint8)
            labels = label_of[colour_codes(files.mask).long()]
        return self.fitted(labels, files)


def colour_codes(path: Path) -> Tensor:
    """Return 4 R + 2 G + B of the channels of a picture, 1 from a value of 128, uint8 (H, W)."""
    bits: Tensor = (read_image(path) >= HALF).to(torch.uint8)
    return 4 * bits[0] + 2 * bits[1] + bits[2]


def by_stem(folder: Path, suffix: str, end: str = "") -> dict[str, Path]:
    """Return the files ``<name><end><suffix>`` of a folder by sorted name.

    Args:
        folder: folder, which may be missing.
        suffix: suffix of the files, e.g. ``.png``.
        end: end of their names, which is removed.
    """
    found = {path.stem.removesuffix(end): path for path in folder.glob(f"[!.]*{end}{suffix}")}
    return dict(sorted(found.items()))
