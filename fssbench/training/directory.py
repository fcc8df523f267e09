"""Training directory: lock, identity, checkpoints, and the state for resuming."""

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
    """The directory of one training; a context manager that holds the lock.

    ``state.pt`` contains everything that resuming needs, in one file written by rename, so a killed
    training can be resumed from its last save. Checkpoints are for evaluation and are not used for
    resuming. The identity is everything that the weights depend on.
    """

    identity_file = "training.json"
    work = "training"

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state for resuming, by rename."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_atomically(self.folder / STATE_FILE, buffer.getvalue())


def read_state(folder: Path) -> dict[str, Any] | None:
    """Read the state that `TrainingDirectory.save` wrote, to the CPU; None if there is none yet.

    Raises:
        FssbenchError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        # torch.load does not verify the checksums of the zip archive.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not fit")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FssbenchError(
            f"{path}: this state is damaged; remove it and start again, or choose another --out"
        ) from error
    return state
