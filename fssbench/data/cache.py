"""Cache folder: reproducible files, each built by one process and written atomically."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically

log = logging.getLogger(__name__)

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]

VERSION = 1
"""Increased whenever masks are read in another way, so that old files are not used."""


class Saved(Protocol):
    """An object that can be converted to arrays."""

    def arrays(self) -> Arrays:
        """Return the object as arrays of numbers."""
        ...


S = TypeVar("S", bound=Saved)


def cache_folder() -> Path:
    """Return ``FSSBENCH_CACHE``, or else the user's cache folder; it may not exist yet."""
    chosen = os.environ.get("FSSBENCH_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("fssbench")


def saved_or_built(
    name: str, build: Callable[[], S], load: Callable[[Arrays], S]
) -> tuple[S, bool]:
    """Load an object from the cache folder, or build and save it; other processes wait.

    A damaged file is built anew. If the folder is not writable, a warning is logged.

    Args:
        name: name of the file, which must change with everything that the object depends on.
        build: function that builds the object.
        load: function from arrays to the object; it raises an error for invalid arrays.

    Returns:
        The object, and True if it is in the cache folder.
    """
    file = cache_folder() / f"indexes-{VERSION}" / f"{name}.npz"
    found = _load(file, load)
    if found is not None:
        return found, True
    lock = FileLock(file.with_suffix(".lock"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.info("waiting for another process that builds %s", file)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        log.warning(
            "%s; %s is kept in memory: set FSSBENCH_CACHE to a folder of yours", error, name
        )
        return build(), False
    try:
        found = _load(file, load)  # the process that had the lock may have saved it
        if found is not None:
            return found, True
        built = build()
        content = io.BytesIO()
        arrays: dict[str, Any] = built.arrays()
        np.savez(content, **arrays)
        try:
            write_atomically(file, content.getvalue())
        except FssbenchError as error:
            log.warning("%s; it is kept in memory", error)
            return built, False
        return built, True
    finally:
        lock.release()


def pack_names(names: Iterable[str]) -> Array:
    """Return names as an array of bytes, which `unpack_names` reads; none may hold a zero byte."""
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def unpack_names(packed: Array) -> list[str]:
    """Return the names in an array that `pack_names` made."""
    text = packed.tobytes().decode("utf-8", "surrogateescape")
    return text.split("\0") if text else []


def _load(file: Path, load: Callable[[Arrays], S]) -> S | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return load(dict(arrays))
    except OSError:  # not there, or not for us to read
        return None
    except Exception as error:  # a damaged file: BadZipFile, zlib.error, KeyError, EOFError, …
        log.warning("%s is damaged (%s) and is built anew", file, error)
        return None
