"""What a training is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from fssbench.errors import FssbenchError
from fssbench.inference.pipeline import Precision


@attrs.frozen(kw_only=True)
class Training:
    """What `train` is asked for; the command line's options, by the same names.

    Attributes:
        matcher: name of the method.
        stage: name of the stage; "" when the method has recipes for one only.
        dataset: name of the dataset.
        data_root: its folder.
        data_options: its own options.
        fold: whose classes are novel, that is never trained on.
        recipe: name of one of the method's recipes, or a ``.toml`` file; "" for the one of the
            dataset's name.
        backbone: name of the encoder; "" for the recipe's.
        weights: of the encoder: ``pretrained``, ``random`` or a file.
        part_weights: of what the stage calls its parts, by name: ``{"sam": "sam_vit_h.pth"}``.
        init: checkpoint to start from, e.g. of the stage before.
        options: the matcher's own; they go before the recipe's.
        epochs: instead of the recipe's epochs or steps.
        steps: instead of the recipe's epochs or steps.
        batch_size: samples of a step, over all devices, instead of the recipe's.
        lr: instead of the recipe's.
        shots: instead of the recipe's.
        seed: of initial weights, samples, augmentation and dropout.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: processes, each with a GPU of its own (or on a CPU). Under ``torchrun`` it says.
        precision: ``fp32`` or ``bf16``.
        accumulate: micro-batches of a step; more of them need less memory for the same batch.
        workers: loader processes of each process; None for one less than the cores, at most 8.
        select_on: the best checkpoint is the best on ``base`` classes of held-out images, or (the
            literature's habit, marked in the checkpoint and on boards) on ``novel`` ones.
        validation_episodes: measured after each epoch; 0 for never, and no best checkpoint.
        save_every: steps between two saves; at the end of each epoch anyway.
        keep_every: steps between checkpoints that stay, ``step-….safetensors``; None for none.
        resume: go on where an interrupted training saved last; start if there is none.
        out: folder for training directories.

    Raises:
        FssbenchError: a number is too small, or options exclude each other.
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
    init: Path | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    shots: int | None = None
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: Precision = "fp32"
    accumulate: int = 1
    workers: int | None = None
    select_on: Literal["base", "novel"] = "base"
    validation_episodes: int = 500
    save_every: int = 500
    keep_every: int | None = None
    resume: bool = False
    out: Path = Path("trainings")

    def __attrs_post_init__(self) -> None:
        for name, value, least in (
            ("--epochs", self.epochs, 1),
            ("--steps", self.steps, 1),
            ("--batch-size", self.batch_size, 1),
            ("--shots", self.shots, 1),
            ("--devices", self.devices, 1),
            ("--accumulate", self.accumulate, 1),
            ("--workers", self.workers, 0),
            ("--validation-episodes", self.validation_episodes, 0),
            ("--save-every", self.save_every, 1),
            ("--keep-every", self.keep_every, 1),
        ):
            if value is not None and value < least:
                raise FssbenchError(f"{name} must be at least {least}, not {value}")
        if self.lr is not None and not self.lr > 0:
            raise FssbenchError(f"--lr must be above 0, not {self.lr}")
        if self.epochs is not None and self.steps is not None:
            raise FssbenchError("give --epochs or --steps, not both")
