"""Atomic writing, bounded reading and hashing of files."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import tempfile
from pathlib import Path

from fssbench.errors import FssbenchError

MIB = 1 << 20
_BLOCK = MIB


def write_atomically(path: Path, data: bytes, *, flush: bool = True) -> None:
    """Write a file under a temporary name beside it, flush it to the disk, and rename it.

    Args:
        path: file to write.
        data: content of the file.
        flush: True to wait for the disk. Without it, a machine that crashes may leave a truncated
            file under the new name; this is for files that are verified when they are read.

    Raises:
        FssbenchError: the disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if flush:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> FssbenchError:
    """Return the error of an `OSError` while writing, as one line for the user."""
    reason = error.strerror or str(error)
    return FssbenchError(
        f"{path}: cannot write: {reason}; nothing finished is lost: make room or choose another "
        "folder, and run the same command again"
    )


def read_within(path: Path, most: int, *, packed: bool = False) -> bytes:
    """Read a file of a limited size.

    A few kilobytes of gzip can expand to gigabytes, so bytes are counted during decompression.

    Args:
        path: file to read.
        most: limit of its bytes, after decompression.
        packed: True if the file is gzipped.

    Raises:
        ValueError: the file is larger.
        OSError, EOFError, zlib.error: the file cannot be read, or is no valid gzip file.
    """
    blocks, size = [], 0
    with gzip.open(path) if packed else path.open("rb") as file:
        while block := file.read(_BLOCK):
            blocks.append(block)
            size += len(block)
            if size > most:
                raise ValueError(f"it holds more than {most / MIB:g} MiB")
    return b"".join(blocks)


def sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
