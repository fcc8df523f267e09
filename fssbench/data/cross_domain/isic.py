"""ISIC 2018, task 1: skin lesions of three diagnoses."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import attrs

from fssbench.data.cross_domain.annotated import Annotated, AnnotatedImages, by_stem
from fssbench.data.index import list_lines
from fssbench.data.own_data import own_root
from fssbench.errors import FssbenchError

IMAGES = "ISIC2018_Task1-2_Training_Input"
MASKS = "ISIC2018_Task1_Training_GroundTruth"
CLASS_LIST = "class_id.csv"
_NEEDS = f"the folder that holds {IMAGES}/, {MASKS}/ and {CLASS_LIST}"


@attrs.frozen
class Isic2018Config:
    """Options of `Isic2018`.

    Attributes:
        classes: CSV file with the columns ``ID`` and ``Class``, one image a line; "" for
            ``class_id.csv`` in the root.
    """

    classes: str = ""


class Isic2018(AnnotatedImages):
    """Training images of ISIC 2018, task 1 (Codella et al., arXiv 1902.03368), by diagnosis.

    The masks are of task 1; the classes are those of PATNet's list ``class_id.csv``. Images are in
    ``ISIC2018_Task1-2_Training_Input``, or one folder deeper, as PATNet's ``1``, ``2`` and ``3``.
    Image ids are the names of the files.

    Args:
        root: folder of the unpacked archives.
        config: see `Isic2018Config`.

    Raises:
        FssbenchError: a folder or the list of the classes is missing, the list has an unknown class
            or lists an image twice, or a listed image has no file or no mask.
    """

    name: ClassVar[str] = "isic2018"
    classes = ("nevus", "seborrheic_keratosis", "melanoma")

    def __init__(self, *, root: Path | None, config: Isic2018Config | None = None) -> None:
        root = own_root(self.name, root, _NEEDS)
        images = {name: path for folder in (IMAGES, f"{IMAGES}/[123]")
                  for found in sorted(root.glob(folder))
                  for name, path in by_stem(found, ".jpg").items()}  # fmt: skip
        if not images:
            raise FssbenchError(
                f"{self.name}: no images in {root / IMAGES}; --data-root must name {_NEEDS}"
            )
        given = (config or Isic2018Config()).classes
        self.class_list = Path(given).expanduser() if given else root / CLASS_LIST
        classes = self._listed()
        self._unlisted = [path for name, path in images.items() if name not in classes]
        files = {}
        for name, class_id in sorted(classes.items()):
            if name not in images:
                raise FssbenchError(
                    f"{self.class_list}: lists {name}, but there is no {root / IMAGES / name}.jpg"
                )
            mask = root / MASKS / f"{name}_segmentation.png"
            files[name] = Annotated(images[name], mask, class_id)
        super().__init__(root, files)

    def listed_in(self, split: str) -> str:
        """Return the list of the classes."""
        del split
        return str(self.class_list)

    def problems(self, split: str) -> Sequence[str]:
        """Return the images that the list of the classes leaves out."""
        self.check_split(split)
        return [f"{path}: is not in {self.class_list}" for path in self._unlisted]

    def _listed(self) -> dict[str, int]:
        path = self.class_list
        if not path.is_file():
            raise FssbenchError(
                f"{self.name}: no {path}, the classes of the images: data/isic/{CLASS_LIST} of "
                "https://github.com/slei109/PATNet; copy it there, or give -d classes=FILE"
            )
        found: dict[str, int] = {}
        for line, row in enumerate(csv.DictReader(list_lines(path)), start=2):
            name, label = (str(row.get(key) or "").strip() for key in ("ID", "Class"))
            if not name or label not in self.classes:
                raise FssbenchError(
                    f"{path}, line {line}: write an image and one of {', '.join(self.classes)}, "
                    "below the columns ID,Class"
                )
            if name in found:
                raise FssbenchError(f"{path}, line {line}: lists {name} again")
            found[name] = self.classes.index(label)
        if not found:
            raise FssbenchError(f"{path}: lists no image; give the list of all of them")
        return found
