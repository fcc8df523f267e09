"""Training of a matcher: the function `train` and its result."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.runtime.device import choose_device
from fssbench.runtime.launcher import check_devices, gpu_index, launched
from fssbench.training.checkpoint_writer import (
    BEST_FILE,
    LAST_FILE,
    CheckpointWriter,
    TrainingDirectory,
    read_state,
)
from fssbench.training.connection import connected
from fssbench.training.metrics import MetricsFile, TensorBoard
from fssbench.training.plan import Plan, make_plan
from fssbench.training.samples import warn_of_tested_images
from fssbench.training.trainer import Trainer
from fssbench.training.training import Training, TrainingRun
from fssbench.training.validation import Validation, validation_manifest

log = logging.getLogger(__name__)

Observers = Callable[[TrainingRun], Sequence[object]]
"""Function that creates additional observers (objects with hook methods) of a training."""


@attrs.frozen(kw_only=True)
class TrainingResult:
    """A finished training.

    Attributes:
        folder: training directory.
        last: checkpoint of the last step.
        best: checkpoint of the highest validation mIoU; None without validation.
        steps: number of all steps taken.
        miou: mIoU of the best checkpoint, in percent; None without validation.
        first: True if this is the first process, which writes the files.
    """

    folder: Path
    last: Path
    best: Path | None
    steps: int
    miou: float | None
    first: bool


def train(
    training: Training | None = None, *, observers: Observers | None = None, **changes: Any
) -> TrainingResult:
    """Train one stage of a matcher on one fold.

    Args:
        training: training to run; None if `changes` are complete.
        observers: function that creates additional observers, e.g. a progress bar.
        changes: attributes of `Training` to set, e.g. ``train(matcher="dcama", fold=1)``.

    Raises:
        FssbenchError: a name, option, file or dataset is invalid, or the training diverged; see
            `fssbench.training.loss_monitor`.
    """
    settings = Training(**changes) if training is None else attrs.evolve(training, **changes)
    plan = make_plan(settings)
    fabric = make_fabric(plan)
    folder = settings.out / plan.folder_name()
    validation = make_validation(plan, fabric)
    # Lock and read before other processes start, so that an error is raised in one process only.
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    opened = (
        TrainingDirectory(folder, {**plan.identity(), "images": plan.images})
        if rank == "0"
        else contextlib.nullcontext()
    )
    with opened as directory:
        state = None if directory is None else read_state(folder)
        if state is not None and not settings.resume:
            raise FssbenchError(
                f"{folder}: this folder contains {state['step']} steps of this training; continue "
                "with --resume, or choose another --out"
            )
        if directory is not None:
            warn_of_tested_images(plan.dataset, plan.samples.images, settings.fold)
        if directory is not None and state is None and settings.resume:
            log.warning("%s: no saved state to resume; starting from the first step", folder)
        with connected(fabric):
            state = fabric.broadcast(state)
            first = fabric.global_rank == 0
            run = make_run(plan, folder, done=0 if state is None else state["step"])
            files = [MetricsFile(), TensorBoard()] if first else []
            more = observers(run) if first and observers is not None else ()
            with registry.observing([*more, *files]) as hook:

                def event(name: str, **arguments: Any) -> None:
                    if first:
                        getattr(hook, name)(run=run, **arguments)

                writer = CheckpointWriter(plan, directory, fabric.device, validation)
                trainer = Trainer(
                    plan, fabric, run=run, validation=validation, event=event, save=writer.save
                )
                if state is not None:
                    trainer.resume(state)
                event("fssbench_training_started")
                trainer.train()
                event("fssbench_training_finished", checkpoint=folder / LAST_FILE)
    return TrainingResult(
        folder=folder,
        last=folder / LAST_FILE,
        best=None if trainer.best is None else folder / BEST_FILE,
        steps=trainer.step,
        miou=trainer.best,
        first=first,
    )


def make_run(plan: Plan, folder: Path, *, done: int) -> TrainingRun:
    """Return the description of a training that hooks receive."""
    settings = plan.settings
    return TrainingRun(
        matcher=settings.matcher,
        backbone=settings.backbone,
        stage=plan.stage.name,
        recipe=plan.recipe,
        dataset=plan.dataset,
        fold=settings.fold,
        seed=settings.seed,
        select_on=settings.select_on if plan.validates else "nothing",
        folder=folder,
        steps=plan.steps,
        epoch_steps=plan.epoch_steps,
        done=done,
    )


class _TaskEnvironment(TorchElasticEnvironment):
    """Tasks of a launcher as machines with one device each, whose numbers per machine may differ.

    The variables are those of `Tasks.export`.
    """

    def local_rank(self) -> int:
        """Return 0, the index in the list of this task's only device."""
        return 0


def make_fabric(plan: Plan) -> Fabric:
    """Create the Fabric with the tasks of a launcher, or else with the requested devices.

    Raises:
        FssbenchError: a device does not exist, or a batch cannot be divided evenly.
    """
    settings = plan.settings
    device = choose_device(settings.device, settings.precision)
    visible = torch.cuda.device_count() if device.type == "cuda" else 0
    count, nodes = settings.devices, 1
    chosen: Any = count
    environment: Any = LightningEnvironment()
    tasks = launched()
    if tasks is not None:
        check_devices(tasks, settings.devices)
        tasks.export()
        count = nodes = tasks.count
        chosen, environment = 1, _TaskEnvironment()
        if device.type == "cuda":
            local = tasks.local_rank, tasks.local_count
            chosen = [gpu_index(*local, visible, binds=tasks.binds_gpus)]
    elif device.type == "cuda":
        gpu_index(0, count, visible, binds=False)
    if count == 1 and device.index is not None:
        chosen = [device.index]
    check_batch(plan, count)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    return Fabric(
        accelerator=device.type,
        devices=chosen,
        num_nodes=nodes,
        strategy="ddp" if count > 1 else "auto",
        plugins=[environment],
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
    )


def check_batch(plan: Plan, processes: int) -> None:
    """Raise an `FssbenchError` unless the batch divides evenly among processes and parts."""
    parts = processes * plan.settings.accumulate
    if plan.recipe.batch % parts:
        raise FssbenchError(
            f"--batch-size {plan.recipe.batch}: {processes} processes with --accumulate "
            f"{plan.settings.accumulate} divide a batch evenly; use a multiple of {parts}"
        )


def make_validation(plan: Plan, fabric: Fabric) -> Validation | None:
    """Create the validation after each epoch for this process, or None."""
    if not plan.validates:
        return None
    settings = plan.settings
    return Validation(
        plan=plan,
        fabric=fabric,
        manifest=validation_manifest(
            plan.dataset,
            plan.recipe,
            fold=settings.fold,
            on=settings.select_on,
            episodes=settings.validation_episodes,
        ),
    )
