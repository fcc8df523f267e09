"""PACO-Part: parts of 75 objects in COCO's images, four interleaved folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import attrs

from fssbench.data.coco_instances import CocoInstances
from fssbench.data.coco_json import merged_categories
from fssbench.data.own_data import own_root
from fssbench.errors import FssbenchError


@attrs.frozen
class PacoPartConfig:
    """Options of `PacoPart`.

    Attributes:
        images: folder of ``train2017`` and ``val2017``; "" for the first of the root, ``coco`` and
            ``images`` below it that has one of them.
    """

    images: str = ""


class PacoPart(CocoInstances):
    """Parts of PACO-LVIS v1 (Ramanathan et al., CVPR 2023) on the images of COCO 2017.

    A class is a category ``object:part`` of the annotation file, in the order of the category ids;
    fold i has the classes i, i + 4, i + 8, …. Categories of whole objects are no classes. The mask
    of a part is the union over all objects of the image. Images are whole: Matcher, SANSA and
    INSID3 cut out one object.

    Args:
        root: folder of ``annotations/paco_lvis_v1_{train,val,test}.json``.
        config: see `PacoPartConfig`.

    Raises:
        FssbenchError: the root, the annotations or the images are missing, or the annotation file
            has fewer than four categories ``object:part``.
    """

    name: ClassVar[str] = "paco-part"
    folds = 4
    splits = ("train", "val", "test")

    def __init__(self, *, root: Path | None, config: PacoPartConfig | None = None) -> None:
        needs = "the folder that holds annotations/paco_lvis_v1_val.json"
        root = own_root(self.name, root, needs)
        super().__init__(root, "union")
        path = self.annotations("val")
        if not path.is_file():
            raise FssbenchError(f"{self.name}: no {path}; --data-root must name {needs}")
        found = merged_categories([path])
        # `CocoInstances` numbers the categories in this order, so parts come first.
        self.categories = dict(sorted(found.items(), key=lambda entry: ":" not in entry[1]))
        self.classes = tuple(name for name in self.categories.values() if ":" in name)
        if len(self.classes) < self.folds:
            raise FssbenchError(
                f"{path}: has {len(self.classes)} categories object:part; it must be a file of "
                "PACO-LVIS v1"
            )
        given = Path(config.images).expanduser() if config and config.images else None
        self._images = _image_folder([given] if given else [root, root / "coco", root / "images"])

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the novel class ids of a fold."""
        self.check_fold(fold)
        return tuple(range(fold, len(self.classes), self.folds))

    def annotations(self, split: str) -> Path:
        """Return the annotation file of a split."""
        return self.root / "annotations" / f"paco_lvis_v1_{split}.json"

    def image_folder(self, split: str) -> Path:
        """Return the folder of ``train2017`` and ``val2017``, which the file names begin with."""
        del split
        return self._images

    def class_pixels(self, image_id: str) -> Mapping[int, int]:
        """Return the number of pixels of each part's mask."""
        pixels = super().class_pixels(image_id)
        return {c: count for c, count in pixels.items() if c < len(self.classes)}


def _image_folder(folders: Sequence[Path]) -> Path:
    for folder in folders:
        if any((folder / name).is_dir() for name in ("train2017", "val2017")):
            return folder
    raise FssbenchError(
        f"{PacoPart.name}: no train2017 or val2017 in {', '.join(map(str, folders))}; put COCO's "
        "images there, or give -d images=FOLDER"
    )
