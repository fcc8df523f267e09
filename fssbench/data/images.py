"""Decoding of image files, with a one-line error for a missing or damaged file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from fssbench.errors import FssbenchError

T = TypeVar("T")

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Allowed Pillow decoders, independent of the file's suffix. Pillow has fifty more; one of them
(PostScript) starts an external program."""

MOST_PIXELS = 89_478_485
"""Maximum number of pixels of an image. Pillow warns at this limit and raises at twice as many."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = (5, 6, 7, 8)  # orientations that swap height and width

MISSING = "no such file; check --data-root"
"""Default text of the error for a missing file."""


def read_image(path: Path, *, missing: str = MISSING, upright: bool = True) -> Tensor:
    """Return an image as uint8 (3, H, W), RGB, turned as its EXIF orientation says.

    Grey, palette and CMYK images are converted; transparency is dropped.

    Args:
        path: image file, shown in errors as given.
        missing: text of the error for a missing file.
        upright: False for the pixels as stored.

    Raises:
        FssbenchError: the file is missing, truncated or too large, or has more than 8 bits a
            channel.
    """

    def convert(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if picture.mode.startswith(("I", "F")):  # Pillow would clip all values above 255
            raise ValueError(
                f"its mode is {picture.mode}, more than 8 bits a channel; write it as 8 bits"
            )
        return np.array((turned(picture) if upright else picture).convert("RGB"))

    return torch.from_numpy(decode(path, missing, convert)).permute(2, 0, 1).contiguous()


def image_size(path: Path, *, missing: str = MISSING, upright: bool = True) -> tuple[int, int]:
    """Return the height and width in pixels, read from the file's header.

    Args:
        path: image file, shown in errors as given.
        missing: text of the error for a missing file.
        upright: False for the size as stored.

    Raises:
        FssbenchError: the file is missing, or its header cannot be read.
    """

    def size(picture: Image.Image) -> tuple[int, int]:
        if picture.format == "TIFF":  # some versions of Pillow turn it only when it is loaded
            picture.load()
        swap = upright and _orientation(picture) in _SWAPPING
        return picture.size[::-1] if swap else picture.size

    width, height = decode(path, missing, size)
    return height, width


def check_same_size(
    mask: Tensor, mask_path: Path, image_path: Path, *, missing: str = MISSING
) -> None:
    """Raise an `FssbenchError` unless a mask (H, W) has the size of its upright image.

    Args:
        mask: mask to check.
        mask_path: file of the mask, for the error.
        image_path: image file, of which only the header is read.
        missing: text of the error for a missing image.
    """
    height, width = image_size(image_path, missing=missing)
    if mask.shape == (height, width):
        return
    fits = mask.shape == image_size(image_path, upright=False)
    hint = " when turned as its EXIF orientation says (the mask fits it unturned)" if fits else ""
    raise FssbenchError(
        f"{mask_path}: the mask is {mask.shape[1]}x{mask.shape[0]}, its image "
        f"{image_path.name} is {width}x{height}{hint}; they must be of one size, pixel on pixel"
    )


def turned(picture: Image.Image) -> Image.Image:
    """Return a picture turned as its EXIF orientation says, as image viewers do."""
    orientation = _orientation(picture)
    picture.load()
    turn = _TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, from the file's header."""
    if picture.format == "TIFF":  # Pillow turns TIFF files itself
        return 1
    try:
        # PngImageFile.getexif would decode the picture to find tags behind its pixels.
        return int(Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged tags raise struct.error, SyntaxError, …; the pixels are valid
        return 1


def decode(path: Path, missing: str, take: Callable[[Image.Image], T]) -> T:
    """Open an image file and return the value of a function of the open picture.

    Raises:
        FssbenchError: the file is missing, damaged or too large, or the function raises.
    """
    # Other code in this process may have set this; a partly decoded image would change the scores.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            return take(picture)
    except MemoryError:
        raise
    except FileNotFoundError as error:
        raise FssbenchError(f"{path}: {missing}") from error
    except UnidentifiedImageError as error:
        raise FssbenchError(
            f"{path}: cannot be decoded: it is no picture, or its beginning is damaged; "
            "copy the file again"
        ) from error
    except Image.DecompressionBombError as error:
        raise FssbenchError(
            f"{path}: cannot be decoded: it has more than {MOST_PIXELS} pixels; write it smaller"
        ) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, …
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FssbenchError(
            f"{path}: cannot be decoded: {reason}; repair the file or copy it again"
        ) from error
