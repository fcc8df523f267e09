"""Writing many files, so that a kill at any moment leaves whole files only."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from fssbench.errors import FssbenchError
from fssbench.files import cannot_write

SPARE = 64 << 20
"""Bytes that stay free beside what is needed."""


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise an `FssbenchError` unless so many bytes, and some to spare, are free."""
    free = free_bytes(folder)
    if free < needed + SPARE:
        raise FssbenchError(
            f"{folder}: {human(free)} free, but {what} needs {human(needed + SPARE)}; make room or "
            "choose another folder with --to"
        )


def check_writable(folder: Path) -> None:
    """Make the folder; raise an `FssbenchError` unless files can be made in it."""
    trial = folder / f".trial-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error


def put(path: Path, data: bytes) -> bool:
    """Write a file by rename unless one of that size exists; return True if it was written.

    Not flushed to the disk one by one, which would take hours for COCO: a kill loses nothing that
    was renamed, and after a power cut a file of another size is written anew. `settle` flushes.

    Raises:
        FssbenchError: the disk is full, or the folder cannot be written.
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
    """Flush what was written to the disks."""
    if hasattr(os, "sync"):
        os.sync()


def human(count: float) -> str:
    """Bytes for people, e.g. ``1.9 GB``."""
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
