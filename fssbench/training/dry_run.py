"""Dry run: one step and one validation chunk, to test a configuration before a long training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs

from fssbench.inference.cost import peak_memory_mib
from fssbench.nn.flops import flop_counter
from fssbench.training.loader import load_batches, portions_of
from fssbench.training.loss_monitor import memory_advice
from fssbench.training.plan import make_plan
from fssbench.training.samples import warn_of_tested_images
from fssbench.training.step import set_modes
from fssbench.training.train import check_batch, make_fabric, make_run, make_validation
from fssbench.training.trainer import Trainer
from fssbench.training.training import Training


@attrs.frozen(kw_only=True)
class DryRun:
    """The result of a dry run, which writes no files.

    Attributes:
        groups: (name, number of parameters, learning rate) of each trained group.
        frozen: number of frozen parameters of the matcher.
        backbone: number of parameters of the backbone.
        step_flops: floating-point operations of one step, forward and backward, two per
            multiply-add; element-wise operations and custom kernels are not counted.
        samples: number of samples of an epoch.
        dropped: number of training images that the ``train_filter`` dropped.
        epoch_steps: steps of an epoch.
        steps: steps of the whole training.
        losses: losses of the step, by name.
        scores: scores of one validation chunk in percent, after one step; empty without validation.
        seconds: wall time of the step, including loading; the first step is slow.
        peak_memory_mib: peak memory so far; see `fssbench.results.record.Cost`.
    """

    groups: tuple[tuple[str, int, float], ...]
    frozen: int
    backbone: int
    step_flops: int
    samples: int
    dropped: int
    epoch_steps: int
    steps: int
    losses: dict[str, float]
    scores: dict[str, float]
    seconds: float
    peak_memory_mib: float


def dry_run(training: Training | None = None, **changes: Any) -> DryRun:
    """Take one step and measure one chunk, in one process, without writing anything.

    With several devices the step is that of one of them, and none of the others is needed.

    Args:
        training: training to test.
        changes: attributes of `Training` to set.

    Raises:
        FssbenchError: as `fssbench.train`.
    """
    settings = Training(**changes) if training is None else attrs.evolve(training, **changes)
    plan = make_plan(settings)
    warn_of_tested_images(plan.dataset, plan.samples.images, settings.fold)
    check_batch(plan, settings.devices)
    fabric = make_fabric(attrs.evolve(plan, settings=attrs.evolve(settings, devices=1)))
    fabric.launch()
    validation = make_validation(plan, fabric)
    run = make_run(plan, Path(), done=0)
    trainer = Trainer(
        plan, fabric, run=run, validation=validation,
        event=lambda *_, **__: None, save=lambda *_: None,
    )  # fmt: skip
    portions = portions_of(
        plan.samples.epoch(0),
        first_step=0, batch=plan.recipe.batch, parts=settings.accumulate, rank=0,
        world=settings.devices,
    )[: settings.accumulate]  # fmt: skip
    set_modes(plan.stage, plan.matcher, plan.backbone)
    started = time.perf_counter()
    # Loaded in advance, so that the operations of the augmentation are not counted.
    batches = list(load_batches(plan.loader, 0, portions, workers=0, pin=False))
    with (
        memory_advice(len(portions[0].samples), plan.size, settings.accumulate),
        flop_counter() as operations,
    ):
        losses = trainer.take_step(iter(batches)).losses
    seconds = time.perf_counter() - started
    groups = zip(trainer.groups, trainer.optimiser.param_groups, strict=True)
    return DryRun(
        groups=tuple(
            (group.name, sum(p.numel() for p in group.parameters), float(table["initial_lr"]))
            for group, table in groups
        ),
        frozen=sum(p.numel() for p in plan.matcher.parameters() if not p.requires_grad),
        backbone=sum(p.numel() for p in plan.backbone.parameters()),
        step_flops=operations.get_total_flops(),
        samples=plan.samples.full_size,
        dropped=plan.samples.dropped,
        epoch_steps=plan.epoch_steps,
        steps=plan.steps,
        losses=losses,
        scores={} if validation is None else validation.scores(chunks=1),
        seconds=seconds,
        peak_memory_mib=peak_memory_mib(fabric.device),
    )
