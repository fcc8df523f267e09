"""PASCAL-5i: the 20 classes of PASCAL VOC 2012 in four folds of five."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from fssbench.data.class_names import same_name
from fssbench.data.coco import Coco
from fssbench.data.dataset import IGNORE
from fssbench.data.images import check_same_size, read_image
from fssbench.data.index import IndexedDataset, list_lines
from fssbench.data.masks import Palette, read_labels
from fssbench.errors import FssbenchError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""Class names in VOC order; the mask value of a class is its class id + 1."""

AUGMENTED, PLAIN = "SegmentationClassAug", "SegmentationClass"
LISTS: dict[str, dict[str, tuple[str, ...]]] = {
    AUGMENTED: {"train": ("train_aug.txt", "trainaug.txt"), "val": ("val.txt",)},
    PLAIN: {"train": ("train.txt",), "val": ("val.txt",)},
}


@attrs.frozen
class PascalConfig:
    """Options of `Pascal`.

    Attributes:
        labels: mask folder: ``SegmentationClassAug`` (VOC with the SBD masks; its training list is
            ``train_aug.txt`` or ``trainaug.txt``), ``SegmentationClass`` (VOC alone; its
            training list is ``train.txt``), or ``auto``: the first existing one.
        train_list: list file of the split ``train`` in place of that list, such as PFENet's, BAM's
            and HDMNet's ``voc_sbd_merge_noduplicate.txt`` of 5,953 images; "" for the list above.
        palette: class of a pixel of a palette file: its ``index``, the class of its ``colour`` in
            VOC's colour map, or ``auto``: the index, or the colour if all colours are VOC's in
            another order.
        folds: novel classes of fold i: the classes 5i to 5i + 4 (``pascal``), or those whose COCO
            class is novel in fold i of COCO-20i (``coco``), for methods that were trained there.
    """

    labels: Literal["auto", "SegmentationClassAug", "SegmentationClass"] = "auto"
    train_list: str = ""
    palette: Palette = "auto"
    folds: Literal["pascal", "coco"] = "pascal"


class ClassLabels(IndexedDataset):
    """Base class of datasets whose label maps have the value class id + 1, and 255 for void pixels.

    Folds are runs of consecutive classes of equal length. A subclass implements `image_ids`,
    `image_path`, `mask_path` and `listed_in`.

    Attributes:
        palette: meaning of palette files, as in `PascalConfig`.
        missing: text of the error for a missing image or mask, with ``{what}``.
    """

    palette: Palette = "auto"
    missing: ClassVar[str]

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the novel class ids of a fold."""
        self.check_fold(fold)
        count = len(self.classes) // self.folds
        return tuple(range(count * fold, count * (fold + 1)))

    @abstractmethod
    def image_path(self, image_id: str) -> Path:
        """Return the file of an image."""

    def image(self, image_id: str) -> Tensor:
        """Return the image as uint8 (3, H, W)."""
        return read_image(self.image_path(image_id), missing=self.missing.format(what="image"))

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return the mask of a class, uint8 (H, W): 1, 255 on void pixels, else 0."""
        labels = self._labels(image_id).numpy()
        void = (labels == IGNORE).astype(np.uint8) * np.uint8(IGNORE)
        return torch.from_numpy((labels == class_id + 1) | void)

    def count_pixels(self, image_id: str) -> Mapping[int, int]:
        """Count the pixels of each class in an image's label map."""
        counts = torch.bincount(self._labels(image_id).flatten(), minlength=IGNORE + 1).tolist()
        return {c: counts[c + 1] for c in range(len(self.classes)) if counts[c + 1]}

    def _labels(self, image_id: str) -> Tensor:
        path, image = self.mask_path(image_id), self.image_path(image_id)
        labels = read_labels(path, self.palette, missing=self.missing.format(what="mask"))
        check_same_size(labels, path, image, missing=self.missing.format(what="image"))
        highest = int((labels + 1).max()) - 1  # uint8: 255 becomes 0
        if highest > len(self.classes):
            raise FssbenchError(
                f"{path}: contains the value {highest}; "
                f"a mask of {self.name} has 0 to {len(self.classes)} and {IGNORE}"
            )
        return labels


class Pascal(ClassLabels):
    """PASCAL VOC 2012 segmentation; fold i has the classes 5i to 5i + 4 (Shaban et al., 2017).

    The folds of the option ``folds=coco`` have 6, 4, 6 and 4 classes, those of RePRI (Boudiaf et
    al., CVPR 2021): figures/coco2pascal.png and src/dataset/classes.py of
    mboudiaf/RePRI-for-Few-Shot-Segmentation.

    Args:
        root: the folder ``VOC2012``, or a folder with ``VOC2012`` or ``VOCdevkit/VOC2012``.
        config: see `PascalConfig`.

    Raises:
        FssbenchError: the root is missing or has no VOC2012.
    """

    name: ClassVar[str] = "pascal5i"
    classes = CLASSES
    folds = 4
    novel_classes = tuple(tuple(range(5 * fold, 5 * fold + 5)) for fold in range(4))
    splits = ("train", "val")
    missing = "no such {what}; it belongs to an image that ImageSets/Segmentation lists"

    def __init__(self, *, root: Path | None, config: PascalConfig | None = None) -> None:
        super().__init__()
        self.folder = _voc_folder(root)
        config = config or PascalConfig()
        wanted, self.palette = config.labels, config.palette
        self.train_list = Path(config.train_list).expanduser() if config.train_list else None
        if self.palette != "auto":
            self.mask_options = {"palette": self.palette}
        self._coco_folds = config.folds == "coco"
        if self._coco_folds:
            self.mask_options = {**self.mask_options, "folds": config.folds}
            self.novel_classes = _coco_folds()
        choices = (AUGMENTED, PLAIN) if wanted == "auto" else (wanted,)
        there = [labels for labels in choices if (self.folder / labels).is_dir()]
        if not there:
            raise FssbenchError(
                f"{self.name}: no folder {' or '.join(choices)} in {self.folder}; "
                "put the masks there"
            )
        self.labels = there[0]
        self._ids: dict[str, tuple[str, ...]] = {}

    @property
    def folds_of(self) -> str:
        """The name of the dataset whose folds divide the classes."""
        return Coco.name if self._coco_folds else self.name

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the novel class ids of a fold."""
        self.check_fold(fold)
        return self.novel_classes[fold]

    def image_ids(self, split: str) -> Sequence[str]:
        """Return the sorted image ids of the split's list.

        A line of the list contains an image id, or the paths of image and mask.

        Raises:
            FssbenchError: the split does not exist, or its list is missing or empty.
        """
        self.check_split(split)
        if split not in self._ids:
            path = self._list(split)
            lines = list_lines(path)
            ids = {PurePosixPath(line.split()[0]).stem for line in lines if line.strip()}
            if not ids:
                raise FssbenchError(f"{path}: lists no image; write one image id a line")
            self._ids[split] = tuple(sorted(ids))
        return self._ids[split]

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image."""
        return self.folder / "JPEGImages" / f"{image_id}.jpg"

    def mask_path(self, image_id: str) -> Path:
        """Return the label map of an image."""
        return self.folder / self.labels / f"{image_id}.png"

    def listed_in(self, split: str) -> str:
        """Return the name of a split's list file."""
        return self._list(split).name

    def problems(self, split: str) -> Sequence[str]:
        """Return a line for each image of ``train`` that is also in the list of ``val``."""
        with contextlib.suppress(FssbenchError):  # there is no list of the split val
            if split != "train":
                return ()
            shared = set(self.image_ids("train")) & set(self.image_ids("val"))
            where = f"{self._list('train').name} and {self._list('val').name}"
            return [f"{image_id}: is in {where}; remove it from one" for image_id in sorted(shared)]
        return ()

    def _list(self, split: str) -> Path:
        if split == "train" and self.train_list is not None:
            return self.train_list
        folder = self.folder / "ImageSets" / "Segmentation"
        names = LISTS[self.labels][split]
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise FssbenchError(
            f"{folder}: no {' or '.join(names)}, the {split} list of {self.name} with "
            f"{self.labels}; put it there"
        )


def _coco_folds() -> tuple[tuple[int, ...], ...]:
    """Return the class ids whose COCO class is novel in each fold of COCO-20i."""
    novel = [{same_name(Coco.classes[c]) for c in ids} for ids in Coco.novel_classes]
    return tuple(
        tuple(c for c, name in enumerate(CLASSES) if same_name(name) in names) for names in novel
    )


def _voc_folder(root: Path | None) -> Path:
    name = Pascal.name
    if root is None:
        raise FssbenchError(f"{name} needs --data-root, the folder that holds VOC2012")
    if not root.is_dir():
        raise FssbenchError(
            f"{name}: no folder {root}; --data-root must name the folder that holds VOC2012"
        )
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise FssbenchError(
        f"{name}: no folder VOC2012 below {root}; --data-root must name the folder that holds "
        "VOC2012 (JPEGImages, SegmentationClassAug, ImageSets)"
    )
