"""VOC 2012 and SBD to SegmentationClassAug."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import io as scipy_io

from fssbench.data.pascal import AUGMENTED, CLASSES, PLAIN
from fssbench.data.prepare.disk import put
from fssbench.data.prepare.members import Member
from fssbench.errors import FssbenchError

matlab: Any = scipy_io  # which has no types

ROOT = "VOC2012"
LISTS = "ImageSets/Segmentation"
MOST_MAT = 64 << 20
"""Bytes of the largest SBD file that is opened; the real ones have a few hundred thousand."""

_VOC = re.compile(
    r"(?:.*/)?VOCdevkit/VOC2012/((?:JPEGImages/\d{4}_\d{6}\.jpg)"
    r"|(?:SegmentationClass/\d{4}_\d{6}\.png)"
    r"|(?:ImageSets/Segmentation/(?:train|val|trainval)\.txt))"
)
_SBD = re.compile(r"(?:.*/)?benchmark_RELEASE/dataset/cls/(\d{4}_\d{6})\.mat")


def unpack_voc(found: Iterator[Member], folder: Path) -> Iterator[str]:
    """Photographs, VOC's own masks (also as part of SegmentationClassAug), and its lists.

    Yields:
        The name of each file that is there.
    """
    for member in found:
        wanted = _VOC.fullmatch(member.name)
        if wanted is None:
            continue
        data = member.read()
        put(folder / ROOT / wanted[1], data)
        if wanted[1].startswith(f"{PLAIN}/"):
            put(folder / ROOT / AUGMENTED / Path(wanted[1]).name, data)
        yield wanted[1]


def unpack_sbd(found: Iterator[Member], folder: Path) -> Iterator[str]:
    """SBD's class maps as palette PNGs, where VOC has no mask of its own; VOC must be there.

    SBD annotates images of VOC's validation set too, more coarsely and without the 255 of borders;
    VOC's own masks win, so the validation images stay what they are.

    Yields:
        The name of each mask that is there.
    """
    palette = voc_palette()
    for member in found:
        wanted = _SBD.fullmatch(member.name)
        if wanted is None:
            continue
        own = folder / ROOT / PLAIN / f"{wanted[1]}.png"
        target = folder / ROOT / AUGMENTED / f"{wanted[1]}.png"
        if not own.exists():
            put(target, _png(read_mat(member), palette))
        yield wanted[1]


def finish(folder: Path) -> Mapping[str, int]:
    """Write ``train_aug.txt``: all images with a mask but VOC's validation images, sorted.

    Returns:
        Files by folder and lines by list.

    Raises:
        FssbenchError: a mask has no photograph, or a listed image has no mask.
    """
    root = folder / ROOT
    masks = {path.stem for path in (root / AUGMENTED).glob("[0-9]*.png")}
    photographs = {path.stem for path in (root / "JPEGImages").glob("[0-9]*.jpg")}
    val = set((root / LISTS / "val.txt").read_text("utf-8").split())
    for what, names, pool in (
        ("photograph", masks, photographs),
        ("mask", val, masks),
    ):
        if names - pool:
            lone = sorted(names - pool)
            raise FssbenchError(
                f"{root}: {len(lone)} images have no {what}, first {lone[0]}; the archives do not "
                "belong together, or one is not whole"
            )
    train = sorted(masks - val)
    put(root / LISTS / "train_aug.txt", "".join(f"{name}\n" for name in train).encode())
    return {
        "JPEGImages": len(photographs),
        PLAIN: sum(1 for _ in (root / PLAIN).glob("[0-9]*.png")),
        AUGMENTED: len(masks),
        "val.txt": len(val),
        "train_aug.txt": len(train),
    }


def read_mat(member: Member) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the class map of an SBD file: ``GTcls.Segmentation``, uint8 (H, W) of 0 to 20.

    Raises:
        FssbenchError: the file has another format.
    """
    if member.size > MOST_MAT:
        raise FssbenchError(f"{member.name}: is too large ({member.size:,} bytes) for SBD")
    try:
        content = matlab.loadmat(io.BytesIO(member.read()), variable_names=["GTcls"])
        labels = np.asarray(content["GTcls"]["Segmentation"].item())
    except (matlab.matlab.MatReadError, ValueError, TypeError, KeyError, IndexError, OSError,
            NotImplementedError) as error:  # fmt: skip
        raise FssbenchError(
            f"{member.name}: is no class map of SBD ({error}); download the archive again"
        ) from error
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.max(initial=0) > len(CLASSES):
        raise FssbenchError(
            f"{member.name}: is no class map of SBD (not two-dimensional bytes of 0 to "
            f"{len(CLASSES)}); download the archive again"
        )
    return labels


def voc_palette() -> bytes:
    """VOC's colours: the bits of the class number, three at a time, from the top of R, G and B."""
    colours = np.zeros((256, 3), np.uint8)
    for number in range(256):
        rest = number
        for bit in range(7, -1, -1):
            for channel in range(3):
                colours[number, channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
    return colours.tobytes()


def _png(labels: np.ndarray[Any, np.dtype[np.uint8]], palette: bytes) -> bytes:
    picture = Image.fromarray(labels)
    picture.putpalette(palette)
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()
