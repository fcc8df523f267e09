"""Chest X-rays of Montgomery County and Shenzhen with masks of the lungs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import attrs

from fssbench.data.cross_domain.annotated import Annotated, AnnotatedImages, by_stem
from fssbench.data.own_data import own_root
from fssbench.errors import FssbenchError

IMAGES, MASKS = "CXR_png", "masks"
_NEEDS = f"the folder that holds {IMAGES}/ and {MASKS}/"
_PREFIX = {"shenzhen": "CHNCXR_", "montgomery": "MCUCXR_", "all": ""}


@attrs.frozen
class ChestXrayConfig:
    """Options of `ChestXray`.

    Attributes:
        source: hospital of the images: ``shenzhen`` (566 with a mask), ``montgomery`` (138), or
            ``all``.
    """

    source: Literal["shenzhen", "montgomery", "all"] = "shenzhen"


class ChestXray(AnnotatedImages):
    """Lungs in chest X-rays (Jaeger et al., Candemir et al., TMI 2014): one class, ``lung``.

    The layout is that of the Kaggle set "Chest Xray Masks and Labels": ``CXR_png/<name>.png`` with
    ``masks/<name>_mask.png`` (Shenzhen) or ``masks/<name>.png`` (Montgomery). Images without a mask
    are left out, as in the field's loaders. Image ids are the names of the images.

    Args:
        root: folder of ``CXR_png`` and ``masks``.
        config: see `ChestXrayConfig`.

    Raises:
        FssbenchError: a folder is missing, there is no mask of the source, or a mask has no image.
    """

    name: ClassVar[str] = "chest-xray"
    classes = ("lung",)

    def __init__(self, *, root: Path | None, config: ChestXrayConfig | None = None) -> None:
        root = own_root(self.name, root, _NEEDS)
        self.source = (config or ChestXrayConfig()).source
        masks = by_stem(root / MASKS, ".png")
        if not masks or not (root / IMAGES).is_dir():
            lacks = f"{IMAGES}/" if masks else "masks"
            raise FssbenchError(
                f"{self.name}: no {lacks} in {root}; --data-root must name {_NEEDS}"
            )
        names = {stem.removesuffix("_mask"): path for stem, path in masks.items()}
        files = {
            name: Annotated(root / IMAGES / f"{name}.png", names[name], 0)
            for name in sorted(names)
            if name.startswith(_PREFIX[self.source])
        }
        if not files:
            raise FssbenchError(
                f"{self.name}: no mask {_PREFIX[self.source]}… in {root / MASKS}; choose other "
                "images with -d source=all"
            )
        super().__init__(root, files)
