"""`shapes`: a synthetic dataset for few-shot segmentation.

Each image shows 2 to 4 objects of different classes among clutter. Colours and textures are
independent of the class, so only the outline identifies an object. A matcher that ignores the
support mask cannot identify the target object, except as the only class that support and query
share (which the sampler ``shared-class`` prevents).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fssbench.data.cache import saved_or_built
from fssbench.data.dataset import Dataset
from fssbench.data.index import ClassIndex, with_progress
from fssbench.data.shapes.bits import Bits
from fssbench.data.shapes.scenes import Scene, fragments, lay_out, paint
from fssbench.data.shapes.silhouettes import SILHOUETTES, Template, silhouette
from fssbench.errors import FssbenchError

GENERATOR = 1
"""Version of the images and of the digests; increase it when any pixel changes."""

_SPLITS = ("train", "val")
_LAYOUT, _PAINT = 0, 1  # the random streams of an image


@attrs.frozen(kw_only=True)
class ShapesConfig:
    """Options of `Shapes`.

    Attributes:
        seed: random seed of the scenes, 0 <= seed < 2**32.
        images_per_split: number of images, 1 to 1 000 000. A longer split begins with the images
            of a shorter one.
    """

    seed: int = attrs.field(
        default=0, validator=[attrs.validators.ge(0), attrs.validators.lt(1 << 32)]
    )
    images_per_split: int = attrs.field(
        default=2000, validator=[attrs.validators.ge(1), attrs.validators.le(1_000_000)]
    )


class Shapes(Dataset):
    """Twenty silhouettes in four folds; images of 160 x 160 pixels named ``val-000003``.

    Args:
        config: see `ShapesConfig`.
        root: ignored; the dataset has no files.
    """

    name = "shapes"
    classes = tuple(SILHOUETTES)
    folds = 4
    novel_classes = tuple(tuple(range(5 * fold, 5 * fold + 5)) for fold in range(4))
    splits = _SPLITS

    def __init__(self, config: ShapesConfig | None = None, root: Path | None = None) -> None:
        self.config = config or ShapesConfig()
        self._indexes: dict[str, ClassIndex] = {}

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the five novel class ids of a fold: 0-4, 5-9, 10-14 or 15-19."""
        self.check_fold(fold)
        return self.novel_classes[fold]

    def image_ids(self, split: str) -> Sequence[str]:
        """Return ``train-000000``, ``train-000001``, … or ``val-000000``, …"""
        self.check_split(split)
        return [f"{split}-{index:06d}" for index in range(self.config.images_per_split)]

    def class_pixels(self, image_id: str) -> Mapping[int, int]:
        """Return the visible pixels of each class; the layout of a scene takes about 2 ms."""
        split, index = self._locate(image_id)
        if split in self._indexes:
            return self._indexes[split][image_id]
        return _class_pixels(self.config.seed, split, index)

    def prepare(self, split: str) -> None:
        """Load the pixel counts of a split, or compute and save them."""
        if split in self._indexes:
            return
        ids, seed = self.image_ids(split), self.config.seed

        def count() -> ClassIndex:
            numbers = with_progress(range(len(ids)), f"Laying out shapes {split}", len(ids))
            return ClassIndex.of({ids[n]: _class_pixels(seed, split, n) for n in numbers})

        name = f"shapes-{self.fingerprint(split)}"
        self._indexes[split], _ = saved_or_built(name, count, ClassIndex.from_arrays)

    def image(self, image_id: str) -> Tensor:
        """Return the painted scene as uint8 (3, 160, 160), RGB."""
        where = (self.config.seed, *self._locate(image_id))
        return torch.from_numpy(paint(_bits(*where, _PAINT), _scene(*where)))

    def image_digest(self, image_id: str) -> str:
        """Return a hash of what an image follows from: the generator's version, seed and id."""
        self._locate(image_id)
        text = f"shapes generator={GENERATOR} seed={self.config.seed} image={image_id}"
        return hashlib.sha256(text.encode()).hexdigest()

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return the visible pixels of a class as uint8 (160, 160) of 0 and 1."""
        if not 0 <= class_id < len(self.classes):
            raise FssbenchError(f"shapes has no class {class_id}; it has classes 0 to 19")
        labels = _labels(self.config.seed, *self._locate(image_id))
        return torch.from_numpy((labels == class_id + 1).astype(np.uint8))

    def fingerprint(self, split: str = "val") -> str:
        """Return the SHA-256 of the generator version, seed, number of images and split."""
        self.check_split(split)
        images = self.config.images_per_split
        text = f"shapes generator={GENERATOR} seed={self.config.seed} images={images} split={split}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _locate(self, image_id: str) -> tuple[str, int]:
        split, _, number = image_id.partition("-")
        if split in _SPLITS and len(number) == 6 and number.isdecimal() and number.isascii():
            index = int(number)
            if index < self.config.images_per_split:
                return split, index
        last = f"{self.config.images_per_split - 1:06d}"
        raise FssbenchError(
            f"shapes has no image {image_id!r}; it has train-000000 to train-{last} and "
            f"val-000000 to val-{last}"
        )


def _bits(seed: int, split: str, index: int, stream: int) -> Bits:
    return Bits(high=seed << 8 | _SPLITS.index(split) << 4 | stream, low=index)


@cache
def _templates() -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    """Return the templates of the classes and of the clutter."""
    return tuple(silhouette(name) for name in SILHOUETTES), fragments(seed=0)


# An image is usually painted soon after its labels are computed, so a small cache is enough.
@lru_cache(maxsize=32)
def _scene(seed: int, split: str, index: int) -> Scene:
    return lay_out(_bits(seed, split, index, _LAYOUT), *_templates())


# Masks are read repeatedly, and a label map has 25 KiB, so the cache holds a whole split. Forked
# loader processes inherit it.
@lru_cache(maxsize=2048)
def _labels(seed: int, split: str, index: int) -> NDArray[np.uint8]:
    return _scene(seed, split, index).labels.astype(np.uint8)


def _class_pixels(seed: int, split: str, index: int) -> dict[int, int]:
    counts = np.bincount(_labels(seed, split, index).ravel()).tolist()
    return {label - 1: pixels for label, pixels in enumerate(counts) if label and pixels}
