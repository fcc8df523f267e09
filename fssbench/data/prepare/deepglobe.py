"""DeepGlobe's land cover images, which are cut to tiles."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fssbench.data.cross_domain import deepglobe
from fssbench.data.grey_masks import HALF
from fssbench.data.prepare.disk import put
from fssbench.data.prepare.members import Member
from fssbench.errors import FssbenchError

Array = np.ndarray[Any, np.dtype[np.uint8]]

_LAND = re.compile(r"(?:.*/)?(?:[\w-]+-)?train/(\d+)_(sat\.jpg|mask\.png)")
"""Names of DeepGlobe's annotated images and masks; there are none in its valid and test."""


def unpack_tiles(found: Iterator[Member], folder: Path) -> Iterator[str]:
    """Cut DeepGlobe's annotated images and their masks to tiles, as PATNet's script does.

    A tile is written if it has two colours or more, and each of them covers more than
    `deepglobe.SMALLEST` of it. The black of unknown land is a colour. Tiles are PNG files, so that
    no pixel changes; those of PATNet's script are JPEG files.

    Yields:
        Names of written tiles.

    Raises:
        FssbenchError: a picture cannot be decoded, an image and its mask differ in size, or one of
            them is missing.
    """
    root = folder / "DeepGlobe"
    waiting: dict[str, dict[str, bytes]] = {}  # images or masks whose other half is not read yet
    for member in found:
        wanted = _LAND.fullmatch(member.name)
        if wanted is None:
            continue
        name = wanted[1]
        halves = waiting.setdefault(name, {})
        halves[wanted[2]] = member.read()
        if len(halves) < 2:
            continue
        del waiting[name]
        image, mask = (_pixels(halves[kind], name) for kind in ("sat.jpg", "mask.png"))
        if image.shape != mask.shape:
            raise FssbenchError(
                f"{name}_mask.png: its size is not that of {name}_sat.jpg; download them again"
            )
        for tile, (rows, columns) in _tiles(mask):
            for kind, picture in ((deepglobe.IMAGES, image), (deepglobe.MASKS, mask)):
                data = io.BytesIO()
                Image.fromarray(picture[rows, columns]).save(data, "PNG", compress_level=1)
                put(root / kind / f"{name}_{tile}.png", data.getvalue())
            yield f"{name}_{tile}"
    if waiting:
        name, halves = next(iter(waiting.items()))
        raise FssbenchError(
            f"{name}_{next(iter(halves))}: the archive has only this one of image and mask; "
            "download it again"
        )


def _tiles(mask: Array) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Yield row and column, and the position, of the tiles of a mask (H, W, 3) to write."""
    red, green, blue = np.moveaxis((mask >= HALF).astype(np.uint8), -1, 0)
    codes = 4 * red + 2 * green + blue
    height, width = codes.shape
    for row in range(deepglobe.SIDE):
        for column in range(deepglobe.SIDE):
            place = _part(height, row), _part(width, column)
            shares = np.bincount(codes[place].ravel()) / codes[place].size
            colours = shares[shares > 0]
            if len(colours) > 1 and colours.min() > deepglobe.SMALLEST:
                yield f"{row}{column}", place


def _part(length: int, index: int) -> slice:
    return slice(index * length // deepglobe.SIDE, (index + 1) * length // deepglobe.SIDE)


def _pixels(data: bytes, name: str) -> Array:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            return np.asarray(picture.convert("RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, …
        raise FssbenchError(
            f"image or mask {name}: cannot be decoded ({error}); download the archive again"
        ) from error
