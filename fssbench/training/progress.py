"""Progress of a training on a terminal, or as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fssbench.training.training import TrainingRun

LINES_EVERY = 10.0
"""Seconds between plain lines."""

_MEMORY = 0.95  # of the running means, for each step


class TrainingProgress:
    """An observer that shows steps, losses by name, mIoU of the last validation, rate and ETA.

    Args:
        console: output; a progress bar on a terminal, else a line every ten seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[miou]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = TaskID(0)
        self._means: dict[str, float] = {}
        self._miou = ""

    def fssbench_training_started(self, run: TrainingRun) -> None:
        """Start the progress bar at the number of steps already taken."""
        self._name = f"{run.matcher} {run.stage}, fold {run.fold}"
        self._started = self._last_line = time.monotonic()
        self._task = self._bar.add_task(
            self._name, total=run.steps, completed=run.done, losses="", miou="", rate=""
        )
        self._bar.start()
        if run.done:
            self._print(f"{self._name}: resuming after {run.done} steps")

    def fssbench_step_finished(
        self, run: TrainingRun, step: int, losses: Mapping[str, float]
    ) -> None:
        """Advance the progress bar."""
        for name, value in losses.items():
            before = self._means.get(name, value)
            self._means[name] = _MEMORY * before + (1 - _MEMORY) * value
        now = time.monotonic()
        rate = f"{(step - run.done) / max(now - self._started, 1e-9):.2f} steps/s"
        # One loss with weight 1 is the total.
        names = list(self._means)[:-1] if len(self._means) == 2 else list(self._means)
        shown = " ".join(f"{name} {self._means[name]:.4f}" for name in names)
        self._bar.update(self._task, completed=step, losses=shown, miou=self._miou, rate=rate)
        if not self._console.is_terminal and now - self._last_line > LINES_EVERY:
            self._last_line = now
            self._print(f"{self._name}: {step}/{run.steps} steps, {shown} {self._miou} {rate}")

    def fssbench_validation_finished(
        self, run: TrainingRun, step: int, scores: Mapping[str, float], best: bool
    ) -> None:
        """Print the mIoU and show it in the progress bar."""
        self._miou = f"mIoU {scores['miou']:.1f}"
        self._bar.update(self._task, miou=self._miou)
        epoch = step / run.epoch_steps
        self._print(
            f"{self._name}: epoch {epoch:g}, {self._miou} on {run.select_on} classes"
            f"{', the best so far' if best else ''}"
        )

    def fssbench_held_out_measured(
        self, run: TrainingRun, step: int, measures: Mapping[str, float]
    ) -> None:
        """Print the measures."""
        shown = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
        self._print(f"{self._name}: epoch {step / run.epoch_steps:g}, held-out images: {shown}")

    def fssbench_training_finished(self, run: TrainingRun, checkpoint: Path) -> None:
        """Replace the progress bar by one line."""
        self.close()
        seconds = time.monotonic() - self._started
        self._print(f"{self._name}: {run.steps} steps, {checkpoint.name} written ({seconds:.1f} s)")

    def close(self) -> None:
        """Stop the progress bar."""
        self._bar.stop()

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)
