"""Progress of a training on a terminal, or as plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from fssbench.evaluation.progress import ProgressLine
from fssbench.training.training import TrainingRun

_MEMORY = 0.95  # of the running means, for each step


class TrainingProgress(ProgressLine):
    """An observer that shows steps, losses by name, mIoU of the last validation, rate and ETA.

    Args:
        console: output; a progress bar on a terminal, else a line every ten seconds.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, "steps", ("losses", "miou", "rate", "eta"))
        self._means: dict[str, float] = {}
        self._waited = 0.0

    def fssbench_training_started(self, run: TrainingRun) -> None:
        """Start the progress bar at the number of steps already taken."""
        name = f"{run.matcher} {run.stage}, fold {run.fold}"
        self.start(name, name, run.steps, run.done)

    def fssbench_step_finished(self, step: int, losses: Mapping[str, float], waited: float) -> None:
        """Advance the progress bar."""
        self._waited += waited
        for name, value in losses.items():
            before = self._means.get(name, value)
            self._means[name] = _MEMORY * before + (1 - _MEMORY) * value
        # One loss with weight 1 is the total.
        names = list(self._means)[:-1] if len(self._means) == 2 else list(self._means)
        self.advance(step, 2, losses=" ".join(f"{name} {self._means[name]:.4f}" for name in names))

    def fssbench_validation_finished(
        self, run: TrainingRun, step: int, scores: Mapping[str, float], best: bool
    ) -> None:
        """Print the mIoU and show it in the progress bar."""
        miou = f"mIoU {scores['miou']:.1f}"
        self.show(miou=miou)
        self.print(
            f": epoch {step / run.epoch_steps:g}, {miou} on {run.select_on} classes"
            f"{', the best so far' if best else ''}"
        )

    def fssbench_held_out_measured(
        self, run: TrainingRun, step: int, measures: Mapping[str, float]
    ) -> None:
        """Print the measures."""
        shown = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
        self.print(f": epoch {step / run.epoch_steps:g}, held-out images: {shown}")

    def fssbench_training_finished(self, run: TrainingRun, checkpoint: Path) -> None:
        """Replace the progress bar by one line."""
        self.close()
        seconds = self.seconds()
        self.print(
            f": {run.steps} steps, {checkpoint.name} written ({seconds:.1f} s, "
            f"{100 * self._waited / max(seconds, 1e-9):.0f} % waiting for data)"
        )
