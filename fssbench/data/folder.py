"""Datasets of class folders, with one mask for each image."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from fssbench.data.images import MISSING, check_same_size, read_grey, read_image
from fssbench.data.index import IndexedDataset
from fssbench.errors import FssbenchError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
HALF = 128
"""Grey value from which a mask pixel is foreground."""


@attrs.frozen
class Pair:
    """Image and mask file of one annotated image."""

    image: Path
    mask: Path


class ClassFolders(IndexedDataset):
    """Base class of datasets with one folder for each class; image ids are ``class/name``.

    The images of a split are ordered by class and then by name, in natural order (2 before 10).
    There is one fold.

    Args:
        root: folder of the class folders.

    Raises:
        FssbenchError: the root is missing or contains no folders.
    """

    splits = ("train", "val", "test")
    folds = 1

    def __init__(self, *, root: Path | None) -> None:
        super().__init__()
        needs = "the folder that holds one folder for each class"
        if root is None:
            raise FssbenchError(f"{self.name} needs --data-root, {needs}")
        if not root.is_dir():
            raise FssbenchError(f"{self.name}: no folder {root}; --data-root must name {needs}")
        self.root = root
        self.classes = tuple(sorted(p.name for p in _visible(root) if p.is_dir()))
        if not self.classes:
            raise FssbenchError(
                f"{self.name}: no class folders in {root}; --data-root must name {needs}"
            )
        self._pairs: dict[str, dict[str, Pair]] = {}

    def split_classes(self, split: str) -> Sequence[str]:
        """Return the names of the classes of a split: all classes by default."""
        self.check_split(split)
        return self.classes

    @abstractmethod
    def foreground(self, path: Path) -> Tensor:
        """Return the foreground of a mask file as uint8 (H, W) of 0 and 1."""

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the class ids of the test split."""
        self.check_fold(fold)
        novel = set(self.split_classes("test"))
        return tuple(c for c, name in enumerate(self.classes) if name in novel)

    def image_ids(self, split: str) -> Sequence[str]:
        """Return the ids ``class/name`` of the split's images.

        Raises:
            FssbenchError: the split does not exist, or an image has no mask.
        """
        classes = self.split_classes(split)
        return [f"{name}/{stem}" for name in classes for stem in self._of_class(name)]

    def image(self, image_id: str) -> Tensor:
        """Return the image as uint8 (3, H, W)."""
        return read_image(self._pair(image_id).image)

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return the mask as uint8 (H, W) of 0 and 1; zeros for other classes than the image's."""
        mask = self._own_mask(image_id)
        return mask if self._class_id(image_id) == class_id else torch.zeros_like(mask)

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image."""
        return self._pair(image_id).image

    def mask_path(self, image_id: str) -> Path:
        """Return the mask file of an image."""
        return self._pair(image_id).mask

    def count_pixels(self, image_id: str) -> Mapping[int, int]:
        """Count the foreground pixels of the image's class."""
        pixels = int(torch.count_nonzero(self._own_mask(image_id)))
        return {self._class_id(image_id): pixels} if pixels else {}

    def listed_in(self, split: str) -> str:
        """Return the root folder."""
        return str(self.root)

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_pairs": {}}

    def _of_class(self, name: str) -> dict[str, Pair]:
        if name not in self._pairs:
            self._pairs[name] = find_pairs(self.root / name)
        return self._pairs[name]

    def _pair(self, image_id: str) -> Pair:
        name, _, stem = image_id.partition("/")
        if name not in self.classes or stem not in self._of_class(name):
            raise FssbenchError(f"{self.name} has no image {image_id!r} in {self.root}")
        return self._of_class(name)[stem]

    def _class_id(self, image_id: str) -> int:
        return self.classes.index(image_id.partition("/")[0])

    def _own_mask(self, image_id: str) -> Tensor:
        pair = self._pair(image_id)
        mask = self.foreground(pair.mask)
        check_same_size(mask, pair.mask, pair.image)
        return mask


class Folder(ClassFolders):
    """User images in one of two layouts, which class folders may mix.

    * ``<class>/<name>.jpg`` (.jpeg, .png, .bmp, .webp) with ``<name>.png`` beside an image that is
      no PNG, or with ``<name>_mask.png``;
    * ``<class>/images/<name>.jpg`` (…) with ``<class>/masks/<name>.png``.

    A mask is converted to grey. If its maximum is at most 1, then 1 is foreground; otherwise values
    of 128 and more are. So 255 is foreground here and no pixel is ignored. All three splits and the
    one fold contain all images.

    Args:
        root: folder of the class folders.
        config: always None; `Folder` has no options.

    Raises:
        FssbenchError: the root is missing or contains no folders.
    """

    name: ClassVar[str] = "folder"

    def __init__(self, *, root: Path | None, config: None = None) -> None:
        super().__init__(root=root)

    def foreground(self, path: Path) -> Tensor:
        """Return the foreground of a mask, as `read_marked`."""
        return read_marked(path)


def read_marked(path: Path, *, missing: str = MISSING, upright: bool = False) -> Tensor:
    """Return the foreground of a mask file as uint8 (H, W) of 0 and 1.

    If the maximum is at most 1, then 1 is foreground; otherwise values of 128 and more are.

    Args:
        path: mask file, shown in errors as given.
        missing: text of the error for a missing file.
        upright: apply the EXIF orientation.

    Raises:
        FssbenchError: the file cannot be read, or its maximum is between 2 and 127.
    """
    grey = read_grey(path, missing=missing, upright=upright)
    brightest = int(grey.max())
    if 1 < brightest < HALF:
        raise FssbenchError(
            f"{path}: its brightest pixel is {brightest} of 255, so nothing in it is "
            "foreground; write foreground as 255, or as 1 and nothing above"
        )
    return grey if brightest <= 1 else (grey >= HALF).to(torch.uint8)


def find_pairs(folder: Path) -> dict[str, Pair]:
    """Images and masks in a class folder by the image's name without suffix, 2 before 10.

    Raises:
        FssbenchError: there is no image, or one has no mask or two.
    """
    nested = (folder / "images").is_dir()
    pairs = _nested_pairs(folder) if nested else _flat_pairs(folder)
    if not pairs:
        where = folder / "images" if nested else folder
        raise FssbenchError(
            f"{where}: holds no images ({' '.join(SUFFIXES)}); "
            "every folder below --data-root must be a class"
        )
    return {stem: pairs[stem] for stem in sorted(pairs, key=_as_people_count)}


def _nested_pairs(folder: Path) -> dict[str, Pair]:
    masks = {path.stem: path for path in _visible(folder / "masks") if _is_png(path)}
    pairs = {}
    for stem, image in _by_stem(_pictures(folder / "images")).items():
        if stem not in masks:
            raise FssbenchError(f"{folder / 'masks' / stem}.png: no such mask for {image}; add it")
        pairs[stem] = Pair(image, masks[stem])
    return pairs


def _flat_pairs(folder: Path) -> dict[str, Pair]:
    pictures = _pictures(folder)
    marked = {p.stem.removesuffix("_mask"): p for p in pictures if _is_marked(p)}
    plain = {p.stem: p for p in pictures if _is_png(p) and not _is_marked(p)}
    images = _by_stem(p for p in pictures if not _is_png(p))
    pairs = {}
    for stem, image in images.items():
        masks = [found[stem] for found in (plain, marked) if stem in found]
        if not masks:
            raise FssbenchError(f"{folder / stem}.png: no such mask for {image}; add it")
        if len(masks) == 2:
            raise FssbenchError(
                f"{image}: two masks, {masks[0].name} and {masks[1].name}; keep one"
            )
        pairs[stem] = Pair(image, masks[0])
    for stem, image in plain.items():
        if stem in images:
            continue
        if stem not in marked:
            raise FssbenchError(
                f"{folder / stem}_mask.png: no such mask for {image}; add it (or, where "
                f"{image.name} is itself a mask, the image {stem}.jpg)"
            )
        pairs[stem] = Pair(image, marked[stem])
    return pairs


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in SUFFIXES]


def _by_stem(pictures: Iterable[Path]) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in pictures:
        if path.stem in images:
            raise FssbenchError(f"{path}: {images[path.stem].name} has the same name; rename one")
        images[path.stem] = path
    return images


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _is_marked(path: Path) -> bool:
    return _is_png(path) and path.stem.endswith("_mask")


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _as_people_count(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
