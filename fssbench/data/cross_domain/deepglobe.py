"""DeepGlobe Land Cover: tiles of satellite images with six classes of land."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from fssbench.data.cross_domain.annotated import Annotated, AnnotatedImages, by_stem
from fssbench.data.own_data import own_root
from fssbench.errors import FssbenchError

IMAGES, MASKS = "images", "masks"
SIDE = 6
"""Tiles on each side of an image: PATNet's data/preprocess.py cuts 6 x 6 tiles."""

SMALLEST = 0.048
"""Share of a tile that each of its colours must exceed (PATNet's data/preprocess.py)."""

_NEEDS = (
    f"the folder that holds {IMAGES}/ and {MASKS}/ (of data prepare), or 1/test/origin/ to "
    "6/test/groundtruth/"
)


class DeepGlobe(AnnotatedImages):
    """DeepGlobe Land Cover (Demir et al., CVPR Workshops 2018) as PATNet tests it.

    Classes are in the order of PATNet's class folders 1 to 6. Pixels of unknown land (black) are
    background of every class. Two layouts are read:

    * ``images/<id>_<row><column>.png`` and ``masks/…png`` in DeepGlobe's colours, as ``data
      prepare`` writes them; image ids are the names;
    * PATNet's class folders ``<n>/test/origin/<name>.jpg`` and ``<n>/test/groundtruth/<name>.png``,
      black and white, where ``_sat_`` in the name of an image may be ``_mask_`` in that of its mask
      (IFA); image ids are ``class/name``.

    Args:
        root: folder of one of the layouts.
        config: always None; `DeepGlobe` has no options.

    Raises:
        FssbenchError: the root has neither layout, or an image has no mask.
    """

    name: ClassVar[str] = "deepglobe"
    classes = ("agriculture", "urban", "rangeland", "forest", "water", "barren")
    # PATNet's colours are in OpenCV's order, blue first: its first, (0, 255, 255), is yellow.
    codes = (0b110, 0b011, 0b101, 0b010, 0b001, 0b111)

    def __init__(self, *, root: Path | None, config: None = None) -> None:
        del config
        root = own_root(self.name, root, _NEEDS)
        tiles = by_stem(root / IMAGES, ".png")
        self.layout = "tiles" if tiles else "folders"
        files = {
            name: Annotated(image, root / MASKS / image.name) for name, image in tiles.items()
        } or dict(self._in_class_folders(root))
        if not files:
            raise FssbenchError(f"{self.name}: no images in {root}; --data-root must name {_NEEDS}")
        super().__init__(root, files)

    def _in_class_folders(self, root: Path) -> Iterator[tuple[str, Annotated]]:
        for class_id, label in enumerate(self.classes):
            folder = root / str(class_id + 1) / "test"
            masks = by_stem(folder / "groundtruth", ".png")
            for name, image in by_stem(folder / "origin", ".jpg").items():
                missing = folder / "groundtruth" / f"{name}.png"
                mask = masks.get(name) or masks.get(name.replace("_sat_", "_mask_")) or missing
                yield f"{label}/{name}", Annotated(image, mask, class_id)
