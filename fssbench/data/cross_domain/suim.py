"""SUIM: underwater images with seven classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from fssbench.data.cross_domain.annotated import Annotated, AnnotatedImages, by_stem
from fssbench.data.images import image_size
from fssbench.data.own_data import own_root
from fssbench.errors import FssbenchError

PARTS = ("TEST", "train_val")
IMAGES, MASKS = "images", "masks"
_NEEDS = f"the folder that holds TEST/ and train_val/ with {IMAGES}/ and {MASKS}/, or these two"
_SAME_SHAPE = 0.01
"""Relative difference between the aspect ratios of a picture and its scaled copy: rounding."""


class Suim(AnnotatedImages):
    """SUIM (Islam et al., IROS 2020): all its images, as in cross-domain papers.

    Classes are in the order of ABCDFSS; the background, water (BW), is none of them. Two layouts
    are read:

    * the official ``train_val`` and ``TEST``, each with ``images/<name>.jpg`` and
      ``masks/<name>.bmp`` in SUIM's colours; image ids are ``train_val/<name>``, ``TEST/<name>``;
    * ABCDFSS's ``images/<name>.jpg`` and ``masks/<class>/<name>.bmp`` (or .png), black and white;
      image ids are ``class/name``.

    Some masks have another size than their image. One of the same aspect ratio is scaled to the
    image (nearest neighbour); of a larger one the excess at the right and bottom is cut.

    Args:
        root: folder of one of the layouts.
        config: always None; `Suim` has no options.

    Raises:
        FssbenchError: the root has neither layout, or an image has no mask.
    """

    name: ClassVar[str] = "suim"
    classes = ("FV", "HD", "PF", "RI", "RO", "SR", "WR")
    codes = (0b110, 0b001, 0b010, 0b101, 0b100, 0b111, 0b011)

    def __init__(self, *, root: Path | None, config: None = None) -> None:
        del config
        root = own_root(self.name, root, _NEEDS)
        files = {
            f"{part}/{name}": Annotated(image, root / part / MASKS / f"{name}.bmp")
            for part in PARTS
            for name, image in by_stem(root / part / IMAGES, ".jpg").items()
        }
        self.layout = "parts" if files else "folders"
        files = files or dict(self._in_class_folders(root))
        if not files:
            raise FssbenchError(f"{self.name}: no images in {root}; --data-root must name {_NEEDS}")
        super().__init__(root, files)

    def fitted(self, labels: Tensor, files: Annotated) -> Tensor:
        """Return labels (H, W) of the image's size: scaled or cut, see `Suim`.

        Raises:
            FssbenchError: the mask is narrower or lower than the image, in another aspect ratio.
        """
        height, width = image_size(files.image)
        if labels.shape == (height, width):
            return labels
        if _same_shape(labels, height, width):
            return functional.interpolate(labels[None, None], (height, width), mode="nearest")[0, 0]
        if labels.shape[0] >= height and labels.shape[1] >= width:
            return labels[:height, :width].contiguous()
        return super().fitted(labels, files)

    def problems(self, split: str) -> Sequence[str]:
        """Return the masks of another size than their image."""
        self.check_split(split)
        lines = []
        for files in self.files.values():
            (height, width), found = image_size(files.image), image_size(files.mask)
            if found != (height, width):
                lines.append(
                    f"{files.mask}: the mask is {found[1]}x{found[0]}, its image {width}x{height}; "
                    "it is scaled or cut to the image"
                )
        return lines

    def _in_class_folders(self, root: Path) -> Iterator[tuple[str, Annotated]]:
        images = by_stem(root / IMAGES, ".jpg")
        for class_id, label in enumerate(self.classes):
            folder = root / MASKS / label
            masks = by_stem(folder, ".bmp") or by_stem(folder, ".png")
            for name, mask in masks.items():
                image = images.get(name, root / IMAGES / f"{name}.jpg")
                yield f"{label}/{name}", Annotated(image, mask, class_id)


def _same_shape(labels: Tensor, height: int, width: int) -> bool:
    ratio = labels.shape[1] * height / (labels.shape[0] * width)
    return abs(ratio - 1) <= _SAME_SHAPE
