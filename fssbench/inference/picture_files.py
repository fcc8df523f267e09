"""Segmentation of the user's own image files, with masks and overlays as output files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import attrs
import numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fssbench.data.folder import SUFFIXES
from fssbench.data.images import check_same_size, read_image
from fssbench.data.masks import Foreground, read_foreground
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.inference.overlay import PREDICTION, painted
from fssbench.inference.predictor import Predictor

MASKS, OVERLAYS = "masks", "overlays"
"""Folders below ``--out``."""
_MISSING = "there is no such file"


@attrs.frozen
class Annotated:
    """The files of one support.

    Attributes:
        image: image file.
        mask: mask file, see `fssbench.data.masks.read_foreground`.
    """

    image: Path
    mask: Path


@attrs.frozen
class PictureFiles:
    """A query image and its output files.

    Attributes:
        query: image to segment.
        mask: output file of the mask.
        overlay: output file of the image with the mask drawn over it.
    """

    query: Path
    mask: Path
    overlay: Path


@attrs.frozen
class Segmented:
    """The result of one segmented image.

    Attributes:
        files: files of the image.
        width: width in pixels, of the upright image.
        height: height in pixels.
        foreground: number of foreground pixels.
    """

    files: PictureFiles
    width: int
    height: int
    foreground: int


def parse_support(text: str) -> Annotated:
    """Parse ``IMAGE:MASK``; paths may contain colons if only one split gives two existing files.

    Raises:
        FssbenchError: there is no colon, a file is missing, or several splits give files.
    """
    parts = text.split(":")
    splits = [
        Annotated(Path(":".join(parts[:n])), Path(":".join(parts[n:])))
        for n in range(1, len(parts))
        if any(parts[:n]) and any(parts[n:])
    ]
    if not splits:
        raise FssbenchError(f"--support {text}: write IMAGE:MASK, two files with a colon between")
    there = [pair for pair in splits if pair.image.is_file() and pair.mask.is_file()]
    if len(there) == 1:
        return there[0]
    if there or len(splits) > 1:
        raise FssbenchError(
            f"--support {text}: {len(there) or 'none'} of its colons part it into two files that "
            "exist; rename a file"
        )
    absent = next(p for p in (splits[0].image, splits[0].mask) if not p.is_file())
    raise FssbenchError(f"--support {text}: {absent}: {_MISSING}")


def read_supports(
    supports: Sequence[Annotated], foreground: Foreground = "auto"
) -> tuple[list[Tensor], list[Tensor]]:
    """Return images, uint8 (3, H, W), and masks, uint8 (H, W) of 0, 1 and 255, all upright.

    Raises:
        FssbenchError: a file cannot be read, sizes differ, or a mask is empty.
    """
    images, masks = [], []
    for pair in supports:
        mask = read_foreground(pair.mask, foreground, missing=_MISSING, option="--foreground")
        check_same_size(mask, pair.mask, pair.image, missing=_MISSING)
        if not bool((mask == 1).any()):
            raise FssbenchError(
                f"{pair.mask}: the mask is empty; write what is to be found as 255, the rest as 0"
            )
        images.append(read_image(pair.image, missing=_MISSING))
        masks.append(mask)
    return images, masks


def plan_pictures(
    query: Path, out: Path, keep: Sequence[Path], *, force: bool
) -> list[PictureFiles]:
    """Return the query images and their outputs, ``OUT/masks/NAME.png``, ``OUT/overlays/NAME.png``.

    NAME is the file name of the image without its suffix, or with it if the names are then not
    unique.

    Args:
        query: image file, or folder of image files.
        out: output folder.
        keep: input files, which are never overwritten.
        force: True if existing files may be replaced.

    Raises:
        FssbenchError: there is no image, or an output file exists.
    """
    queries = _queries(query)
    unique = len({path.stem.casefold() for path in queries}) == len(queries)
    names = {path: f"{path.stem if unique else path.name}.png" for path in queries}
    pictures = [
        PictureFiles(path, out / MASKS / name, out / OVERLAYS / name)
        for path, name in names.items()
    ]
    inputs = {path.resolve() for path in (*keep, *queries)}
    targets = [path for files in pictures for path in (files.mask, files.overlay)]
    for path in targets:
        if path.resolve() in inputs:
            raise FssbenchError(f"{path}: is one of the pictures given; choose another --out")
    there = [path for path in targets if path.exists()]
    if there and not force:
        more = f" (and {len(there) - 1} more)" if there[1:] else ""
        raise FssbenchError(
            f"{there[0]}: is there already{more}; choose another --out, or --force to replace"
        )
    return pictures


def make_folders(pictures: Sequence[PictureFiles]) -> None:
    """Create the folders of masks and overlays.

    Raises:
        FssbenchError: a folder cannot be created.
    """
    for folder in {path.parent for files in pictures for path in (files.mask, files.overlay)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FssbenchError(
                f"--out: cannot make the folder {folder}: {error.strerror or error}; choose another"
            ) from error


def segment_pictures(
    predictor: Predictor, pictures: Sequence[PictureFiles], failed: Callable[[FssbenchError], None]
) -> Iterator[Segmented]:
    """Segment images in order, and write the mask (0 and 255) and the overlay of each.

    Args:
        predictor: predictor with its support set.
        pictures: files of the images.
        failed: called with the error of each image that cannot be read; the rest is segmented.

    Yields:
        The result of each image, after its files are written.

    Raises:
        FssbenchError: a file cannot be written, or the method fails.
    """
    for files in pictures:
        try:
            image = read_image(files.query, missing=_MISSING)
        except FssbenchError as error:
            failed(error)
            continue
        try:
            mask = predictor.predict(image).mask.to(torch.uint8)
        except FssbenchError as error:
            raise FssbenchError(f"{files.query}: {error}") from error
        _write_png(files.mask, mask.numpy() * 255)
        _write_png(files.overlay, painted(image, mask, PREDICTION).round().astype(numpy.uint8))
        height, width = mask.shape
        yield Segmented(files, width, height, int(mask.sum()))


def _queries(query: Path) -> list[Path]:
    if query.is_file():
        return [query]
    if not query.is_dir():
        raise FssbenchError(f"--query {query}: there is no such file or folder")
    found = sorted(
        path
        for path in query.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise FssbenchError(f"--query {query}: the folder holds no images ({' '.join(SUFFIXES)})")
    return found


def _write_png(path: Path, pixels: NDArray[numpy.uint8]) -> None:
    data = BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    write_atomically(path, data.getvalue())
