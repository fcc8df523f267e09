"""FSS-1000's class folders."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from fssbench.data.prepare.disk import put
from fssbench.data.prepare.members import Member
from fssbench.errors import FssbenchError

log = logging.getLogger(__name__)

ROOT = "FSS-1000"
PICTURE = re.compile(r"(?:.*/)?(?P<class>[^/.\\][^/\\:]*)/(?P<n>[1-9]\d?)\.(?P<kind>jpg|png)")
"""Names of images and masks, e.g. ``fewshot_data/fewshot_data/<class>/<n>.jpg``, at any depth."""


def unpack(found: Iterator[Member], folder: Path) -> Iterator[str]:
    """Unpack the images ``<class>/<n>.jpg`` and masks ``<class>/<n>.png``.

    Yields:
        Names of unpacked files.

    Raises:
        FssbenchError: two files have the same class and number.
    """
    seen: dict[str, str] = {}
    for member in found:
        if "__MACOSX" in PurePosixPath(member.name).parts:
            continue
        wanted = PICTURE.fullmatch(member.name)
        if wanted is None or any(ord(letter) < 32 for letter in wanted["class"]):
            continue
        name = f"{wanted['class']}/{wanted['n']}.{wanted['kind']}"
        if name in seen:
            raise FssbenchError(
                f"the archive holds {name} twice, as {seen[name]} and as {member.name}; it is "
                "not the official one"
            )
        seen[name] = member.name
        put(folder / ROOT / name, member.read())
        yield name


def finish(folder: Path) -> Mapping[str, int]:
    """Return the numbers of classes, images and masks; warn of images without a mask."""
    root = folder / ROOT
    classes = [path for path in root.iterdir() if path.is_dir()]
    images = sorted(root.glob("*/*.jpg"))
    lone = [path for path in images if not path.with_suffix(".png").exists()]
    if lone:
        log.warning(
            "%s: %d pictures have no mask, first %s; fssbench data check names them all",
            root, len(lone), lone[0].relative_to(root),
        )  # fmt: skip
    masks = sum(1 for _ in root.glob("*/*.png"))
    return {"classes": len(classes), "pictures": len(images), "masks": masks}
