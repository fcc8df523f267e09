"""A locked folder that belongs to one run or training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.runtime.locks import Lock, LockedError

LOCK_FILE = ".lock"


class LockedFolder:
    """A context manager that locks a folder and checks its identity file.

    Args:
        folder: folder to lock, created if it is missing.
        identity: everything that the results in the folder depend on, as JSON values.
        fresh: True to remove the files of earlier work in the folder.

    Raises:
        FssbenchError: another process has locked the folder, its identity differs, or it cannot be
            read or written.
    """

    identity_file: ClassVar[str]
    """Name of the file that holds the identity."""
    work: ClassVar[str]
    """Noun for error messages: run, training."""
    remedy: ClassVar[str] = "choose another --out, or remove the folder"
    """Advice of the error message about another identity."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))
        self._fresh = fresh
        self._lock = Lock(folder / LOCK_FILE, f"{self.work} folder")

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except LockedError as error:
            raise FssbenchError(
                f"{self.folder}: {error}; otherwise wait until it ends, or choose another --out"
                if error.elsewhere
                else f"{self.folder}: {error}; wait until it ends, or choose another --out"
            ) from error
        except OSError as error:
            raise FssbenchError(
                f"{self.folder}: cannot use this folder: {error.strerror or error}; choose another "
                "--out"
            ) from error
        try:
            if self._fresh:
                self._clear()
            self._check_identity()
            self.entered()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def entered(self) -> None:
        """Called once the lock is held and the identity is checked."""

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name.startswith(LOCK_FILE):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _check_identity(self) -> None:
        path = self.folder / self.identity_file
        if not path.exists():
            write_atomically(path, (json.dumps(self.identity, indent=2) + "\n").encode())
            return
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise FssbenchError(
                f"{path}: cannot read the identity of the {self.work} in this folder ({error}); "
                "choose another --out"
            ) from error
        before, now = _flat(found), _flat(self.identity)
        differing = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if differing:
            key = differing[0]
            values = f"{_short(before.get(key))} in the folder, {_short(now.get(key))} now"
            raise FssbenchError(
                f"{self.folder}: this folder holds a {self.work} that differs in "
                f"{', '.join(differing)} ({key}: {values}); {self.remedy}"
            )


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity with the code of each package as an entry of its own."""
    code = identity.get("code")
    if not isinstance(code, dict):
        return dict(identity)
    packages = {f"code of {name}": facts for name, facts in code.items()}
    return {**{key: value for key, value in identity.items() if key != "code"}, **packages}


def _short(value: Any) -> str:
    if isinstance(value, dict) and {"version", "sha256"} <= value.keys():
        return " ".join(filter(None, (value["version"], value["sha256"][:8]))) or "unknown"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
