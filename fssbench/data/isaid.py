"""iSAID-5i: tiles of aerial images, 15 classes in three folds of five."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from fssbench.data.masks import UnclearMaskError
from fssbench.data.own_data import own_root
from fssbench.data.pascal import ClassLabels
from fssbench.errors import FssbenchError

CLASSES = (
    "ship", "storage_tank", "baseball_diamond", "tennis_court", "basketball_court",
    "ground_track_field", "bridge", "large_vehicle", "small_vehicle", "helicopter",
    "swimming_pool", "roundabout", "soccer_ball_field", "plane", "harbor",
)  # fmt: skip
"""Class names in iSAID's order (MMSegmentation's ``iSAIDDataset``); the value of a class in a label
map is its class id + 1."""

SUFFIX = "_instance_color_RGB.png"
"""End of the names of iSAID's label maps."""


class Isaid5i(ClassLabels):
    """Tiles of iSAID; fold i has the classes 5i to 5i + 4 (Yao et al., TGRS 2021).

    The folds and the layout are those of the loader of INSID3 (``datasets/isaid.py``):
    ``val/images/NAME.png`` with ``val/semantic_png/NAME_instance_color_RGB.png``, and ``train`` in
    the same way. An image id is ``val/NAME``. List files of authors are not read.

    Args:
        root: folder of ``train`` and ``val``.
        config: always None; `Isaid5i` has no options.

    Raises:
        FssbenchError: the root is missing, or has no ``val/images`` or ``val/semantic_png``.
    """

    name: ClassVar[str] = "isaid5i"
    classes = CLASSES
    folds = 3
    palette = "index"
    missing = "no such {what}; a tile needs images/NAME.png and semantic_png/NAME" + SUFFIX

    def __init__(self, *, root: Path | None, config: None = None) -> None:
        del config
        super().__init__()
        needs = "the folder that holds val/images and val/semantic_png"
        self.root = own_root(self.name, root, needs)
        for part in ("images", "semantic_png"):
            if not (folder := self.root / "val" / part).is_dir():
                raise FssbenchError(
                    f"{self.name}: no folder {folder}; --data-root must name {needs}"
                )
        self._ids: dict[str, tuple[str, ...]] = {}

    def image_ids(self, split: str) -> Sequence[str]:
        """Return the sorted ids of all tiles of a split.

        Raises:
            FssbenchError: the split does not exist, or its folder has no tile.
        """
        self.check_split(split)
        if split not in self._ids:
            folder = Path(self.listed_in(split))
            found = tuple(sorted(f"{split}/{path.stem}" for path in folder.glob("*.png")))
            if not found:
                raise FssbenchError(f"{folder}: no tiles (.png), the {split} images of {self.name}")
            self._ids[split] = found
        return self._ids[split]

    def image_path(self, image_id: str) -> Path:
        """Return the file of a tile."""
        split, _, name = image_id.partition("/")
        return self.root / split / "images" / f"{name}.png"

    def mask_path(self, image_id: str) -> Path:
        """Return the label map of a tile."""
        split, _, name = image_id.partition("/")
        return self.root / split / "semantic_png" / f"{name}{SUFFIX}"

    def _labels(self, image_id: str) -> Tensor:
        try:
            return super()._labels(image_id)
        except UnclearMaskError as error:
            raise UnclearMaskError(
                f"{error}; the colour masks of iSAID have such names, too: give those of iSAID-5i"
            ) from error

    def listed_in(self, split: str) -> str:
        """Return the folder of a split's tiles."""
        return str(self.root / split / "images")
