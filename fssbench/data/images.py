"""Read pictures and masks: the whole file as it was drawn, or an error of one line."""

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
"""What is decoded, whatever a file is called. Pillow knows fifty more; for one of them, PostScript,
it starts another program."""

MOST_PIXELS = 89_478_485
"""A picture of more is an error, as in Pillow, which only warns before twice as many."""

MISSING = "no such file; check --data-root"
"""Default text of the error about a missing file."""


def read_image(path: Path, *, missing: str = MISSING, upright: bool = False) -> Tensor:
    """Read an image as uint8 (3, H, W), RGB.

    Grey, palette and CMYK pictures are converted; transparency is dropped. The EXIF orientation is
    applied only with `upright`, because masks of datasets refer to the stored pixels.

    Args:
        path: file, named in errors as given.
        missing: text of the error about a missing file.
        upright: True to apply the EXIF orientation, as image viewers do.

    Raises:
        FssbenchError: the file is missing, cut off, too large, or of more than 8 bits a channel.
    """

    def rgb(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        turned = _turned(picture) if upright else picture
        return np.array(_eight_bit(turned).convert("RGB"))

    return torch.from_numpy(_decode(path, missing, rgb)).permute(2, 0, 1).contiguous()


def read_labels(path: Path, *, missing: str = MISSING) -> Tensor:
    """Read the class numbers of a label map, a grey or palette file, as uint8 (H, W).

    Raises:
        FssbenchError: as `read_image`, or the file is in colour and holds no class numbers.
    """

    def labels(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if picture.mode not in ("L", "P"):
            raise ValueError(
                f"its mode is {picture.mode}, but class numbers need an 8-bit grey or palette file"
            )
        return np.array(picture)

    return torch.from_numpy(_decode(path, missing, labels))


def read_grey(path: Path, *, missing: str = MISSING, upright: bool = False) -> Tensor:
    """Return an image in grey, uint8 (H, W); palette images by their colours.

    Args:
        path: file, named in errors as given.
        missing: text of the error about a missing file.
        upright: True to apply the EXIF orientation.

    Raises:
        FssbenchError: as `read_image`.
    """

    def grey(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        turned = _turned(picture) if upright else picture
        return np.array(_eight_bit(turned).convert("L"))

    return torch.from_numpy(_decode(path, missing, grey))


def image_size(path: Path, *, missing: str = MISSING) -> tuple[int, int]:
    """Height and width in pixels, from the file's header alone.

    Raises:
        FssbenchError: the file is missing or its header cannot be read.
    """
    width, height = _decode(path, missing, lambda picture: picture.size)
    return height, width


def check_same_size(
    mask: Tensor, mask_path: Path, image_path: Path, *, missing: str = MISSING
) -> None:
    """Raise an `FssbenchError` unless a mask (H, W) has the size of its image.

    Args:
        mask: mask to check.
        mask_path: file of the mask.
        image_path: the image; only its header is read.
        missing: text of the error about a missing image.
    """
    height, width = mask.shape
    image_height, image_width = image_size(image_path, missing=missing)
    if (height, width) != (image_height, image_width):
        raise FssbenchError(
            f"{mask_path}: the mask is {width}x{height}, its image {image_path.name} is "
            f"{image_width}x{image_height}; they must be of one size, pixel on pixel"
        )


def _turned(picture: Image.Image) -> Image.Image:
    picture.load()  # so that a picture that is cut off says so, not its EXIF block
    return ImageOps.exif_transpose(picture)


def _eight_bit(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):  # Pillow would cut everything above 255
        raise ValueError(
            f"its mode is {picture.mode}, more than 8 bits a channel; write it as 8 bits"
        )
    return picture


def _decode(path: Path, missing: str, take: Callable[[Image.Image], T]) -> T:
    # Research code that runs in this process may have set this; half a picture would change scores.
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
            f"{path}: cannot be decoded: {reason}; mend the file or copy it again"
        ) from error
