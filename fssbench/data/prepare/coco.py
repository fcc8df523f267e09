"""COCO's images and instance annotations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fssbench.data.prepare.disk import put
from fssbench.data.prepare.members import Member

_ANNOTATIONS = re.compile(r"annotations/instances_(?:train|val)(?:2014|2017)\.json")


def unpack_matching(
    pattern: re.Pattern[str],
) -> Callable[[Iterator[Member], Path], Iterator[str]]:
    """Writes the members of matching names below the folder, under the same names."""

    def unpack(found: Iterator[Member], folder: Path) -> Iterator[str]:
        for member in found:
            if pattern.fullmatch(member.name):
                put(folder / member.name, member.read())
                yield member.name

    return unpack


unpack_annotations = unpack_matching(_ANNOTATIONS)
"""The two files of object instances; captions and keypoints are left in the archive."""


def unpack_images(name: str) -> Callable[[Iterator[Member], Path], Iterator[str]]:
    """Return the images of ``train2014``, ``val2014``, ``train2017`` or ``val2017``."""
    file = rf"COCO_{name}_\d{{12}}" if name.endswith("2014") else r"\d{12}"
    return unpack_matching(re.compile(rf"{name}/{file}\.jpg"))


def finish(year: str) -> Callable[[Path], Mapping[str, int]]:
    """Counts the files; ``data check`` compares them with what the annotations list."""

    def count(folder: Path) -> Mapping[str, int]:
        return {
            name: sum(1 for _ in (folder / name).glob(pattern))
            for name, pattern in (
                ("annotations", f"instances_*{year}.json"),
                (f"train{year}", "*.jpg"),
                (f"val{year}", "*.jpg"),
            )
        }

    return count
