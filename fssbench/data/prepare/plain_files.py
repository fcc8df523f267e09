"""Files that are unpacked as they are.

Those of ISIC 2018, the chest X-rays, SUIM, iSAID-5i and PASCAL-Part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fssbench.data import isaid, pascal_part
from fssbench.data.cross_domain import chest_xray, isic, suim
from fssbench.data.prepare.disk import put
from fssbench.data.prepare.members import Member
from fssbench.errors import FssbenchError

_FILES = re.compile(
    rf"(?:.*/)?(?:({re.escape(isic.IMAGES)}/ISIC_\d+\.jpg)"
    rf"|({re.escape(isic.MASKS)}/ISIC_\d+_segmentation\.png)"
    rf"|Lung Segmentation/((?:{chest_xray.IMAGES}|{chest_xray.MASKS})/[\w-]+\.png)"
    rf"|((?:{'|'.join(suim.PARTS)})/(?:{suim.IMAGES}/[\w-]+\.jpg|{suim.MASKS}/[\w-]+\.bmp))"
    rf"|((?:train|val)/(?:images/[\w-]+\.png|semantic_png/[\w-]+{re.escape(isaid.SUFFIX)}))"
    rf"|({pascal_part.IMAGES}/\d+_\d+\.jpg|{pascal_part.PARTS}/\d+_\d+\.json)"
    rf"|({re.escape(pascal_part.LIST)}))"
)
"""Names of the files; the group is the path in the dataset's folder."""


def unpack(root: str) -> Callable[[Iterator[Member], Path], Iterator[str]]:
    """Return a function that unpacks images and masks, once if the archive has copies of them."""

    def unpack_files(found: Iterator[Member], folder: Path) -> Iterator[str]:
        seen = set[str]()
        for member in found:
            wanted = _FILES.fullmatch(member.name)
            if wanted is None or (name := wanted[wanted.lastindex or 0]) in seen:
                continue
            seen.add(name)
            put(folder / root / name, member.read())
            yield name

    return unpack_files


def finish(root: str, **patterns: str) -> Callable[[Path], Mapping[str, int]]:
    """Return a function that counts the files of each pattern below a folder.

    Args:
        root: folder of the dataset.
        patterns: glob patterns by the name of their count, among them ``images`` and ``masks``.

    Raises:
        FssbenchError: there are no images or no masks.
    """

    def count(folder: Path) -> Mapping[str, int]:
        counts = {name: len(list((folder / root).glob(p))) for name, p in patterns.items()}
        for name, found in counts.items():
            if not found:
                raise FssbenchError(f"{folder / root}: no {name}; the archive is not whole")
        return counts

    return count
