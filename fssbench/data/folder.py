"""Datasets of class folders, with one mask for each image."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from fssbench.data.images import check_same_size, read_image
from fssbench.data.index import IndexedDataset
from fssbench.data.masks import Foreground, UnclearMaskError, read_foreground
from fssbench.errors import FssbenchError, near

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
OTHER_SUFFIXES = (".tif", ".tiff", ".gif", ".jfif", ".heic", ".avif", ".jp2", ".pgm", ".ppm")
"""Suffixes of pictures that are reported as not read."""
_MARK = "_mask"


@attrs.frozen
class Pair:
    """Image and mask file of one annotated image."""

    image: Path
    mask: Path


class ClassFolders(IndexedDataset):
    """Base class of datasets with one folder for each class; image ids are ``class/name``.

    The images of a split are ordered by class and then by name, in natural order (2 before 10).
    There is one fold.

    Attributes:
        novel_split: split whose classes are novel.

    Args:
        root: folder of the class folders.
        foreground: foreground of the mask files, see `Foreground`.
        mask_suffix: suffix of a mask whose image has the same name.
        leave_out: names of classes that are not novel.

    Raises:
        FssbenchError: the root is missing or contains no folders, or there is no class of a name.
    """

    splits = ("train", "val", "test")
    folds = 1
    novel_split: str = "test"

    def __init__(
        self,
        *,
        root: Path | None,
        foreground: Foreground = "auto",
        mask_suffix: str = ".png",
        leave_out: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.foreground, self.mask_suffix = foreground, mask_suffix
        if foreground != "auto":
            self.mask_options = {"foreground": foreground}
        self.leave_out = frozenset(leave_out)
        if leave_out:
            names = ",".join(sorted(self.leave_out))
            self.mask_options = {**self.mask_options, "leave_out": names}
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
        for name in sorted(self.leave_out - set(self.classes)):
            raise FssbenchError(
                f"{self.name}: -d leave_out={name}: there is no such class; "
                f"{near(name, self.classes)}the classes are the folders in {root}"
            )
        self._pairs: dict[str, dict[str, Pair]] = {}

    def split_classes(self, split: str) -> Sequence[str]:
        """Return the names of the classes of a split: all classes by default."""
        self.check_split(split)
        return self.classes

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the class ids of the split of novel classes, without those that are left out."""
        self.check_fold(fold)
        novel = set(self.split_classes(self.novel_split)) - self.leave_out
        if not novel:
            raise FssbenchError(f"{self.name}: -d leave_out names every class; leave fewer out")
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
        """Return the mask as uint8 (H, W) of 0, 1 and 255; zeros for classes of other images."""
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
        pixels = int((self._own_mask(image_id) == 1).sum())
        return {self._class_id(image_id): pixels} if pixels else {}

    def problems(self, split: str) -> Sequence[str]:
        """Return the pictures of the split's classes that are not read, and broken links."""
        lines = [
            f"{path}: is a link to a missing folder"
            for path in _visible(self.root)
            if path.is_symlink() and not path.exists()
        ]
        for name in self.split_classes(split):
            pairs = self._of_class(name).values()
            read = {path for pair in pairs for path in (pair.image, pair.mask)}
            lines += unread(self.root / name, read)
            for stem, pair in self._of_class(name).items():
                with contextlib.suppress(FssbenchError):  # unreadable, which is said elsewhere
                    if not self.class_pixels(f"{name}/{stem}"):
                        lines.append(f"{pair.mask}: shows no pixel of the class")
        return lines

    def listed_in(self, split: str) -> str:
        """Return the root folder."""
        return str(self.root)

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_pairs": {}}

    def _of_class(self, name: str) -> dict[str, Pair]:
        if name not in self._pairs:
            self._pairs[name] = find_pairs(self.root / name, self.mask_suffix)
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
        mask = read_foreground(pair.mask, self.foreground)
        check_same_size(mask, pair.mask, pair.image)
        return mask


@attrs.frozen
class FolderConfig:
    """Options of `Folder`.

    Attributes:
        foreground: foreground of the mask files: ``auto`` for the rule of docs/masks.md, or the
            pixels of every label but 0 and 255 (``labels``), of every colour but black
            (``nonblack``), of a grey value of 128 and more (``bright``), or of an opacity of 128
            and more (``alpha``).
        mask_suffix: suffix of a mask whose image has the same name, e.g. ``.jpg`` for the image
            ``1.png`` with the mask ``1.jpg``.
        leave_out: names of classes that are not novel, e.g. those that a method was trained on.
    """

    foreground: Foreground = "auto"
    mask_suffix: Literal[".png", ".jpg", ".jpeg", ".bmp", ".webp"] = ".png"
    leave_out: tuple[str, ...] = ()


class Folder(ClassFolders):
    """User images in one of two layouts, which class folders may mix.

    * ``<class>/<name>.jpg`` (.jpeg, .png, .bmp, .webp) with ``<name>.png`` beside an image that is
      no PNG, or with ``<name>_mask.png`` (.jpg, …);
    * ``<class>/images/<name>.jpg`` (…) with ``<class>/masks/<name>.png`` (…).

    Masks are read by the rule of `fssbench.data.masks`. All three splits and the one fold contain
    all images.

    Args:
        root: folder of the class folders.
        config: see `FolderConfig`.

    Raises:
        FssbenchError: the root is missing or contains no folders.
    """

    name: ClassVar[str] = "folder"

    def __init__(self, *, root: Path | None, config: FolderConfig | None = None) -> None:
        config = config or FolderConfig()
        super().__init__(
            root=root,
            foreground=config.foreground,
            mask_suffix=config.mask_suffix,
            leave_out=config.leave_out,
        )

    def _own_mask(self, image_id: str) -> Tensor:
        try:
            return super()._own_mask(image_id)
        except UnclearMaskError as error:
            pair = self._pair(image_id)
            same = pair.image.with_suffix("") == pair.mask.with_suffix("")
            if not same or not _is_mask(pair.image):
                raise
            raise FssbenchError(
                f"{pair.mask}: is no mask, but {pair.image.name} is one; choose the masks with -d "
                f"mask_suffix={pair.image.suffix.lower()}"
            ) from error


def find_pairs(folder: Path, mask_suffix: str = ".png") -> dict[str, Pair]:
    """Return images and masks of a class folder by the image's name without suffix, 2 before 10.

    Args:
        folder: class folder.
        mask_suffix: suffix of a mask whose image has the same name.

    Raises:
        FssbenchError: there is no image, or one has no mask or two.
    """
    nested, flat = _nested_pairs(folder), _flat_pairs(folder, mask_suffix)
    for stem in nested.keys() & flat.keys():
        raise FssbenchError(
            f"{flat[stem].image}: {nested[stem].image} has the same name; rename one"
        )
    pairs = nested | flat
    if not pairs:
        where = folder / "images" if (folder / "images").is_dir() else folder
        raise FssbenchError(
            f"{where}: holds no images ({' '.join(SUFFIXES)}); "
            "every folder below --data-root must be a class"
        )
    return {stem: pairs[stem] for stem in sorted(pairs, key=_as_people_count)}


def _nested_pairs(folder: Path) -> dict[str, Pair]:
    masks = _by_stem(_pictures(folder / "masks"))
    pairs = {}
    for stem, image in _by_stem(_pictures(folder / "images")).items():
        if stem not in masks:
            raise FssbenchError(f"{folder / 'masks' / stem}.png: no such mask for {image}; add it")
        pairs[stem] = Pair(image, masks[stem])
    return pairs


def _flat_pairs(folder: Path, mask_suffix: str) -> dict[str, Pair]:
    pictures = _pictures(folder)
    marked = _by_stem((p for p in pictures if p.stem.endswith(_MARK)), _MARK)
    unmarked = [p for p in pictures if not p.stem.endswith(_MARK)]
    plain = _by_stem(p for p in unmarked if p.suffix.lower() == mask_suffix)
    images = _by_stem(p for p in unmarked if p.suffix.lower() != mask_suffix)
    pairs = {}
    for stem, image in (plain | images).items():
        masks = [found[stem] for found in (plain, marked) if found.get(stem, image) != image]
        if not masks and stem in images:
            raise FssbenchError(f"{folder / stem}{mask_suffix}: no such mask for {image}; add it")
        if not masks:
            raise FssbenchError(
                f"{folder / stem}{_MARK}.png: no such mask for {image}; add it (or, where "
                f"{image.name} is itself a mask, the image {stem}.jpg)"
            )
        if len(masks) == 2:
            raise FssbenchError(
                f"{image}: two masks, {masks[0].name} and {masks[1].name}; keep one"
            )
        pairs[stem] = Pair(image, masks[0])
    return pairs


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in SUFFIXES]


def _by_stem(pictures: Iterable[Path], end: str = "") -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in pictures:
        stem = path.stem.removesuffix(end)
        if stem in images:
            raise FssbenchError(f"{path}: {images[stem].name} has the same name; rename one")
        images[stem] = path
    return images


def _is_mask(path: Path) -> bool:
    try:
        read_foreground(path)
    except FssbenchError:
        return False
    return True


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def unread(folder: Path, read: Container[Path]) -> Iterator[str]:
    """Yield a line for each picture at any depth that is not read, and for each broken link."""
    entered: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and real not in entered)
        for path in (Path(parent, name) for name in sorted(files) if real not in entered):
            if path.name.startswith(".") or path in read:
                continue
            if path.is_symlink() and not path.exists():
                yield f"{path}: is a link to a missing file"
            elif path.suffix.lower() in SUFFIXES + OTHER_SUFFIXES:
                yield f"{path}: is not read, because it is in no pair of image and mask"
        entered.add(real)


def _as_people_count(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
