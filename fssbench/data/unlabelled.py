"""Images without annotation, for distillation."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from attrs.validators import gt, le
from torch import Tensor

from fssbench.data.dataset import Dataset
from fssbench.data.folder import SUFFIXES
from fssbench.data.images import read_image
from fssbench.errors import FssbenchError

HELD_OUT = 20
"""Mean number of images for each image of the split ``val``."""
MOST_HELD_OUT = 200
"""Maximum number of images of the split ``val``."""


@attrs.frozen
class PlainImagesConfig:
    """Options of `PlainImages`.

    Attributes:
        share: share of the images to use, e.g. 0.01 for the 1 % of SA-1B of FS-DINO and UINO-FSS;
            they are chosen by a hash of their ids.
    """

    share: float = attrs.field(default=1.0, validator=[gt(0), le(1)])


class PlainImages(Dataset):
    """All images below a folder; image ids are relative paths with ``/``.

    The only class, ``nothing``, has no pixels, so there are no episodes. The share and the split of
    an image depend on a hash of its id, so that adding images does not change those of others; from
    about 4,000 images on, only the `MOST_HELD_OUT` smallest hashes are held out.

    Args:
        root: folder of the images.
        config: see `PlainImagesConfig`.

    Raises:
        FssbenchError: the root is missing or contains fewer than two images.
    """

    name: ClassVar[str] = "images"
    classes = ("nothing",)
    folds = 1
    splits = ("train", "val")

    def __init__(self, *, root: Path | None, config: PlainImagesConfig | None = None) -> None:
        if root is None:
            raise FssbenchError("images needs --data-root, a folder of pictures")
        if not root.is_dir():
            raise FssbenchError(f"images: no folder {root}; --data-root must name one of pictures")
        self.root = root
        share = (config or PlainImagesConfig()).share
        ids = sorted(
            image
            for image in _pictures(root)
            if share == 1 or zlib.crc32(f"share {image}".encode()) < share * 2**32
        )
        if len(ids) < 2:
            raise FssbenchError(
                f"images: {root} contains {len(ids)} images"
                f"{'' if share == 1 else f' of share {share:g}'}; at least two are required"
            )
        hashes = {image: zlib.crc32(image.encode()) for image in ids}
        held_out = {image for image in ids if hashes[image] % HELD_OUT == 0}
        held_out = set(sorted(held_out, key=lambda image: (hashes[image], image))[:MOST_HELD_OUT])
        if not held_out:
            held_out = {min(ids, key=lambda image: hashes[image])}
        if len(held_out) == len(ids):
            held_out.remove(max(ids, key=lambda image: hashes[image]))
        self._ids = {
            "train": [image for image in ids if image not in held_out],
            "val": [image for image in ids if image in held_out],
        }

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return no classes, because none is novel."""
        self.check_fold(fold)
        return ()

    def image_ids(self, split: str) -> Sequence[str]:
        """Return the sorted paths relative to the root."""
        self.check_split(split)
        return self._ids[split]

    def class_pixels(self, image_id: str) -> Mapping[int, int]:
        """Return no pixels for any class."""
        del image_id
        return {}

    def image(self, image_id: str) -> Tensor:
        """Return the image as uint8 (3, H, W)."""
        return read_image(self.root / image_id)

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image."""
        return self.root / image_id

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return a mask of zeros."""
        del class_id
        return torch.zeros(self.image(image_id).shape[-2:], dtype=torch.uint8)

    def fingerprint(self, split: str = "val") -> str:
        """Return the hash (hex) of the split's image ids and file sizes."""
        digest = hashlib.sha256()
        for image in self.image_ids(split):
            digest.update(f"{image}\0{(self.root / image).stat().st_size}\n".encode())
        return digest.hexdigest()


def _pictures(root: Path) -> Iterator[str]:
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for path in (Path(folder, name) for name in files if not name.startswith(".")):
            if path.suffix.lower() in SUFFIXES:
                yield path.relative_to(root).as_posix()
