"""A training directory: lock, identity, checkpoints, and the state from which training goes on."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
import torch

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically

IDENTITY_FILE = "training.json"
STATE_FILE = "state.pt"
LAST_FILE = "last.safetensors"
BEST_FILE = "best.safetensors"
LOCK_FILE = ".lock"


class TrainingDirectory:
    """Where one training keeps its files; a context manager that holds the lock.

    ``state.pt`` holds all that resuming needs, in one file written by rename, so a training that is
    killed at any moment goes on from its last save. Checkpoints are for evaluation; nothing is
    resumed from them.

    Args:
        folder: the directory; made if it is not there.
        identity: everything that the weights depend on. A directory holds one identity for ever.

    Raises:
        FssbenchError: another process works in the directory, or it holds another training.
    """

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
                f"{self.folder}: another process is training into this folder; wait for it, or "
                "choose another --out"
            ) from error
        except OSError as error:
            raise FssbenchError(
                f"{self.folder}: cannot use this folder: {error.strerror or error}; choose another "
                "--out"
            ) from error
        try:
            self._claim()
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

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state from which training goes on, by rename."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_atomically(self.folder / STATE_FILE, buffer.getvalue())

    def _claim(self) -> None:
        path = self.folder / IDENTITY_FILE
        if not path.exists():
            write_atomically(path, (json.dumps(self.identity, indent=2) + "\n").encode())
            return
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise FssbenchError(
                f"{path}: cannot read which training this folder holds ({error}); choose another "
                "--out"
            ) from error
        differing = sorted(
            key
            for key in self.identity.keys() | found.keys()
            if self.identity.get(key) != found.get(key)
        )
        if differing:
            raise FssbenchError(
                f"{self.folder}: this folder holds a training that differs in "
                f"{', '.join(differing)}; choose another --out or remove it"
            )


def read_state(folder: Path) -> dict[str, Any] | None:
    """What `TrainingDirectory.save` wrote, on the CPU; None if nothing was saved yet.

    Raises:
        FssbenchError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FssbenchError(
            f"{path}: this state is damaged; remove it and start again, or choose another --out"
        ) from error
    return state
