"""People's own images with label maps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import attrs
import numpy as np
import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.data.folder import SUFFIXES, unread
from fssbench.data.images import check_same_size, read_image
from fssbench.data.index import IndexedDataset, list_lines
from fssbench.data.masks import Palette, read_labels
from fssbench.data.own_data import OwnData, OwnDataConfig, of_split, own_root, read_table
from fssbench.errors import FssbenchError

MOST_VALUES = 1 << 16
"""Number of values of a label map of 16 bits."""
_NEEDS = "the folder that holds the images and the label maps"
_VALUES = ("classes.toml", "classes.json")


@attrs.frozen
class LabelsConfig(OwnDataConfig):
    """Options of `Labels`. Paths are below the root or absolute.

    Attributes:
        values: TOML or JSON file, a table of class names by value, e.g. ``1 = "mug"``; "" for
            ``classes.toml`` or ``classes.json`` in the root.
        images: folder of the images, with ``{split}`` for ``train`` or ``val``; "" for
            ``images/{split}`` if ``images/val`` exists, else ``images``.
        labels: folder of the label maps; "" for ``labels/{split}`` if ``labels/val`` exists, else
            ``labels``.
        val: list file of the evaluated images, one image id a line; "" for all in their folder.
        train: list file of the training images.
        ignore: value of pixels that are excluded from all counts, or ``none``.
        background: values of no class; other values without a name are an error.
        palette: class of a pixel of a palette file, as for ``pascal5i``.
    """

    values: str = ""
    images: str = ""
    labels: str = ""
    val: str = ""
    train: str = ""
    ignore: int | None = IGNORE
    background: tuple[int, ...] = (0,)
    palette: Palette = "auto"


class Labels(OwnData, IndexedDataset):
    """Images and label maps: PNG files of 8 or 16 bits, grey or palette, with a value a class.

    Classes are the named values, ascending. An image id is the path below the folder of the images
    without suffix; if the folder depends on the split, the split is before it (``val/1``). The
    label map of an image has the same path below the folder of the label maps, and the suffix
    ``.png``.

    Args:
        root: folder of the images and the label maps.
        config: see `LabelsConfig`.

    Raises:
        FssbenchError: a folder or the file of the values is missing, or options are wrong.
    """

    name: ClassVar[str] = "labels"

    def __init__(self, *, root: Path | None, config: LabelsConfig | None = None) -> None:
        super().__init__()
        root, config = own_root(self.name, root, _NEEDS), config or LabelsConfig()
        self.set_name(root, config.name)
        self.root = root
        self._images = config.images or _default(root, "images")
        self._labels = config.labels or _default(root, "labels")
        self._lists = {"train": config.train, "val": config.val}
        for split in self.splits:
            if self._lists[split] and not (root / self._lists[split]).is_file():
                raise FssbenchError(f"{root / self._lists[split]}: no such list of images")
        for option, pattern in {"images": self._images, "labels": self._labels}.items():
            folder = root / of_split(pattern, "val")
            if not folder.is_dir():
                raise FssbenchError(
                    f"{type(self).name}: no folder {folder}; --data-root must name {_NEEDS}, or "
                    f"-d {option}=FOLDER this one"
                )
        self.values_file = _values_file(root, config.values)
        names = _values(self.values_file, config.ignore)
        self.set_classes(list(names.values()), config, root, self.values_file)
        self.values, self.ignore, self.palette = tuple(names), config.ignore, config.palette
        self.background = tuple(sorted(set(config.background) - {*names, config.ignore}))
        self.mask_options = {
            "values": ",".join(map(str, self.values)),
            "background": ",".join(map(str, self.background)),
            "ignore": str(config.ignore),
            "palette": config.palette,
            **self.fold_options(),
        }
        self._files: dict[str, dict[str, Path]] = {}

    def image_ids(self, split: str) -> Sequence[str]:
        """Return the sorted image ids of a split.

        Raises:
            FssbenchError: the split does not exist, its folder or list contains no image, or the
                list contains an unknown one.
        """
        return list(self._of_split(split))

    def image(self, image_id: str) -> Tensor:
        """Return the image as uint8 (3, H, W)."""
        return read_image(self.image_path(image_id))

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return the mask of a class, uint8 (H, W): 1, 255 in ignored pixels, else 0."""
        labels = self._label_map(image_id)
        mask = (labels == self.values[class_id]).to(torch.uint8)
        if self.ignore is not None:
            mask[labels == self.ignore] = IGNORE
        return mask

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image."""
        return self._find(image_id)[1]

    def mask_path(self, image_id: str) -> Path:
        """Return the label map of an image."""
        split = self._find(image_id)[0]
        name = image_id.removeprefix(self._prefix(split))
        return self.root / of_split(self._labels, split) / f"{name}.png"

    def count_pixels(self, image_id: str) -> Mapping[int, int]:
        """Count the pixels of each class in an image's label map."""
        counts = torch.bincount(self._label_map(image_id).flatten(), minlength=MOST_VALUES).tolist()
        return {c: counts[value] for c, value in enumerate(self.values) if counts[value]}

    def problems(self, split: str) -> Sequence[str]:
        """Return the pictures that are not read, unless a list file names the split's images."""
        if self._lists[split]:
            return []
        images, labels = (self.root / of_split(p, split) for p in (self._images, self._labels))
        ids = self.image_ids(split)
        return [
            *unread(images, set(map(self.image_path, ids))),
            *unread(labels, set(map(self.mask_path, ids))),
        ]

    def listed_in(self, split: str) -> str:
        """Return the list file of a split, or its folder of images."""
        listed = self._lists[split]
        return str(self.root / (listed or of_split(self._images, split)))

    def shares_images(self) -> bool:
        """Return True if both splits are all images of one folder."""
        return not any(self._lists.values()) and "{split}" not in self._images

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_files": {}}

    def _prefix(self, split: str) -> str:
        return f"{split}/" if "{split}" in self._images else ""

    def _of_split(self, split: str) -> Mapping[str, Path]:
        self.check_split(split)
        if split not in self._files:
            folder = self.root / of_split(self._images, split)
            found = _pictures(folder)
            if listed := self._lists[split]:
                names = [line.strip() for line in list_lines(self.root / listed) if line.strip()]
                for name in names:
                    if name not in found:
                        raise FssbenchError(
                            f"{self.root / listed}: {name}: no such image in {folder}; write paths "
                            "without suffix"
                        )
                found = {name: found[name] for name in names}
            if not found:
                raise FssbenchError(f"{self.listed_in(split)}: no images ({' '.join(SUFFIXES)})")
            prefix = self._prefix(split)
            self._files[split] = {f"{prefix}{name}": found[name] for name in sorted(found)}
        return self._files[split]

    def _find(self, image_id: str) -> tuple[str, Path]:
        for split in ("val", "train"):
            if image_id.startswith(self._prefix(split)):
                found = self._of_split(split).get(image_id)
                if found is not None:
                    return split, found
        raise FssbenchError(f"{self.name} has no image {image_id!r} in {self.root}")

    def _label_map(self, image_id: str) -> Tensor:
        path = self.mask_path(image_id)
        labels = read_labels(path, self.palette, deep=True)
        check_same_size(labels, path, self.image_path(image_id))
        known = {*self.values, *self.background, self.ignore}
        found = np.flatnonzero(np.bincount(labels.numpy().ravel(), minlength=1)).tolist()
        if unknown := [value for value in found if value not in known]:
            as_background = ",".join(map(str, (*self.background, unknown[0])))
            raise FssbenchError(
                f"{path}: contains the value {unknown[0]}, which {self.values_file} does not name; "
                f"name it, or give -d background={as_background}"
            )
        return labels


def _default(root: Path, name: str) -> str:
    return f"{name}/{{split}}" if (root / name / "val").is_dir() else name


def _pictures(folder: Path) -> dict[str, Path]:
    """Return the images below a folder by relative path without suffix."""
    found: dict[str, Path] = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(parent, name) for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() in SUFFIXES:
                name = path.relative_to(folder).with_suffix("").as_posix()
                if name in found:
                    raise FssbenchError(f"{path}: {found[name].name} has the same name; rename one")
                found[name] = path
    return found


def _values_file(root: Path, given: str) -> Path:
    if given:
        return root / given
    for name in _VALUES:
        if (root / name).is_file():
            return root / name
    raise FssbenchError(
        f"{Labels.name}: no {' or '.join(_VALUES)} in {root}, the names of the values; add one, or "
        "name it with -d values=FILE"
    )


def _values(path: Path, ignore: int | None) -> dict[int, str]:
    """Return the class names by ascending value."""
    found: dict[int, str] = {}
    for key, name in read_table(path).items():
        value = int(key) if key.isascii() and key.isdigit() else -1
        if not (0 <= value < MOST_VALUES and isinstance(name, str) and name.strip()):
            raise FssbenchError(f'{path}: {key}: write VALUE = "NAME", with a value below 65536')
        if value == ignore:
            raise FssbenchError(
                f"{path}: {value} is {name!r} and also the ignored value; give -d ignore=none"
            )
        if value in found:
            raise FssbenchError(f"{path}: the value {value} is there twice; remove one")
        found[value] = name
    return dict(sorted(found.items()))
