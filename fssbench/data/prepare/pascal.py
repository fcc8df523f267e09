"""Conversion of VOC 2012 and SBD to SegmentationClassAug."""

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

matlab: Any = scipy_io  # without type annotations

ROOT = "VOC2012"
LISTS = "ImageSets/Segmentation"
MOST_MAT = 64 << 20
"""Maximum size of an SBD file in bytes; the real ones have a few hundred thousand."""

_VOC = re.compile(
    r"(?:.*/)?VOCdevkit/VOC2012/((?:JPEGImages/\d{4}_\d{6}\.jpg)"
    r"|(?:SegmentationClass/\d{4}_\d{6}\.png)"
    r"|(?:ImageSets/Segmentation/(?:train|val|trainval)\.txt))"
)
_SBD = re.compile(r"(?:.*/)?benchmark_RELEASE/dataset/cls/(\d{4}_\d{6})\.mat")


def unpack_voc(found: Iterator[Member], folder: Path) -> Iterator[str]:
    """Unpack VOC's images, masks (also into SegmentationClassAug) and lists.

    Yields:
        Names of unpacked files.
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
    """Write SBD's class maps as palette PNGs for images without a VOC mask; unpack VOC first.

    SBD also annotates images of VOC's validation set, more coarsely and without 255 at borders, so
    VOC's masks have precedence.

    Yields:
        Ids of the class maps.
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
    """Write ``train_aug.txt``: sorted images with a mask, without VOC's validation images.

    Returns:
        Numbers of files by folder and of lines by list.

    Raises:
        FssbenchError: a mask has no image, or a listed image has no mask.
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
    """Return the class map ``GTcls.Segmentation`` of an SBD file, uint8 (H, W) of 0 to 20.

    Raises:
        FssbenchError: it is no such file.
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
    """Return VOC's palette: the bits of the class number, three at a time, from the top of RGB."""
    numbers = np.arange(256, dtype=np.uint8)[:, None]
    bits = np.unpackbits(numbers, axis=1, bitorder="little")
    groups = np.pad(bits, ((0, 0), (0, 1))).reshape(256, 3, 3)
    return np.packbits(groups.transpose(0, 2, 1), axis=2).tobytes()


def _png(labels: np.ndarray[Any, np.dtype[np.uint8]], palette: bytes) -> bytes:
    picture = Image.fromarray(labels)
    picture.putpalette(palette)
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()
