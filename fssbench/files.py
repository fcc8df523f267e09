"""Files: written so that a reader sees the old one or the new one; read within a bound."""

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
        path: the file.
        data: what it is to hold.
        flush: wait for the disk; without it, a machine that dies may leave the new name with half
            of the data, which is for files that are checked when they are read.

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
    """The one line that a person gets for an `OSError` while writing."""
    reason = error.strerror or str(error)
    return FssbenchError(
        f"{path}: cannot write: {reason}; nothing finished is lost: make room or choose another "
        "folder, and run the same command again"
    )


def read_within(path: Path, most: int, *, packed: bool = False) -> bytes:
    """A file's bytes, unless there are more than any honest file of its kind has.

    A few kilobytes of gzip can stand for gigabytes: what is unpacked is counted while it comes.

    Args:
        path: the file.
        most: bytes that it may hold, after unpacking.
        packed: it is gzipped.

    Raises:
        ValueError: it holds more.
        OSError, EOFError, zlib.error: it cannot be read, or is no gzip or a damaged one.
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
    """Hash (hex) of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
