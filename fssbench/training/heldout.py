"""Held-out images, which are measured after each epoch and never trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch.distributed

from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError
from fssbench.training.recipe import Augment
from fssbench.training.samples import SPLIT
from fssbench.training.stage import Stage
from fssbench.training.step import TrainingStep

if TYPE_CHECKING:
    from fssbench.training.plan import Plan

AT_ONCE = 8
"""Batch size of held-out images."""


def held_out_images(dataset: Dataset, stage: Stage) -> list[str]:
    """Return the ids of a stage's held-out images, evenly spread over the split ``val``.

    Raises:
        FssbenchError: all images of that split are training images.
    """
    if not stage.held_out:
        return []
    trained = set(dataset.image_ids(SPLIT))
    left = sorted(image for image in dataset.image_ids("val") if image not in trained)
    if not left:
        raise FssbenchError(
            f"{dataset.name}: stage {stage.name} needs held-out images, but all images of split "
            "'val' are training images; choose another dataset"
        )
    count = min(stage.held_out, len(left))
    return [left[number * len(left) // count] for number in range(count)]


def measure_held_out(
    plan: Plan, module: TrainingStep, *, rank: int, world: int
) -> Mapping[str, float]:
    """Return the means of a stage's measures over the held-out images.

    Args:
        plan: plan of the training.
        module: matcher and stage, with the matcher in eval mode.
        rank: rank of this process, which measures its share of the images.
        world: number of processes.
    """
    augmentation = attrs.evolve(plan.loader.augmentation, recipe=Augment(crop="centre"))
    loader = attrs.evolve(plan.loader, augmentation=augmentation, caches=False)
    sums: dict[str, float] = {}
    ids: Sequence[str] = plan.held_out
    for start in list(range(0, len(ids), AT_ONCE))[rank::world]:
        some = ids[start : start + AT_ONCE]
        for name, value in module.measures(loader.load(0, start, some)).items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(some)
    shares: list[dict[str, float]] = [sums]
    if world > 1:
        shares = [{}] * world
        torch.distributed.all_gather_object(shares, sums)
    names = list(dict.fromkeys(name for share in shares for name in share))
    return {name: sum(s.get(name, 0.0) for s in shares) / len(ids) for name in names}
