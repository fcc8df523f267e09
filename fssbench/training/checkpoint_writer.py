"""Training directory: its lock, checkpoints with their headers, and the state for resuming."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import cattrs
import torch

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.matchers.checkpoint import UNKNOWN_IMAGES, known_images, write_checkpoint
from fssbench.runtime.environment import environment
from fssbench.runtime.locked_folder import LockedFolder
from fssbench.training.plan import Plan
from fssbench.training.trainer import Trainer
from fssbench.training.validation import Validation

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


class CheckpointWriter:
    """Writer of checkpoints and training state, in the first process.

    Args:
        plan: plan of the training.
        directory: training directory; None in the other processes, which write nothing.
        device: device of the training, for the header.
        validation: validation whose manifest is in the header, or None.
    """

    def __init__(
        self, plan: Plan, directory: TrainingDirectory | None, device: torch.device,
        validation: Validation | None,
    ) -> None:  # fmt: skip
        self._plan = plan
        self._directory = directory
        self._environment = environment(device)
        self._validation = validation

    def save(self, trainer: Trainer, what: str) -> None:
        """Write ``best``, or the last checkpoint and the state (and a ``kept`` checkpoint)."""
        if self._directory is None:
            return
        folder = self._directory.folder
        if what == "best":
            self._checkpoint(folder / BEST_FILE, trainer, self._plan.settings.select_on)
            return
        if what == "kept":
            self._checkpoint(folder / f"step-{trainer.step:07d}.safetensors", trainer, "nothing")
        self._checkpoint(folder / LAST_FILE, trainer, "nothing")
        self._directory.save(trainer.state())

    def _checkpoint(self, path: Path, trainer: Trainer, selected_on: str) -> None:
        plan, settings = self._plan, self._plan.settings
        validation = None
        if self._validation is not None and trainer.validated == trainer.step:
            validation = {
                "on": settings.select_on,
                "digest": self._validation.manifest.digest,
                "miou": trainer.score,
            }
        header = {
            **plan.facts(),
            "folds_of": plan.dataset.folds_of,
            "base_classes": plan.base_classes(),
            "images": plan.images,
            **({} if known_images(plan.earlier)[1] else {UNKNOWN_IMAGES: True}),
            "recipe": plan.recipe.name,
            "settings": cattrs.unstructure(plan.recipe),
            "shots": plan.recipe.shots,
            "seed": settings.seed,
            "train_filter": plan.recipe.train_filter,
            "dropped_images": plan.samples.dropped,
            **({"parts": plan.parts} if plan.parts else {}),
            "init": plan.init and plan.init.reference(),
            "step": trainer.step,
            "epoch": trainer.step / plan.epoch_steps,
            "selected_on": selected_on,
            "validation": validation,
            "environment": {
                **self._environment,
                "precision": settings.precision,
                "processes": trainer.fabric.world_size,
                "accumulate": settings.accumulate,
            },
            "code": {name: attrs.asdict(code) for name, code in plan.code.items()},
        }
        # A backbone trained by an earlier stage exists only in checkpoints, so it is saved again.
        saved = plan.stage.trains_backbone or (plan.init is not None and plan.init.holds_backbone)
        state = plan.backbone.state_dict().items()
        trained = {name.removeprefix("model."): tensor for name, tensor in state} if saved else None
        write_checkpoint(path, plan.matcher, header, trained, plan.trained_images)
