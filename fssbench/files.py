"""Atomic writing, bounded reading and hashing of files."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from fssbench.errors import FssbenchError

MIB = 1 << 20
_BLOCK = MIB


def write_atomically(path: Path, data: bytes, *, flush: bool = True) -> None:
    """Write a temporary file in the same folder, flush it to the disk, and rename it.

    Args:
        path: file to write.
        data: content of the file.
        flush: call fsync before the rename. Without it a power failure may leave a truncated file;
            use it only for files that are validated when they are read.

    Raises:
        FssbenchError: the disk is full, or the folder is not writable.
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
    """Return the user error for an `OSError` while writing."""
    reason = error.strerror or str(error)
    return FssbenchError(
        f"{path}: cannot write: {reason}; nothing finished is lost: make room or choose another "
        "folder, and run the same command again"
    )


def read_toml(path: Path, where: str) -> dict[str, Any]:
    """Return the content of a TOML file.

    Args:
        path: file to read.
        where: option and file, for messages.

    Raises:
        FssbenchError: the file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FssbenchError(f"{where}: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise FssbenchError(f"{where}: invalid TOML: {error}") from error


def read_within(path: Path, most: int, *, packed: bool = False) -> bytes:
    """Return the bytes of a file of limited size.

    A few kilobytes of gzip can decompress to gigabytes, so the limit is checked while reading.

    Args:
        path: file to read.
        most: maximum size in bytes, after decompression.
        packed: the file is compressed with gzip.

    Raises:
        ValueError: the file is larger.
        OSError, EOFError, zlib.error: the file cannot be read, or is not valid gzip.
    """
    blocks, size = [], 0
    with gzip.open(path) if packed else path.open("rb") as file:
        while block := file.read(_BLOCK):
            blocks.append(block)
            size += len(block)
            if size > most:
                raise ValueError(f"it holds more than {most / MIB:g} MiB")
    return b"".join(blocks)


def text_lines(content: bytes, errors: str = "surrogateescape") -> list[str]:
    """Return the lines of a text in UTF-8, or in UTF-8 or UTF-16 with a byte-order mark.

    Args:
        content: bytes of the text.
        errors: treatment of bytes that are no UTF-8; by default they become surrogates, as in file
            names.

    Raises:
        ValueError: the text has another encoding, or contains a null character.
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if utf16 else "utf-8-sig", "strict" if utf16 else errors)
    if "\0" in text:
        raise ValueError("it is no text in UTF-8, or UTF-16 with a byte-order mark")
    return text.splitlines()


def sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
