"""Pictures without any annotation: what distillation is fed."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from fssbench.data.dataset import Dataset
from fssbench.data.folder import SUFFIXES
from fssbench.data.images import read_image
from fssbench.errors import FssbenchError

HELD_OUT = 20
"""One image in so many is of the split ``val``."""


class PlainImages(Dataset):
    """Every picture below a folder; image ids are paths below it, with ``/``.

    There is one class, ``nothing``, which no image shows, so there are no episodes. Which images
    are held out (split ``val``) follows from their ids alone, so adding images moves none.

    Args:
        root: the folder.
        config: none; `PlainImages` has no options.

    Raises:
        FssbenchError: no root is given, or it holds fewer than two pictures.
    """

    name: ClassVar[str] = "images"
    classes = ("nothing",)
    folds = 1
    splits = ("train", "val")

    def __init__(self, *, root: Path | None, config: None = None) -> None:
        del config
        if root is None:
            raise FssbenchError("images needs --data-root, a folder of pictures")
        if not root.is_dir():
            raise FssbenchError(f"images: no folder {root}; --data-root must name one of pictures")
        self.root = root
        ids = sorted(_pictures(root))
        if len(ids) < 2:
            raise FssbenchError(f"images: {root} holds {len(ids)} pictures; two are the least")
        places = {image: zlib.crc32(image.encode()) for image in ids}
        held_out = {image for image in ids if places[image] % HELD_OUT == 0}
        if not held_out:
            held_out = {min(ids, key=lambda image: places[image])}
        if len(held_out) == len(ids):
            held_out.remove(max(ids, key=lambda image: places[image]))
        self._ids = {
            "train": [image for image in ids if image not in held_out],
            "val": [image for image in ids if image in held_out],
        }

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return (): no class is novel."""
        self.check_fold(fold)
        return ()

    def image_ids(self, split: str) -> Sequence[str]:
        """Return paths below the root, sorted."""
        self.check_split(split)
        return self._ids[split]

    def class_pixels(self, image_id: str) -> Mapping[int, int]:
        """No class has any."""
        del image_id
        return {}

    def image(self, image_id: str) -> Tensor:
        """Return the picture, uint8 (3, H, W)."""
        return read_image(self.root / image_id)

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image."""
        return self.root / image_id

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return zeros."""
        del class_id
        return torch.zeros(self.image(image_id).shape[-2:], dtype=torch.uint8)

    def fingerprint(self, split: str = "val") -> str:
        """Return a hash of the split's names and file sizes; nothing is annotated."""
        digest = hashlib.sha256()
        for image in self.image_ids(split):
            digest.update(f"{image}\0{(self.root / image).stat().st_size}\n".encode())
        return digest.hexdigest()


def _pictures(root: Path) -> list[str]:
    found = []
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return found
