"""Settings of a training, and a running training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError
from fssbench.evaluation.evaluation import CACHE_LIMIT, at_least
from fssbench.runtime.device import Precision
from fssbench.training.recipe import Recipe


@attrs.frozen(kw_only=True)
class Training:
    """Settings of `train`; the options of the command line have the same names.

    Attributes:
        matcher: name of the matcher.
        stage: name of the stage; "" if the matcher has recipes for a single stage.
        dataset: name of the dataset.
        data_root: folder of the dataset.
        data_options: options of the dataset.
        fold: fold whose classes are novel and never trained on.
        recipe: name of one of the matcher's recipes, or a ``.toml`` file; "" for the recipe named
            after the dataset.
        backbone: name of the encoder; "" for the recipe's.
        weights: weights of the encoder: ``pretrained``, ``random`` or a file.
        part_weights: weights of the stage's parts by name: ``{"sam": "sam_vit_h.pth"}``.
        init: checkpoint to start from, e.g. of the previous stage; a file, or its address
            ``hf://…`` on the hub.
        options: options of the matcher, which override the recipe's.
        epochs: number of epochs, overrides the recipe's epochs or steps.
        steps: number of steps, overrides the recipe's epochs or steps.
        batch_size: samples of a step, over all devices; overrides the recipe's.
        lr: learning rate, overrides the recipe's.
        shots: number of shots, overrides the recipe's.
        seed: seed of initial weights, samples, augmentation and dropout.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: number of processes, each with its own GPU (or on the CPU); 1 with a
            launcher such as ``torchrun``, which starts the processes.
        precision: ``fp32`` or ``bf16``.
        accumulate: micro-batches of a step; more of them need less memory for the same batch.
        workers: loader processes of each process; None for one less than the cores, at most 8.
        cache_dir: folder of the features of images that recur with the same pixels, shared by
            trainings and processes; None for none.
        cache_limit: size limit in bytes of that folder.
        select_on: classes of the validation that selects the best checkpoint: ``base``, or
            ``novel`` as often in the literature, which checkpoints and boards state.
        validation_episodes: episodes measured after each epoch; 0 for no validation and no best
            checkpoint.
        save_every: steps between two saves; the end of each epoch is always saved.
        keep_every: steps between permanent checkpoints, ``step-….safetensors``; None for none.
        resume: True if to continue from the last save of an interrupted training, if there is one.
        out: folder for training directories.

    Raises:
        FssbenchError: a number is too small, or options are mutually exclusive.
    """

    matcher: str
    stage: str = ""
    dataset: str = "shapes"
    data_root: Path | None = None
    data_options: Mapping[str, Any] = attrs.field(factory=dict)
    fold: int = 0
    recipe: str = ""
    backbone: str = ""
    weights: str = "pretrained"
    part_weights: Mapping[str, str] = attrs.field(factory=dict)
    init: str | Path | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    epochs: int | None = attrs.field(default=None, validator=at_least(1))
    steps: int | None = attrs.field(default=None, validator=at_least(1))
    batch_size: int | None = attrs.field(default=None, validator=at_least(1))
    lr: float | None = None
    shots: int | None = attrs.field(default=None, validator=at_least(1))
    seed: int = 0
    device: str = "auto"
    devices: int = attrs.field(default=1, validator=at_least(1))
    precision: Precision = "fp32"
    accumulate: int = attrs.field(default=1, validator=at_least(1))
    workers: int | None = attrs.field(default=None, validator=at_least(0))
    cache_dir: Path | None = None
    cache_limit: int = attrs.field(default=CACHE_LIMIT, validator=at_least(1))
    select_on: Literal["base", "novel"] = "base"
    validation_episodes: int = attrs.field(default=500, validator=at_least(0))
    save_every: int = attrs.field(default=500, validator=at_least(1))
    keep_every: int | None = attrs.field(default=None, validator=at_least(1))
    resume: bool = False
    out: Path = Path("trainings")

    def __attrs_post_init__(self) -> None:
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise FssbenchError(f"--lr must be a finite number above 0, not {self.lr}")
        if self.epochs is not None and self.steps is not None:
            raise FssbenchError("give --epochs or --steps, not both")


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
