"""TensorBoard event files, if tensorboard is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from fssbench.training.run import TrainingRun


class TensorBoard:
    """An observer that writes event files if tensorboard is installed."""

    def __init__(self) -> None:
        self._writer: Any = None

    def fssbench_training_started(self, run: TrainingRun) -> None:
        """Open an event file; repeated steps replace those of an earlier file."""
        if importlib.util.find_spec("tensorboard") is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            log_dir=str(run.folder / "tensorboard"), purge_step=run.done + 1
        )

    def fssbench_step_finished(
        self, step: int, losses: Mapping[str, float], lr: float, gradient_norm: float
    ) -> None:
        """Write a step."""
        if self._writer is not None:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value, step)
            self._writer.add_scalar("lr", lr, step)
            self._writer.add_scalar("gradient_norm", gradient_norm, step)

    def fssbench_validation_finished(self, step: int, scores: Mapping[str, float]) -> None:
        """Write a validation."""
        if self._writer is not None:
            for name, value in scores.items():
                self._writer.add_scalar(f"validation/{name}", value, step)

    def fssbench_held_out_measured(self, step: int, measures: Mapping[str, float]) -> None:
        """Write measures of held-out images."""
        if self._writer is not None:
            for name, value in measures.items():
                self._writer.add_scalar(f"held_out/{name}", value, step)

    def fssbench_training_finished(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
