"""Progress on a terminal, or as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pandas
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fssbench.evaluation.run import Run
from fssbench.results.record import Record

LINES_EVERY = 10.0
"""Seconds between plain lines."""


class ProgressLine:
    """A progress bar on a terminal, else a line every ten seconds.

    Args:
        console: output.
        unit: plural noun of the counted things.
        fields: names of the texts after the bar; ``eta`` is the remaining time.
    """

    def __init__(self, console: Console, unit: str, fields: Sequence[str]) -> None:
        columns: list[ProgressColumn] = [
            TimeRemainingColumn() if name == "eta" else TextColumn(f"{{task.fields[{name}]}}")
            for name in fields
        ]
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            *columns,
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._console = console
        self._unit = unit
        self._texts: dict[str, Any] = dict.fromkeys(fields, "")
        self._task = TaskID(0)

    def start(self, name: str, description: str, total: int, done: int) -> None:
        """Start the progress bar at the number of things that an earlier run did."""
        self._name, self._total, self._before = name, total, done
        self._started = self._last_line = time.monotonic()
        self._task = self._bar.add_task(description, total=total, completed=done, **self._texts)
        self._bar.start()
        if done:
            self.print(f": resuming after {done} {self._unit}")

    def advance(self, done: int, decimals: int, **texts: str) -> None:
        """Show the number of things done, their rate with some decimals, and the given texts."""
        now = time.monotonic()
        rate = (done - self._before) / max(now - self._started, 1e-9)
        self._texts |= {"rate": f"{rate:.{decimals}f} {self._unit}/s", **texts}
        self._bar.update(self._task, completed=done, **self._texts)
        if not self._console.is_terminal and now - self._last_line > LINES_EVERY:
            self._last_line = now
            shown = ", ".join(filter(None, self._texts.values()))
            self.print(f": {done}/{self._total} {self._unit}, {shown}")

    def show(self, **texts: Any) -> None:
        """Show texts in the bar."""
        self._texts |= texts
        self._bar.update(self._task, **texts)

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._started

    def print(self, line: str) -> None:
        """Print a line that begins with the name."""
        self._console.print(f"{self._name}{line}", soft_wrap=True, highlight=False)

    def close(self) -> None:
        """Stop the progress bar."""
        if not self._bar.disable:  # rich before 14.3 prints an empty line
            self._bar.stop()


class ProgressReport(ProgressLine):
    """An observer that shows episodes done, rate, remaining time and running mIoU.

    Args:
        console: output; a progress bar on a terminal, else a line every ten seconds.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, "episodes", ("rate", "eta", "miou"))
        self._sums = pandas.DataFrame()

    def fssbench_evaluation_started(self, run: Run) -> None:
        """Start the progress bar at the number of episodes already measured."""
        manifest = run.manifest
        cell = (
            f"fold {manifest.fold}, {manifest.shots}-shot"
            f"{f', seed {manifest.seed}' if manifest.seed else ''}"
        )
        self._done = run.done
        self.start(f"{run.matcher} {run.backbone}, {cell}", cell, len(manifest.episodes), run.done)

    def fssbench_episodes_measured(self, rows: pandas.DataFrame) -> None:
        """Advance the progress bar."""
        sums = rows.groupby("class_id")[["intersection_fg", "union_fg"]].sum()
        self._sums = sums if self._sums.empty else self._sums.add(sums, fill_value=0)
        self._done += rows["index"].nunique()
        ratios = self._sums["intersection_fg"] / self._sums["union_fg"].clip(lower=1)
        self.advance(self._done, 1, miou=f"mIoU {100 * ratios.mean():.1f}")

    def fssbench_evaluation_finished(self, record: Record) -> None:
        """Replace the progress bar by one line."""
        self.close()
        low, high = record.intervals["miou"]
        self.print(
            f": mIoU {record.scores['miou']:.2f} [{low:.1f}, {high:.1f}], "
            f"{record.manifest.episodes} episodes in {self.seconds():.1f} s"
        )
