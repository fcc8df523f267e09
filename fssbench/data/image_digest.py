"""Digest of the content of images, with the hashes of files remembered in the cache folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor

from fssbench.data.cache import cache_folder
from fssbench.data.dataset import Dataset
from fssbench.data.index import SETTLED_SECONDS, in_threads
from fssbench.errors import FssbenchError
from fssbench.files import sha256

log = logging.getLogger(__name__)

DATABASE = "file-hashes.sqlite3"
_BUSY_SECONDS = 30.0  # that a process waits for another one that writes
_Stamp = tuple[str, int, int, int]


@attrs.frozen
class ImageHashes:
    """Hashes of the content of a dataset's images, each computed once; see `content_hashes`.

    The methods raise an FssbenchError if a file is missing or cannot be read.

    Attributes:
        dataset: dataset of the images.
    """

    dataset: Dataset
    _known: dict[str, str] = attrs.field(factory=dict, init=False)

    def of(self, image_ids: Iterable[str]) -> dict[str, str]:
        """Return the sha256 (hex) of the content of each image, sorted by id."""
        ids = sorted(set(image_ids))
        self._known.update(content_hashes(self.dataset, set(ids) - self._known.keys()))
        return {image: self._known[image] for image in ids}

    def digest(self, image_ids: Iterable[str]) -> str:
        """Return the sha256 (hex) of the content of images, in the order of their ids."""
        return digest_of(self.of(image_ids))


def digest_of(hashes: Mapping[str, str]) -> str:
    """Return the sha256 (hex) of the hashes of images by id, in their order."""
    total = hashlib.sha256()
    for image, found in hashes.items():
        total.update(f"{image}\0{found}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def short_hashes(hashes: Iterable[str]) -> Tensor:
    """Return 64 bits of each of N hashes, to compare images: int64 (N,)."""
    digests = (hashlib.sha256(each.encode()).digest() for each in hashes)
    return torch.tensor([int.from_bytes(d[:8], signed=True) for d in digests], dtype=torch.int64)


def content_hashes(dataset: Dataset, image_ids: Iterable[str]) -> dict[str, str]:
    """Return the sha256 (hex) of the content of each image, sorted by id.

    The hash of a file is remembered with its path, size and times, so that an unchanged file is
    read once. Images without a file are hashed by their pixels.

    Args:
        dataset: dataset of the images.
        image_ids: ids of the images, in any order.

    Raises:
        FssbenchError: a file is missing or cannot be read.
    """
    ids = sorted(set(image_ids))
    files = {image: path for image in ids if (path := dataset.image_path(image)) is not None}
    pixels = [image for image in ids if image not in files]
    hashes = dict(zip(files, _file_hashes(list(files.values()), dataset.name), strict=True))
    hashes |= dict(
        zip(
            pixels,
            in_threads(dataset.image_digest, pixels, f"Hashing {dataset.name}") if pixels else (),
            strict=True,
        )
    )
    return {image: hashes[image] for image in ids}


def _file_hashes(paths: Sequence[Path], name: str) -> list[str]:
    try:
        stamps = [_stamp(path) for path in paths]
    except OSError as error:
        raise FssbenchError(
            f"{error.filename}: cannot read this image: {error.strerror}; it belongs to {name}"
        ) from error
    known = _remembered(stamps)
    new = [path for path, stamp in zip(paths, stamps, strict=True) if stamp not in known]
    if new:
        try:
            found = in_threads(sha256, new, f"Reading the images of {name}")
        except OSError as error:
            raise FssbenchError(
                f"{error.filename}: cannot read this image: {error.strerror}"
            ) from error
        of_path = dict(zip(new, found, strict=True))
        fresh = {s: of_path[p] for p, s in zip(paths, stamps, strict=True) if p in of_path}
        _remember(fresh)
        known |= fresh
    return [known[stamp] for stamp in stamps]


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / DATABASE, timeout=_BUSY_SECONDS)
    with contextlib.closing(connection), connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS files "
            "(path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, sha256 TEXT)"
        )
        yield connection


def _remembered(stamps: Sequence[_Stamp]) -> dict[_Stamp, str]:
    try:
        with _database() as database:
            select = functools.partial(
                database.execute,
                "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime = ? AND ctime = ?",
            )
            rows = {stamp: select(stamp).fetchone() for stamp in stamps}
    except (OSError, sqlite3.Error, UnicodeEncodeError):
        return {}
    return {stamp: row[0] for stamp, row in rows.items() if row is not None}


def _remember(hashes: dict[_Stamp, str]) -> None:
    # A file that changed a moment ago may change again within the resolution of its time stamp.
    settled = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    rows = [(*stamp, digest) for stamp, digest in hashes.items() if max(stamp[2:]) < settled]
    try:
        with _database() as database:
            database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)
    except (OSError, sqlite3.Error, UnicodeEncodeError) as error:
        log.warning("%s: %s; images are read again by the next run", cache_folder(), error)
