"""Progress of an evaluation on a terminal, or as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pandas
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from fssbench.episodes.episode import Episode
from fssbench.evaluation.run import Run
from fssbench.results.record import Record

LINES_EVERY = 10.0
"""Seconds between plain lines."""


class ProgressReport:
    """An observer that shows episodes done, rate, remaining time and running mIoU.

    Args:
        console: output; a progress bar on a terminal, else a line every ten seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[miou]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = TaskID(0)
        self._sums = pandas.DataFrame()
        self._measured = 0

    def fssbench_evaluation_started(self, run: Run) -> None:
        """Start the progress bar at the number of episodes already measured."""
        manifest = run.manifest
        self._name = (
            f"{run.matcher} {run.backbone}, fold {manifest.fold}, {manifest.shots}-shot"
            f"{f', seed {manifest.seed}' if manifest.seed else ''}"
        )
        self._total = len(manifest.episodes)
        self._done = run.done
        self._started = self._last_line = time.monotonic()
        self._task = self._bar.add_task(
            self._name.partition(", ")[2], total=self._total, completed=run.done, rate="", miou=""
        )
        self._bar.start()
        if run.done:
            self._print(f"{self._name}: resuming after {run.done} episodes")

    def fssbench_episodes_measured(
        self, run: Run, chunk: int, episodes: Sequence[Episode], rows: pandas.DataFrame,
        predictions: Sequence[Tensor],
    ) -> None:  # fmt: skip
        """Advance the progress bar."""
        del run, chunk, episodes, predictions
        sums = rows.groupby("class_id")[["intersection_fg", "union_fg"]].sum()
        self._sums = sums if self._sums.empty else self._sums.add(sums, fill_value=0)
        self._measured += len(rows)
        now = time.monotonic()
        rate = f"{self._measured / max(now - self._started, 1e-9):.1f} episodes/s"
        ratios = self._sums["intersection_fg"] / self._sums["union_fg"].clip(lower=1)
        miou = f"mIoU {100 * ratios.mean():.1f}"
        self._bar.update(self._task, advance=len(rows), rate=rate, miou=miou)
        if not self._console.is_terminal and now - self._last_line > LINES_EVERY:
            self._last_line = now
            done = self._done + self._measured
            self._print(f"{self._name}: {done}/{self._total} episodes, {rate}, {miou}")

    def fssbench_evaluation_finished(self, run: Run, record: Record) -> None:
        """Replace the progress bar by one line."""
        del run
        self.close()
        low, high = record.intervals["miou"]
        self._print(
            f"{self._name}: mIoU {record.scores['miou']:.2f} [{low:.1f}, {high:.1f}], "
            f"{record.manifest.episodes} episodes in {time.monotonic() - self._started:.1f} s"
        )

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)

    def close(self) -> None:
        """Stop the progress bar."""
        self._bar.stop()
