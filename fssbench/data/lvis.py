"""LVIS-92i: 920 categories of LVIS v1 in ten interleaved folds of 92."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import numpy as np

from fssbench.data.coco_instances import CocoInstances
from fssbench.data.coco_json import merged_categories
from fssbench.data.own_data import own_root
from fssbench.errors import FssbenchError

NOVEL = 920
"""Number of categories in folds (Matcher, ICLR 2024: 920 classes, ten folds of 92)."""
FEWEST_IMAGES = 2
"""Minimum number of annotated images of a category in a fold: a query and a support."""


@attrs.frozen
class LvisConfig:
    """Options of `Lvis92i`.

    Attributes:
        partial: images of which the annotation file states that only some instances of a class are
            annotated (``not_exhaustive_category_ids``): ``leave-out`` (they are no queries and
            supports of this class, and its annotated instances are 255) or ``use`` (its instances
            without annotation are background, as in Matcher, SANSA and INSID3).
    """

    partial: Literal["leave-out", "use"] = "leave-out"


class Lvis92i(CocoInstances):
    """LVIS v1 (Gupta et al., CVPR 2019) as class masks, in the folds of LVIS-92i (Matcher).

    Classes are all categories of ``lvis_v1_val.json`` by ascending id. Those in folds are the 920
    with the most annotated images in this file, at least two; of equal ones, those with the lower
    id. By ascending id, fold i has the positions i, i + 10, …, i + 910. The categories in no fold
    are base classes of each. Neither shots nor options change the folds.

    The mask of a class is the union of its instances. An image id is the official number with
    twelve digits. Images of both splits are in COCO's ``train2017/`` and ``val2017/``, which may be
    below ``images/``: the annotations name them by ``coco_url``.

    Args:
        root: folder of ``annotations/`` and the images.
        config: see `LvisConfig`.

    Raises:
        FssbenchError: the root or ``annotations/lvis_v1_val.json`` is missing, or is not valid.
    """

    name: ClassVar[str] = "lvis92i"
    folds = 10

    def __init__(self, *, root: Path | None, config: LvisConfig | None = None) -> None:
        root = own_root(self.name, root, "the folder that holds annotations/ and the images")
        super().__init__(root, "union")
        self.partial = (config or LvisConfig()).partial
        if not self.annotations("val").is_file():
            raise FssbenchError(
                f"{self.name}: no {self.annotations('val')}; --data-root must name the folder that "
                "holds annotations/lvis_v1_val.json and the images of COCO 2017"
            )
        self.categories = merged_categories([self.annotations("val")])
        self.classes = tuple(self.categories.values())

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the novel class ids of a fold; the first call may draw the masks of ``val``."""
        self.check_fold(fold)
        return self._novel[fold :: self.folds]

    def annotations(self, split: str) -> Path:
        """Return the annotation file of a split."""
        return self.root / "annotations" / f"lvis_v1_{split}.json"

    def image_folder(self, split: str) -> Path:
        """Return the folder of ``train2017`` and ``val2017``: the root, or ``images``."""
        del split
        at_root = any((self.root / name).is_dir() for name in ("train2017", "val2017"))
        return self.root if at_root or not (self.root / "images").is_dir() else self.root / "images"

    @cached_property
    def _novel(self) -> tuple[int, ...]:
        self.prepare("val")
        images = self._masks["val"].annotated_images(len(self.classes))
        enough = np.flatnonzero(images >= FEWEST_IMAGES)
        most = enough[np.argsort(-images[enough], kind="stable")[:NOVEL]]
        return tuple(sorted(most.tolist()))

    def _options(self) -> Mapping[str, str]:
        return {} if self.partial == "leave-out" else {"partial": self.partial}

    def _describe(self, image: Mapping[str, Any]) -> tuple[str, Iterable[int]]:
        folder_and_name = "/".join(str(image["coco_url"]).split("/")[-2:])
        leave_out = self.partial == "leave-out"
        return folder_and_name, image["not_exhaustive_category_ids"] if leave_out else ()
