"""Index of the pixels of each class in each image, counted once and saved in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from fssbench.data.cache import (
    Array,
    Arrays,
    cache_folder,
    pack_names,
    saved_or_built,
    unpack_names,
)
from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError, by_kind
from fssbench.files import sha256, text_lines, write_atomically

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = min(8, os.cpu_count() or 1)
"""Number of threads that read files; decoding and hashing release the GIL."""

SETTLED_SECONDS = 2.0
"""Minimum age in seconds of a file whose digest is remembered: a newer file could change again
within the resolution of its time stamp."""


class ClassIndex:
    """Number of pixels of each class in each image.

    Args:
        image_ids: N distinct image ids.
        starts: int (N + 1); the entries of image n are ``starts[n]`` to ``starts[n + 1]``.
        class_ids: int (E,), class id of each entry.
        pixels: int (E,), number of pixels of each entry, at least 1.

    Raises:
        ValueError: the lengths of the arrays do not match.
    """

    def __init__(
        self, image_ids: Iterable[str], starts: Array, class_ids: Array, pixels: Array
    ) -> None:
        self._rows = {image_id: row for row, image_id in enumerate(image_ids)}
        if len(starts) != len(self._rows) + 1 or not starts[-1] == len(class_ids) == len(pixels):
            raise ValueError("the arrays of an index do not belong together")
        self._starts, self._class_ids, self._pixels = starts, class_ids, pixels

    @classmethod
    def of(cls, counts: Mapping[str, Mapping[int, int]]) -> ClassIndex:
        """Return the index of pixel counts by image id and class id."""
        entries = [sorted(of_image.items()) for of_image in counts.values()]
        flat = np.array([entry for of_image in entries for entry in of_image], np.int64)
        class_ids, pixels = flat.reshape(-1, 2).T
        starts = np.cumsum([0, *map(len, entries)])
        return cls(counts, starts, class_ids.astype(np.int32), pixels.astype(np.int32))

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ClassIndex:
        """Return the index of the arrays that `arrays` returned."""
        ids = unpack_names(arrays["image_ids"])
        return cls(ids, arrays["starts"], arrays["class_ids"], arrays["pixels"])

    def arrays(self) -> Arrays:
        """Return the index as arrays for `numpy.savez`."""
        return {
            "image_ids": pack_names(self._rows),
            "starts": self._starts,
            "class_ids": self._class_ids,
            "pixels": self._pixels,
        }

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._rows

    def __getitem__(self, image_id: str) -> dict[int, int]:
        """Return the number of pixels of an image by class id.

        Raises:
            KeyError: the image is not in the index.
        """
        row = self._rows[image_id]
        entries = slice(self._starts[row], self._starts[row + 1])
        return dict(
            zip(self._class_ids[entries].tolist(), self._pixels[entries].tolist(), strict=True)
        )


class IndexedDataset(Dataset):
    """Base class of datasets with one mask file for each image, whose pixels are counted once.

    A subclass implements `mask_path`, `count_pixels` and `listed_in`. Pickles exclude indexes that
    are saved in the cache folder.

    Attributes:
        mask_options: options that change how mask files are read, by name, if they differ from
            their defaults: part of the fingerprint, so that each reading has an index of its own.
    """

    mask_options: Mapping[str, str | int | float | bool] = {}

    def __init__(self) -> None:
        self._fingerprints: dict[str, str] = {}
        self._indexes: dict[str, ClassIndex] = {}
        self._unsaved: set[str] = set()

    @abstractmethod
    def mask_path(self, image_id: str) -> Path:
        """Return the mask file of an image."""

    @abstractmethod
    def count_pixels(self, image_id: str) -> Mapping[int, int]:
        """Count the pixels of each class in an image's mask file, without classes of 0 pixels.

        Raises:
            FssbenchError: the mask is missing or invalid.
        """

    @abstractmethod
    def listed_in(self, split: str) -> str:
        """Return the source of the image ids of a split, e.g. a list file, for error messages."""

    def fingerprint(self, split: str = "val") -> str:
        """Return the SHA-256 (hex) of a split's image ids, mask files and class names.

        Raises:
            FssbenchError: the split does not exist, or a mask is missing.
        """
        self.check_split(split)
        if split not in self._fingerprints:
            files = {image_id: self.mask_path(image_id) for image_id in self.image_ids(split)}
            missing = f"no such mask; its image is listed in {self.listed_in(split)}"
            options = "".join(f" {n}={v}" for n, v in sorted(self.mask_options.items()))
            found = fingerprint(f"{self.name}{options}", self.classes, files, missing)
            self._fingerprints[split] = found
        return self._fingerprints[split]

    def prepare(self, split: str) -> None:
        """Load the split's index, or count the pixels of all its masks and save the index.

        Raises:
            FssbenchError: the split does not exist, or a mask is missing or invalid.
        """
        self.check_split(split)
        if split in self._indexes:
            return

        def count() -> ClassIndex:
            ids = self.image_ids(split)
            counts = in_threads(self.count_pixels, ids, f"Indexing {self.name} {split}")
            return ClassIndex.of(dict(zip(ids, counts, strict=True)))

        name = f"{self.name}-{self.fingerprint(split)}"
        self._indexes[split], saved = saved_or_built(name, count, ClassIndex.from_arrays)
        if not saved:
            self._unsaved.add(split)
        for problem in by_kind(self.problems(split)):
            log.warning("%s", problem)

    def class_pixels(self, image_id: str) -> Mapping[int, int]:
        """Return the pixels of each class in an image; the first call may build an index.

        Raises:
            FssbenchError: the image is in no split.
        """
        for index in self._indexes.values():
            if image_id in index:
                return index[image_id]
        for split in likely_first(self.splits, self._fingerprints):
            if split not in self._indexes and image_id in self.image_ids(split):
                self.prepare(split)
                return self._indexes[split][image_id]
        raise FssbenchError(f"{self.name} has no image {image_id!r} in {', '.join(self.splits)}")

    def __getstate__(self) -> dict[str, Any]:
        kept = {split: self._indexes[split] for split in self._unsaved}
        return {**self.__dict__, "_indexes": kept}


def likely_first(splits: Sequence[str], used: Iterable[str]) -> list[str]:
    """Return the splits in search order: used ones first, then test or val before train."""
    return sorted(splits, key=lambda split: (split not in used, -splits.index(split)))


def fingerprint(name: str, classes: Sequence[str], files: Mapping[str, Path], missing: str) -> str:
    """Return the SHA-256 (hex) of annotations, independent of their location.

    Reading every file takes long, so the digest is saved in the cache folder under a hash of the
    files' paths, sizes and times.

    Args:
        name: name of the dataset.
        classes: ordered class names.
        files: annotation files by id.
        missing: text of the error for a missing file.

    Raises:
        FssbenchError: a file is missing or cannot be read.
    """
    try:
        stamp, newest = _stamp(name, classes, files)
        memo = cache_folder() / "fingerprints" / stamp
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if len(known := memo.read_text("ascii")) == hashlib.sha256().digest_size * 2:
                return known
        contents = in_threads(sha256, list(files.values()), f"Reading the annotations of {name}")
    except FileNotFoundError as error:
        raise FssbenchError(f"{error.filename}: {missing}") from error
    except OSError as error:
        raise FssbenchError(f"{error.filename}: cannot be read: {error.strerror}") from error
    of_ids = sorted(zip(files, contents, strict=True))
    found = _digest(name, classes, (part for of_id in of_ids for part in of_id))
    if time.time() - newest > SETTLED_SECONDS:
        with contextlib.suppress(FssbenchError):  # saving the index logs the same problem
            write_atomically(memo, found.encode())
    return found


def list_lines(path: Path) -> list[str]:
    """Return the lines of a list file; see `fssbench.files.text_lines`.

    Raises:
        FssbenchError: the file cannot be read, or is no text.
    """
    try:
        return text_lines(path.read_bytes())
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FssbenchError(f"{path}: {error}; save this list in UTF-8") from error


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], title: str
) -> list[Result]:
    """Return the results of a function for each item, in order; the first error is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            return list(with_progress(pool.map(function, items), title, len(items)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def with_progress(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Yield the items with a progress bar on a terminal (stderr), else with one log line."""
    if sys.stderr.isatty():
        console = Console(stderr=True)
        yield from track(items, title, total=total, console=console, transient=True)
    else:
        log.info("%s: %d items", title, total)
        yield from items


def _stamp(name: str, classes: Sequence[str], files: Mapping[str, Path]) -> tuple[str, float]:
    parts, newest = [], 0.0
    for image_id, path in sorted(files.items()):
        status = path.stat()
        newest = max(newest, status.st_mtime, status.st_ctime)
        times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        parts += [image_id, os.path.abspath(path), times]
    return _digest(name, classes, parts), newest


def _digest(name: str, classes: Sequence[str], parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in (name, str(len(classes)), *classes, *parts):
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
