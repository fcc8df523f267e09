"""The cache folder: reproducible data, built by one process and written atomically."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import platformdirs

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.runtime.locks import Lock, LockedError

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
T = TypeVar("T")


def cache_folder() -> Path:
    """Return ``FSSBENCH_CACHE`` or the user's cache folder of the system; it may not exist.

    A user without a home folder gets a folder among the system's temporary files.
    """
    chosen = os.environ.get("FSSBENCH_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))
    try:
        folder = platformdirs.user_cache_path("fssbench")
    except RuntimeError:  # of platformdirs 4.4 and later; earlier ones return "~/.cache/fssbench"
        return _temporary_cache()
    return folder if folder.is_absolute() else _temporary_cache()


@functools.cache
def _temporary_cache() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else ""
    folder = Path(tempfile.gettempdir(), f"fssbench-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if user not in ("", folder.stat().st_uid):  # of another user, who could change the files
        folder = Path(tempfile.mkdtemp(prefix="fssbench-"))
    log.warning("there is no home folder: the cache is %s; set FSSBENCH_CACHE to keep it", folder)
    return folder


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
    found = load_arrays(file, load)
    if found is not None:
        return found, True
    try:
        with _building(file):
            found = load_arrays(file, load)  # another process may have saved it meanwhile
            if found is not None:
                return found, True
            built = build()
            try:
                save_arrays(file, built.arrays())
            except FssbenchError as error:
                log.warning("%s; it is kept in memory", error)
                return built, False
            return built, True
    except _NoCacheError as error:
        log.warning("%s; %s is kept in memory", error, name)
        return build(), False


class _NoCacheError(Exception):
    """The cache folder cannot be used."""


@contextlib.contextmanager
def _building(file: Path) -> Iterator[None]:
    """Hold the lock of a file to build, waiting with a message for a process that builds it."""
    path = file.with_suffix(".lock")
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(Lock(path, "index", timeout=1))
            except LockedError as error:
                if error.elsewhere:
                    raise
                log.warning("waiting for another process that builds %s", file)
                stack.enter_context(Lock(path, "index", timeout=math.inf))
        except LockedError as error:
            raise _NoCacheError(error) from error
        except OSError as error:
            raise _NoCacheError(f"{error}; set FSSBENCH_CACHE to a folder of yours") from error
        yield


def pack_names(names: Iterable[str]) -> Array:
    """Return names as a uint8 array for `unpack_names`; a name must not contain a zero byte."""
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def unpack_names(packed: Array) -> list[str]:
    """Return the names of an array made by `pack_names`."""
    text = packed.tobytes().decode("utf-8", "surrogateescape")
    return text.split("\0") if text else []


def load_arrays(file: Path, load: Callable[[Arrays], T]) -> T | None:
    """Return an object from a file of arrays, or None if the file is missing or damaged.

    Args:
        file: file of `save_arrays`.
        load: function that restores the object from its arrays, or raises for invalid arrays.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return load(dict(arrays))
    except OSError:  # missing or not readable
        return None
    except Exception as error:  # a damaged file: BadZipFile, zlib.error, KeyError, EOFError, …
        log.warning("%s is damaged (%s) and is rebuilt", file, error)
        return None


def save_arrays(file: Path, arrays: Arrays, *, flush: bool = True) -> None:
    """Write arrays atomically.

    Args:
        file: file with the suffix ``.npz``.
        arrays: arrays of numbers by name.
        flush: see `fssbench.files.write_atomically`; `load_arrays` detects a truncated file.

    Raises:
        FssbenchError: the folder is not writable.
    """
    content, named = io.BytesIO(), dict[str, Any](arrays)
    np.savez(content, **named)
    write_atomically(file, content.getvalue(), flush=flush)
