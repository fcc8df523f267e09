"""Writing of many files, of which none is truncated if the process is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from fssbench.errors import FssbenchError
from fssbench.files import cannot_write

SPARE = 64 << 20
"""Free bytes required in addition to the data."""


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which may not exist."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise an `FssbenchError` unless the needed bytes and `SPARE` more are free."""
    free = free_bytes(folder)
    if free < needed + SPARE:
        raise FssbenchError(
            f"{folder}: {human(free)} free, but {what} needs {human(needed + SPARE)}; make room or "
            "choose another folder with --to"
        )


def check_writable(folder: Path) -> None:
    """Create the folder; raise an `FssbenchError` unless it is writable."""
    trial = folder / f".trial-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error


def put(path: Path, data: bytes) -> bool:
    """Write a file by rename, unless one of that size exists; return True if it was written.

    Files are not flushed one by one, which would take hours for COCO; `settle` flushes all. A
    truncated file after a power failure has another size and is written again.

    Raises:
        FssbenchError: the disk is full, or the folder is not writable.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(data):
            return False
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise cannot_write(path, error) from error
    return True


def settle() -> None:
    """Flush all written files to the disks."""
    if hasattr(os, "sync"):
        os.sync()


def human(count: float) -> str:
    """Format a number of bytes, e.g. ``1.9 GB``."""
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
