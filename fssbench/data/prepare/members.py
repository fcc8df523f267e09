"""Reading of untrusted archives, which may be wrong, damaged or malicious."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

import attrs

from fssbench.data.prepare.archives import Archive
from fssbench.errors import FssbenchError

MOST_MEMBER = 2 << 30
"""Maximum size of a member in bytes; LVIS's training annotations have half of it."""

GZIP = b"\x1f\x8b"
END = 1024
"""Number of zero bytes at the end of a tar archive."""

_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError,
    RuntimeError,
)  # fmt: skip


@attrs.frozen
class Member:
    """A file in an archive.

    Attributes:
        name: path with ``/``.
        size: unpacked size in bytes, as declared by the archive.
        read: function that returns the content.
    """

    name: str
    size: int
    read: Callable[[], bytes]


def members(path: Path, archive: Archive) -> Iterator[Member]:
    """Yield the files of a tar, tar.gz or zip archive in order, without folders, links and devices.

    Raises:
        FssbenchError: the file cannot be read, is no such archive, is damaged, contains a path
            that leads out of it, or exceeds the archive's limits.
    """
    guard = _Guard(path, archive)
    with _errors(path):
        yield from (guard.passed(member) for member in _all(path))


def first_names(path: Path, count: int = 200) -> list[str]:
    """Return the names of the first files, which identify the archive.

    Raises:
        FssbenchError: as `members`.
    """
    with _errors(path):
        return [member.name for member in islice(_all(path), count)]


def _all(path: Path) -> Iterator[Member]:
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            yield from _zip_members(path)
            return
        file.seek(0)
        if file.read(len(GZIP)) == GZIP:
            with gzip.open(path) as unpacked:
                yield from _tar_members(unpacked, path)
                while unpacked.read(1 << 20):
                    pass  # gzip verifies its checksum at the end
            return
        file.seek(-min(END, file.seek(0, 2)), 2)
        whole = not any(file.read())
        file.seek(0)
        yield from _tar_members(file, path)
        if not whole:
            # tarfile does not detect a truncation between two members.
            raise tarfile.ReadError("its end is missing")


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as opened:
        for info in opened.infolist():
            if info.is_dir() or (info.external_attr >> 16) & 0o170000 == 0o120000:
                continue
            yield Member(info.filename, info.file_size, _Reading(opened, info))


@attrs.frozen
class _Reading:
    opened: zipfile.ZipFile
    info: zipfile.ZipInfo

    def __call__(self) -> bytes:
        with self.opened.open(self.info) as file:
            return _limited(file, self.info.filename, self.info.file_size)


def _tar_members(file: IO[bytes] | gzip.GzipFile, path: Path) -> Iterator[Member]:
    # As a stream: seeking back in a compressed tar would decompress it again.
    try:
        opened = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115
    except (tarfile.ReadError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FssbenchError(
            f"{path}: is no tar or zip archive, or its beginning or end is cut off; download it "
            "again"
        ) from error
    with opened:
        for info in opened:
            if not info.isreg():
                continue

            def read(info: tarfile.TarInfo = info) -> bytes:
                content = opened.extractfile(info)
                if content is None:
                    raise tarfile.ReadError(f"{info.name} has no content")
                return _limited(content, info.name, info.size)

            yield Member(info.name.removeprefix("./"), info.size, read)


def _limited(file: IO[bytes], name: str, size: int) -> bytes:
    data = file.read(size + 1)
    if len(data) != size:
        raise tarfile.ReadError(f"{name} has another size than the archive says")
    return data


@attrs.define
class _Guard:
    """Check of the paths, sizes and number of members."""

    path: Path
    archive: Archive
    total: int = 0
    count: int = 0

    def passed(self, member: Member) -> Member:
        parts = PurePosixPath(member.name.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in member.name:
            raise FssbenchError(
                f"{self.path}: contains the path {member.name!r}, which leads out of it; this is "
                f"not the official {self.archive.file}"
            )
        self.total += member.size
        self.count += 1
        if (
            member.size > MOST_MEMBER
            or self.total > self.archive.most_bytes
            or self.count > self.archive.most_members
        ):
            raise FssbenchError(
                f"{self.path}: holds more than {self.archive.file} does (at {member.name!r}); "
                "it is not unpacked further"
            )

        def read() -> bytes:
            with _errors(self.path):
                return member.read()

        return attrs.evolve(member, read=read)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FssbenchError(
            f"{path}: cannot be read: {error.strerror or error}; download it again, or name "
            "another file"
        ) from error
    except _BROKEN as error:
        raise FssbenchError(
            f"{path}: this archive is damaged or cut off ({error}); download it again"
        ) from error
