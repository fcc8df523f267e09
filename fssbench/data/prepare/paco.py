"""PACO-LVIS's annotations and the images of COCO 2017."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from fssbench.data.prepare import coco
from fssbench.data.prepare.disk import put
from fssbench.data.prepare.members import Member
from fssbench.errors import FssbenchError

ROOT = "PACO-Part"
FILES = tuple(f"paco_lvis_v1_{split}.json" for split in ("train", "val", "test"))


def unpack_annotations(found: Iterator[Member], folder: Path) -> Iterator[str]:
    """Unpack the three annotation files, which may be in any folder of the archive."""
    for member in found:
        if (name := PurePosixPath(member.name).name) in FILES:
            put(folder / ROOT / "annotations" / name, member.read())
            yield name


def unpack_images(name: str) -> Callable[[Iterator[Member], Path], Iterator[str]]:
    """Return a function that unpacks the images of, e.g., ``val2017``."""
    unpack = coco.unpack_images(name)
    return lambda found, folder: unpack(found, folder / ROOT)


def finish(folder: Path) -> Mapping[str, int]:
    """Return the numbers of annotation files and images.

    Raises:
        FssbenchError: an annotation file is missing.
    """
    root = folder / ROOT
    for name in FILES:
        if not (root / "annotations" / name).is_file():
            raise FssbenchError(f"{root}: no annotations/{name}; the archive is not whole")
    images = {
        name: sum(1 for _ in (root / name).glob("*.jpg")) for name in ("train2017", "val2017")
    }
    return {"annotations": len(FILES), **images}
