"""A folder that one process works in at a time, and that holds one piece of work for ever."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import filelock

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically

LOCK_FILE = ".lock"


class LockedFolder:
    """A context manager that holds a folder's lock and checks whose it is.

    Args:
        folder: made if it is not there.
        identity: everything that the results in it depend on, as JSON values.

    Raises:
        FssbenchError: another process works in the folder, it holds other work, or it cannot be
            read or written.
    """

    identity_file: ClassVar[str]
    """Where the identity is written down."""
    work: ClassVar[str]
    """What is done in the folder, for messages: a run, a training."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))
        self._lock = filelock.FileLock(folder / LOCK_FILE, blocking=False)

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except filelock.Timeout as error:
            raise FssbenchError(
                f"{self.folder}: another process is at this {self.work}; wait for it, or choose "
                "another --out"
            ) from error
        except OSError as error:
            raise FssbenchError(
                f"{self.folder}: cannot use this folder: {error.strerror or error}; choose another "
                "--out"
            ) from error
        try:
            self._claim()
            self.entered()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def entered(self) -> None:
        """Do what must be done under the lock before anything else."""

    def _claim(self) -> None:
        path = self.folder / self.identity_file
        if not path.exists():
            write_atomically(path, (json.dumps(self.identity, indent=2) + "\n").encode())
            return
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise FssbenchError(
                f"{path}: cannot read which {self.work} this folder holds ({error}); choose "
                "another --out"
            ) from error
        differing = sorted(
            key
            for key in self.identity.keys() | found.keys()
            if self.identity.get(key) != found.get(key)
        )
        if differing:
            key = differing[0]
            raise FssbenchError(
                f"{self.folder}: this folder holds a {self.work} that differs in "
                f"{', '.join(differing)} ({key}: {_short(found.get(key))} there, "
                f"{_short(self.identity.get(key))} now); choose another --out or remove it"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
