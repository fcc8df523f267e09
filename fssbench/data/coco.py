"""COCO-20i: the 80 classes of COCO in four interleaved folds of twenty."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import attrs

from fssbench.data.coco_instances import CocoInstances
from fssbench.data.coco_masks import CATEGORIES, Overlaps
from fssbench.errors import FssbenchError

YEARS = ("2014", "2017")
"""Search order of ``auto``; the literature uses 2014."""


@attrs.frozen
class CocoConfig:
    """Options of `Coco`.

    Attributes:
        year: year of the annotation files ``instances_{train,val}YEAR.json``; ``auto`` uses 2014 if
            it exists, else 2017, else ``instances.json``.
        overlaps: pixels of several instances: ``union`` (they belong to each of their classes;
            crowds are 255) or ``painted`` (to the last instance in the order of the file; crowds
            are background), as in the label maps of HSNet, PFENet, BAM and HDMNet.
    """

    year: Literal["auto", "2014", "2017"] = "auto"
    overlaps: Overlaps = "union"


class Coco(CocoInstances):
    """COCO instances as class masks; fold i has the classes i, i + 4, …, i + 76 (HSNet, PFENet).

    Masks are described at `CocoInstances`.

    Layouts below the root:

    * ``annotations/instances_val2014.json`` with ``val2014/COCO_val2014_000000000042.jpg``, and so
      for ``train2014``, ``val2017`` and ``train2017``; image folders may be below ``images/``;
    * ``annotations/instances.json`` with ``images/``: both splits then contain every image.

    An image id is the official number with twelve digits, ``000000000042``.

    Args:
        root: folder of ``annotations/`` and the images.
        config: see `CocoConfig`.

    Raises:
        FssbenchError: the root or its annotations are missing.
    """

    name: ClassVar[str] = "coco20i"
    categories = CATEGORIES
    classes = tuple(CATEGORIES.values())
    folds = 4
    novel_classes = tuple(tuple(range(fold, 80, 4)) for fold in range(4))

    def __init__(self, *, root: Path | None, config: CocoConfig | None = None) -> None:
        needs = "the folder that holds annotations/ and the images"
        if root is None:
            raise FssbenchError(f"{self.name} needs --data-root, {needs}")
        if not root.is_dir():
            raise FssbenchError(f"{self.name}: no folder {root}; --data-root must name {needs}")
        config = config or CocoConfig()
        self.year = _year(root, config.year)
        super().__init__(root, config.overlaps)

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the twenty novel class ids of a fold."""
        self.check_fold(fold)
        return self.novel_classes[fold]

    def annotations(self, split: str) -> Path:
        """Return the annotation file of a split."""
        name = f"instances_{split}{self.year}" if self.year else "instances"
        return self.root / "annotations" / f"{name}.json"

    def image_folder(self, split: str) -> Path:
        """Return the folder of a split's images, which may be below ``images/``."""
        if not self.year:
            return self.root / "images"
        folder = self.root / f"{split}{self.year}"
        nested = self.root / "images" / folder.name
        return nested if not folder.is_dir() and nested.is_dir() else folder


def _year(root: Path, wanted: str) -> str:
    """Return the year of the annotation files, or "" for the single file ``instances.json``."""
    folder = root / "annotations"
    years = YEARS if wanted == "auto" else (wanted,)
    for year in years:
        if any((folder / f"instances_{split}{year}.json").is_file() for split in Coco.splits):
            return year
    if wanted == "auto" and (folder / "instances.json").is_file():
        return ""
    names = [f"instances_val{year}.json" for year in years]
    names += ["instances.json"] if wanted == "auto" else []
    raise FssbenchError(
        f"{Coco.name}: no {' or '.join(names)} in {folder}; --data-root must name the folder that "
        "holds annotations/ and the images"
    )
