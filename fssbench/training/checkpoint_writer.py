"""Writing of checkpoints with their headers, and of the state for resuming."""

from __future__ import annotations

from pathlib import Path

import attrs
import cattrs
import torch

from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.matchers.matcher import config_of
from fssbench.runtime.environment import environment
from fssbench.training.directory import BEST_FILE, LAST_FILE, TrainingDirectory
from fssbench.training.plan import Plan
from fssbench.training.trainer import Trainer
from fssbench.training.validation import Validation


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
            self._checkpoint(folder / BEST_FILE, trainer, self._plan.job.select_on)
            return
        if what == "kept":
            self._checkpoint(folder / f"step-{trainer.step:07d}.safetensors", trainer, "nothing")
        self._checkpoint(folder / LAST_FILE, trainer, "nothing")
        self._directory.save(trainer.state())

    def _checkpoint(self, path: Path, trainer: Trainer, selected_on: str) -> None:
        plan, job = self._plan, self._plan.job
        validation = None
        if self._validation is not None and trainer.validated == trainer.step:
            validation = {
                "on": job.select_on,
                "digest": self._validation.manifest.digest,
                "miou": trainer.score,
            }
        header = {
            "matcher": job.matcher,
            "config": config_of(plan.matcher),
            "backbone": job.backbone,
            "weights": attrs.asdict(plan.backbone.weights),
            "dataset": plan.dataset.name,
            "fingerprint": plan.dataset.fingerprint("train"),
            "fold": job.fold,
            "stage": plan.stage.name,
            "recipe": plan.recipe.name,
            "settings": cattrs.unstructure(plan.recipe),
            "shots": plan.recipe.shots,
            "seed": job.seed,
            "train_filter": plan.recipe.train_filter,
            "dropped_images": plan.samples.dropped,
            **({"parts": plan.parts} if plan.parts else {}),
            "init": None
            if plan.init is None
            else {"name": plan.init.name, "sha256": plan.init.sha256},
            "step": trainer.step,
            "epoch": trainer.step / plan.epoch_steps,
            "selected_on": selected_on,
            "validation": validation,
            "environment": {
                **self._environment,
                "precision": job.precision,
                "processes": trainer.fabric.world_size,
                "accumulate": job.accumulate,
            },
        }
        trained = None
        # A backbone trained by an earlier stage exists only in checkpoints, so it is saved again.
        if plan.stage.trains_backbone or (plan.init is not None and plan.init.holds_backbone):
            state = plan.backbone.state_dict()
            trained = {name.removeprefix("model."): tensor for name, tensor in state.items()}
        write_checkpoint(path, plan.matcher, header, trained)
