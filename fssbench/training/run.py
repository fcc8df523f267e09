"""A running training, as passed to hooks."""

from __future__ import annotations

from pathlib import Path

import attrs

from fssbench.data.dataset import Dataset
from fssbench.training.recipe import Recipe


@attrs.frozen(kw_only=True)
class TrainingRun:
    """A running training.

    Attributes:
        matcher: name of the matcher.
        backbone: name of the backbone.
        stage: name of the stage.
        recipe: recipe, including changes on the command line.
        dataset: training dataset.
        fold: fold whose classes are novel.
        seed: seed of all random draws.
        select_on: classes that the best checkpoint is selected on: ``base``, ``novel`` or
            ``nothing``.
        folder: training directory.
        steps: number of all steps.
        epoch_steps: steps of an epoch.
        done: number of steps that an earlier, interrupted training took.
    """

    matcher: str
    backbone: str
    stage: str
    recipe: Recipe
    dataset: Dataset
    fold: int
    seed: int
    select_on: str
    folder: Path
    steps: int
    epoch_steps: int
    done: int
