"""Interface of datasets."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from fssbench.errors import FssbenchError
from fssbench.specs import SupportKind

IGNORE = 255
"""Mask value of pixels that are excluded from all counts."""


class Dataset(ABC):
    """Images with class masks, divided into folds of classes and splits of images.

    Objects must be picklable, because loader processes receive copies.

    Attributes:
        name: registered name; an object of people's own data may replace it by the user's name.
        classes: class names; a class id is an index into them.
        folds: number of class splits.
        splits: names of the image splits, e.g. ``("train", "val")``.
        novel_classes: novel class ids of each fold, where classes and folds are the same for all
            files and options; otherwise empty. Training classes of checkpoints that do not name
            them follow from it.
        support_kind: annotation that supports show, set by the protocol. `mask` returns the whole
            mask for each kind; `fssbench.episodes.annotations.support_mask` applies the kind.
    """

    name: ClassVar[str]
    classes: tuple[str, ...]
    folds: int = 1
    splits: tuple[str, ...] = ("train", "val")
    support_kind: SupportKind = "mask"
    novel_classes: tuple[tuple[int, ...], ...] = ()

    @property
    def folds_of(self) -> str:
        """The name of the dataset whose folds divide the classes, mostly its own name."""
        return self.name

    @abstractmethod
    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the novel class ids of a fold, ascending; all others are base classes.

        Raises:
            FssbenchError: the fold does not exist (use `check_fold`).
        """

    @abstractmethod
    def image_ids(self, split: str) -> Sequence[str]:
        """Return the image ids of a split in a fixed order.

        Raises:
            FssbenchError: the split does not exist (use `check_split`), or its list is missing.
        """

    @abstractmethod
    def class_pixels(self, image_id: str) -> Mapping[int, int]:
        """Return the number of pixels of each class in an image, at its original size.

        Classes without pixels are omitted; ignored pixels (255) belong to no class.
        """

    @abstractmethod
    def image(self, image_id: str) -> Tensor:
        """Return the image as uint8 (3, H, W), RGB, at its original size.

        Raises:
            FssbenchError: the file is missing or cannot be decoded.
        """

    @abstractmethod
    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return the mask of a class in an image: uint8 (H, W) of 0, 1 and 255 (ignore).

        Raises:
            FssbenchError: the file is missing or cannot be decoded, or its size differs from the
                image's.
        """

    @abstractmethod
    def fingerprint(self, split: str = "val") -> str:
        """Return the hash (hex) of a split's annotations, independent of their location."""

    def image_path(self, image_id: str) -> Path | None:
        """Return the file of an image; None, the default, if there is none."""
        del image_id
        return None

    def image_digest(self, image_id: str) -> str:
        """Return a hash (hex) of the content of an image without a file: of its pixels."""
        image = self.image(image_id)
        shape = "x".join(map(str, image.shape))
        return hashlib.sha256(shape.encode() + image.numpy().tobytes()).hexdigest()

    def prepare(self, split: str) -> None:
        """Do slow one-time work for a split, e.g. build an index, before `class_pixels`."""

    def problems(self, split: str) -> Sequence[str]:
        """Return problems of a split that do not prevent its use, one line each."""
        del split
        return ()

    def check_fold(self, fold: int) -> None:
        """Raise an `FssbenchError` unless the dataset has this fold."""
        if not 0 <= fold < self.folds:
            known = "only fold 0" if self.folds == 1 else f"folds 0 to {self.folds - 1}"
            raise FssbenchError(f"{self.name} has no fold {fold}; it has {known}")

    def check_split(self, split: str) -> None:
        """Raise an `FssbenchError` unless the dataset has this split."""
        if split not in self.splits:
            raise FssbenchError(
                f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}"
            )
