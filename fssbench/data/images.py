"""Decoding of image and mask files, with a one-line error for a missing or damaged file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from fssbench.errors import FssbenchError

T = TypeVar("T")

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Allowed Pillow decoders, independent of the file's suffix. Pillow has fifty more; one of them
(PostScript) starts an external program."""

MOST_PIXELS = 89_478_485
"""Maximum number of pixels of an image. Pillow warns at this limit and raises at twice as many."""

MISSING = "no such file; check --data-root"
"""Default text of the error for a missing file."""


def read_image(path: Path, *, missing: str = MISSING, upright: bool = False) -> Tensor:
    """Return an image as uint8 (3, H, W), RGB.

    Grey, palette and CMYK images are converted; transparency is dropped. The EXIF orientation is
    not applied by default, because the masks of datasets are drawn on the pixels as stored.

    Args:
        path: image file, shown in errors as given.
        missing: text of the error for a missing file.
        upright: apply the EXIF orientation, as image viewers do.

    Raises:
        FssbenchError: the file is missing, truncated or too large, or has more than 8 bits a
            channel.
    """
    return _converted(path, "RGB", missing, upright).permute(2, 0, 1).contiguous()


def read_labels(path: Path, *, missing: str = MISSING) -> Tensor:
    """Return the class numbers of a label map (a grey or palette file) as uint8 (H, W).

    Raises:
        FssbenchError: as `read_image`, or the file is a colour image.
    """

    def labels(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if picture.mode not in ("L", "P"):
            raise ValueError(
                f"its mode is {picture.mode}, but class numbers need an 8-bit grey or palette file"
            )
        return np.array(picture)

    return torch.from_numpy(_decode(path, missing, labels))


def read_grey(path: Path, *, missing: str = MISSING, upright: bool = False) -> Tensor:
    """Return the grey values of an image as uint8 (H, W), 0 to 255; palettes are resolved.

    Arguments and errors are those of `read_image`.
    """
    return _converted(path, "L", missing, upright)


def image_size(path: Path, *, missing: str = MISSING) -> tuple[int, int]:
    """Return the height and width in pixels, read from the file's header.

    Raises:
        FssbenchError: the file is missing, or its header cannot be read.
    """
    width, height = _decode(path, missing, lambda picture: picture.size)
    return height, width


def check_same_size(
    mask: Tensor, mask_path: Path, image_path: Path, *, missing: str = MISSING
) -> None:
    """Raise an `FssbenchError` unless a mask (H, W) has the size of its image.

    Args:
        mask: mask to check.
        mask_path: file of the mask, for the error.
        image_path: image file, of which only the header is read.
        missing: text of the error for a missing image.
    """
    height, width = image_size(image_path, missing=missing)
    if mask.shape != (height, width):
        raise FssbenchError(
            f"{mask_path}: the mask is {mask.shape[1]}x{mask.shape[0]}, its image "
            f"{image_path.name} is {width}x{height}; they must be of one size, pixel on pixel"
        )


def _converted(path: Path, mode: str, missing: str, upright: bool) -> Tensor:
    def convert(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if upright:
            picture.load()  # a truncated file must raise its own error, not one about EXIF
            picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(("I", "F")):  # Pillow would clip all values above 255
            raise ValueError(
                f"its mode is {picture.mode}, more than 8 bits a channel; write it as 8 bits"
            )
        return np.array(picture.convert(mode))

    return torch.from_numpy(_decode(path, missing, convert))


def _decode(path: Path, missing: str, take: Callable[[Image.Image], T]) -> T:
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
