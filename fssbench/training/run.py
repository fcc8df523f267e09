"""One training while it runs, as hooks see it."""

from __future__ import annotations

from pathlib import Path

import attrs

from fssbench.data.dataset import Dataset
from fssbench.training.recipe import Recipe


@attrs.frozen(kw_only=True)
class TrainingRun:
    """What is trained.

    Attributes:
        matcher: name of the matcher.
        backbone: name of the backbone.
        stage: name of the stage.
        recipe: with what was changed on the command line.
        dataset: where the images are.
        fold: whose classes are novel.
        seed: of everything that is drawn.
        select_on: what the best checkpoint is chosen on: ``base``, ``novel`` or ``nothing``.
        folder: the training directory.
        steps: how many in all.
        epoch_steps: of an epoch.
        done: steps that an earlier, interrupted training took already.
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
