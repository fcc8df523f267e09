"""Optimisers, learning-rate schedules, and the parameters that get a gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from fssbench.backbones.backbone import Backbone
from fssbench.errors import FssbenchError
from fssbench.training.recipe import Optimiser, Schedule
from fssbench.training.stage import ParameterGroup


def make_optimiser(recipe: Optimiser, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
    """Return the recipe's optimiser; each group stores its full learning rate as ``initial_lr``.

    Raises:
        FssbenchError: nothing is trained, a parameter is in two groups, or the recipe scales a
            group that does not exist.
    """
    names = [group.name for group in groups]
    unknown = sorted(set(recipe.lr_scales) - set(names))
    if unknown:
        raise FssbenchError(
            f"recipe: optimiser.lr_scales names the group {unknown[0]!r}; the stage has "
            f"{', '.join(names)}"
        )
    parameters = [id(p) for group in groups for p in group.parameters]
    if not parameters:
        raise FssbenchError("the stage trains no parameters")
    if len(set(parameters)) < len(parameters):
        raise FssbenchError("the stage names a parameter twice among its groups")
    tables = []
    for group in groups:
        lr = recipe.lr * recipe.lr_scales.get(group.name, group.lr_scale)
        decay = recipe.weight_decay + recipe.decay_per_lr * recipe.lr
        decay = decay if group.weight_decay is None else group.weight_decay
        tables.append(
            {"params": list(group.parameters), "lr": lr, "initial_lr": lr, "weight_decay": decay}
        )
    if recipe.kind == "sgd":
        return torch.optim.SGD(tables, momentum=recipe.momentum, nesterov=recipe.nesterov)
    kind = torch.optim.Adam if recipe.kind == "adam" else torch.optim.AdamW
    return kind(tables, betas=recipe.betas)


def factor(schedule: Schedule, step: int, *, steps: int, epoch_steps: int) -> float:
    """Return the factor of the learning rates for the step after `step` steps.

    Args:
        schedule: learning-rate schedule.
        step: number of steps taken, 0 for the first one.
        steps: steps of the whole training.
        epoch_steps: steps of an epoch; used by schedules with ``per = "epoch"`` only.
    """
    step += schedule.ahead
    if step < schedule.warmup:
        rise = step / schedule.warmup
        return schedule.warmup_start + (1 - schedule.warmup_start) * rise
    if schedule.per == "epoch":
        step = max(schedule.warmup, step - step % epoch_steps)
    share = (step - schedule.warmup) / max(1, steps - schedule.warmup)
    match schedule.kind:
        case "constant":
            return 1.0
        case "poly":
            return float((1 - share) ** schedule.power)
        case "cosine":
            fall = (1 + math.cos(math.pi * share)) / 2
            return schedule.final + (1 - schedule.final) * fall


def set_rates(optimiser: torch.optim.Optimizer, scale: float) -> float:
    """Set every group's learning rate to `scale` times its full one; return the first."""
    for group in optimiser.param_groups:
        group["lr"] = scale * group["initial_lr"]
    return float(optimiser.param_groups[0]["lr"])


def parameters_behind(
    backbone: Backbone, layers: Sequence[str], *, size: int
) -> list[nn.Parameter]:
    """Return the parameters that get a gradient from some layers, in the backbone's order.

    Parameters of blocks after the deepest of these layers get none. They are found with a backward
    pass on a black image; the backbone is in eval mode, so its statistics do not change.

    Args:
        backbone: encoder.
        layers: requested layers.
        size: side of the image, in pixels.
    """
    parameters = list(backbone.parameters())
    if not parameters or not layers:
        return []
    before = [parameter.requires_grad for parameter in parameters]
    backbone.requires_grad_(True)
    with torch.enable_grad():
        found = backbone(backbone.mean.new_zeros(1, 3, size, size), layers)
        total = torch.stack([maps.float().sum() for maps in found.values()]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, wanted in zip(parameters, before, strict=True):
        parameter.requires_grad_(wanted)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
