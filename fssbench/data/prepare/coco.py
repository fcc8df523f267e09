"""COCO's images and instance annotations, and LVIS's annotations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fssbench.data.prepare.disk import put
from fssbench.data.prepare.members import Member


def unpack_matching(pattern: str) -> Callable[[Iterator[Member], Path], Iterator[str]]:
    """Return a function that unpacks the members with matching names."""

    def unpack(found: Iterator[Member], folder: Path) -> Iterator[str]:
        for member in found:
            if re.fullmatch(pattern, member.name):
                put(folder / member.name, member.read())
                yield member.name

    return unpack


unpack_annotations = unpack_matching(r"annotations/instances_(?:train|val)(?:2014|2017)\.json")
"""Unpack the two files of object instances, without captions and keypoints."""


def unpack_lvis(found: Iterator[Member], folder: Path) -> Iterator[str]:
    """Unpack the annotation file of a split of LVIS v1 into ``annotations/``.

    Yields:
        Names of unpacked files.
    """
    for member in found:
        if re.fullmatch(r"lvis_v1_(?:train|val)\.json", member.name):
            put(folder / "annotations" / member.name, member.read())
            yield member.name


def unpack_images(name: str) -> Callable[[Iterator[Member], Path], Iterator[str]]:
    """Return a function that unpacks the images of, e.g., ``train2014``."""
    file = rf"COCO_{name}_\d{{12}}" if name.endswith("2014") else r"\d{12}"
    return unpack_matching(rf"{name}/{file}\.jpg")


def finish(year: str, annotations: str = "") -> Callable[[Path], Mapping[str, int]]:
    """Return a function that counts the files; ``data check`` checks the images.

    Args:
        year: year of the images.
        annotations: pattern of the annotation files; "" for those of COCO.
    """

    def count(folder: Path) -> Mapping[str, int]:
        return {
            name: sum(1 for _ in (folder / name).glob(pattern))
            for name, pattern in (
                ("annotations", annotations or f"instances_*{year}.json"),
                (f"train{year}", "*.jpg"),
                (f"val{year}", "*.jpg"),
            )
        }

    return count
