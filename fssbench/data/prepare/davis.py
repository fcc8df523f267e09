"""DAVIS 2017's frames, masks and lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fssbench.data.davis import IMAGES, LIST, MASKS
from fssbench.data.prepare.disk import put
from fssbench.data.prepare.members import Member
from fssbench.errors import FssbenchError

ROOT = "DAVIS"

_FILE = re.compile(
    r"(?:.*/)?DAVIS/((?:JPEGImages/480p/[\w-]+/\d{5}\.jpg)|(?:Annotations/480p/[\w-]+/\d{5}\.png)"
    r"|(?:ImageSets/2017/(?:train|val)\.txt))"
)


def unpack(found: Iterator[Member], folder: Path) -> Iterator[str]:
    """Unpack the frames and masks of 480 pixels and the lists of 2017.

    Yields:
        Names of unpacked files.
    """
    for member in found:
        if wanted := _FILE.fullmatch(member.name):
            put(folder / ROOT / wanted[1], member.read())
            yield wanted[1]


def finish(folder: Path) -> Mapping[str, int]:
    """Return the numbers of frames, masks and listed videos.

    Raises:
        FssbenchError: the list of the validation videos is missing, or a listed video has not a
            mask for each frame.
    """
    root = folder / ROOT
    if not (root / LIST).is_file():
        raise FssbenchError(f"{root}: no {LIST}; give the archive of DAVIS 2017, not of 2016")
    videos = (root / LIST).read_text("utf-8").split()
    for video in videos:
        frames, masks = (
            {path.stem for path in (root / part / video).glob("[0-9]*.*")}
            for part in (IMAGES, MASKS)
        )
        if not frames or frames != masks:
            raise FssbenchError(
                f"{root}: {video} has {len(frames)} frames and {len(masks)} masks; the archive is "
                "not whole"
            )
    return {
        "frames": sum(1 for _ in (root / IMAGES).glob("*/*.jpg")),
        "masks": sum(1 for _ in (root / MASKS).glob("*/*.png")),
        "val.txt": len(videos),
    }
