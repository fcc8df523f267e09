"""The cache folder: reproducible data, built by one process and written atomically."""

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

VERSION = 3
"""Version of the cached files; increase it when masks are read differently."""


class Saved(Protocol):
    """An object that can be saved as arrays."""

    def arrays(self) -> Arrays:
        """Return the object as arrays of numbers."""
        ...


S = TypeVar("S", bound=Saved)


def cache_folder() -> Path:
    """Return ``FSSBENCH_CACHE`` or the user's cache folder of the system; it may not exist."""
    chosen = os.environ.get("FSSBENCH_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("fssbench")


def saved_or_built(
    name: str, build: Callable[[], S], load: Callable[[Arrays], S]
) -> tuple[S, bool]:
    """Load an object from the cache folder, or build and save it; other processes wait.

    A damaged file is rebuilt. If the folder is not writable, a warning is logged.

    Args:
        name: name of the file, without suffix; it must identify the inputs of the object.
        build: function that builds the object.
        load: function that restores the object from its arrays, or raises for invalid arrays.

    Returns:
        The object, and True if it is saved in the cache folder.
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
        found = _load(file, load)  # another process may have saved it meanwhile
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
    """Return names as a uint8 array for `unpack_names`; a name must not contain a zero byte."""
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def unpack_names(packed: Array) -> list[str]:
    """Return the names of an array made by `pack_names`."""
    text = packed.tobytes().decode("utf-8", "surrogateescape")
    return text.split("\0") if text else []


def _load(file: Path, load: Callable[[Arrays], S]) -> S | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return load(dict(arrays))
    except OSError:  # missing or not readable
        return None
    except Exception as error:  # a damaged file: BadZipFile, zlib.error, KeyError, EOFError, …
        log.warning("%s is damaged (%s) and is rebuilt", file, error)
        return None
