"""Locks between processes, with marker files where the file system has no locks."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Self

from fssbench.errors import FssbenchError

log = logging.getLogger(__name__)

NO_LOCKS = {
    errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS,
}  # fmt: skip
"""Errors of a file system without locks: NFS without lockd, Lustre without ``-o flock``, FUSE."""

MARKER = ".holder"
"""Suffix of a marker file: process id and host of the process that holds the lock."""

_POLL_SECONDS = 0.1
_held: set[Lock] = set()
_warned: set[Path] = set()


class LockedError(FssbenchError):
    """Another process holds a lock.

    Attributes:
        elsewhere: True for a marker of another host, whose process may have ended.
    """

    def __init__(self, message: str, *, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.elsewhere = elsewhere


class Lock:
    """A context manager that holds a lock on a file; the system releases it with the process.

    Where the file system has no locks, a marker file names the process and its host, and a warning
    is logged. A marker of a process that has ended on this host is removed.

    Args:
        path: file to lock, created if it is missing; its folder exists.
        work: noun of the locked thing in error messages, e.g. ``run folder``.
        timeout: seconds to wait for another process; ``math.inf`` waits until it ends, but never
            for a marker of another host.
        markers: False to raise the `OSError` of a file system without locks.

    Raises:
        LockedError: another process holds the lock.
        OSError: the file cannot be created or locked.
    """

    def __init__(
        self, path: Path, work: str = "file", *, timeout: float = 0, markers: bool = True
    ) -> None:
        self.path = path
        self._work, self._timeout, self._markers = work, timeout, markers
        self._handle = -1
        self._marker = path.with_name(path.name + MARKER)
        self._marked = False

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def acquire(self) -> Self:
        """Take the lock; the errors are those of the class."""
        end = time.monotonic() + self._timeout
        while (held_by := self._try()) is not None:
            if held_by.elsewhere or time.monotonic() >= end:
                raise held_by
            time.sleep(_POLL_SECONDS)
        _held.add(self)
        return self

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self not in _held:
            return
        _held.discard(self)
        if self._marked:
            self._marker.unlink(missing_ok=True)
            self._marked = False
        else:
            _unlock(self._handle)
            os.close(self._handle)

    def _try(self) -> LockedError | None:
        """Take the lock and return None, or return the error that names its holder."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
        except OSError as error:
            os.close(handle)
            if error.errno not in NO_LOCKS:
                if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                    return LockedError(f"another process uses this {self._work}")
                raise
            if not self._markers:
                raise
            return self._try_marker(error)
        self._handle = handle
        return None

    def _try_marker(self, error: OSError) -> LockedError | None:
        # Earlier versions of fssbench used filelock, whose markers are the lock file itself.
        for marker in (self._marker, self.path):
            if (held_by := self._holder(marker)) is not None:
                return held_by
        content = f"{os.getpid()}\n{socket.gethostname()}\n".encode()
        try:
            handle = os.open(self._marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return LockedError(f"another process uses this {self._work}")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        self._marked = True
        self.path.unlink(missing_ok=True)  # the empty file that could not be locked
        if self.path.parent not in _warned:
            _warned.add(self.path.parent)
            log.warning(
                "%s: this file system has no locks (%s); start no second process here, and remove "
                "%s after a job that was killed on another host",
                self.path.parent, error.strerror, self._marker.name,
            )  # fmt: skip
        return None

    def _holder(self, marker: Path) -> LockedError | None:
        """Return the error for a valid marker; remove one whose process has ended on this host."""
        try:
            pid, host, *_ = marker.read_text("utf-8", "replace").split()
            age = time.time() - marker.stat().st_mtime
        except (OSError, ValueError):  # no marker, or the empty lock file
            return None
        here = host == socket.gethostname()
        if here and pid.isdecimal() and not _alive(int(pid), self._marker):
            with contextlib.suppress(OSError):
                marker.unlink()
            return None
        return LockedError(
            f"process {pid} on host {host} uses this {self._work}, by its marker {marker}, which "
            f"is {_age(age)} old; if that process has ended, remove the marker",
            elsewhere=not here,
        )


def _alive(pid: int, marker: Path) -> bool:
    """Return True if a process of this host may be the one that wrote a marker."""
    if pid == os.getpid():  # a marker of an earlier process, unless a lock of this one holds it
        return any(lock._marker == marker for lock in _held)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _unlock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)

    def _forget() -> None:
        """Close the locks of the parent process: an orphan must not hold them."""
        for lock in _held:
            if not lock._marked:
                os.close(lock._handle)
        _held.clear()

    os.register_at_fork(after_in_child=_forget)
