"""A training directory: lock, identity, checkpoints, and the state from which training goes on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.runtime.locked_folder import LockedFolder

STATE_FILE = "state.pt"
LAST_FILE = "last.safetensors"
BEST_FILE = "best.safetensors"


class TrainingDirectory(LockedFolder):
    """Where one training keeps its files; a context manager that holds the lock.

    ``state.pt`` holds all that resuming needs, in one file written by rename, so a training that is
    killed at any moment goes on from its last save. Checkpoints are for evaluation; nothing is
    resumed from them. The identity is everything that the weights depend on.
    """

    identity_file = "training.json"
    work = "training"

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state from which training goes on, by rename."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_atomically(self.folder / STATE_FILE, buffer.getvalue())


def read_state(folder: Path) -> dict[str, Any] | None:
    """What `TrainingDirectory.save` wrote, on the CPU; None if nothing was saved yet.

    Raises:
        FssbenchError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        # torch writes the checksums of a zip archive, and reads it without a look at them.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not fit")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FssbenchError(
            f"{path}: this state is damaged; remove it and start again, or choose another --out"
        ) from error
    return state
