"""Progress of a grid: a live table on a terminal, or plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import pandas
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fssbench.episodes.manifest import Manifest
from fssbench.evaluation.evaluator import CellOutcome
from fssbench.evaluation.progress import LINES_EVERY
from fssbench.evaluation.run import Run
from fssbench.grid.grid import Cell, Job
from fssbench.results.record import Record

_SHOWN = 40
"""Rows of the live table; of a larger grid, running and waiting cells are shown first."""


@attrs.define(kw_only=True)
class _Line:
    name: tuple[str, ...]
    state: str = "waits"
    total: int = 0
    done: int = 0
    miou: str = ""
    sums: pandas.DataFrame | None = None


class GridTable:
    """Progress of all cells of a grid.

    Args:
        console: output; a live table on a terminal, else a line for each finished cell and one
            every ten seconds.
        jobs: jobs of the grid.
    """

    def __init__(self, console: Console, jobs: Sequence[Job]) -> None:
        self._console = console
        self._lines: dict[tuple[int, Cell], _Line] = {}
        for number, job in enumerate(jobs):
            names = job.evaluation.matcher, job.backbone
            for cell in job.cells:
                self._lines[number, cell] = _Line(name=(*names, *map(str, cell)))
        self._started = self._last_line = time.monotonic()
        self._measured = 0
        self._live = Live(
            console=console, refresh_per_second=2, transient=True, get_renderable=self._table
        )
        if console.is_terminal:
            self._live.start()

    def started(self, job: int, run: Run) -> None:
        """Show that the evaluation of a cell has started."""
        line = self._lines[job, cell_of(run.manifest)]
        line.state, line.total, line.done = "runs", len(run.manifest.episodes), run.done

    def measured(self, job: int, run: Run, rows: pandas.DataFrame) -> None:
        """Add a measured chunk."""
        line = self._lines[job, cell_of(run.manifest)]
        episodes = rows["index"].nunique()
        line.done += episodes
        self._measured += episodes
        sums = rows.groupby("class_id")[["intersection_fg", "union_fg"]].sum()
        line.sums = sums if line.sums is None else line.sums.add(sums, fill_value=0)
        ratios = line.sums["intersection_fg"] / line.sums["union_fg"].clip(lower=1)
        line.miou = f"{100 * ratios.mean():.1f}"
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line > LINES_EVERY:
            self._last_line = now
            self._print(f"grid: {self.summary()}")

    def finished(self, job: int, result: CellOutcome) -> None:
        """Show the record of a finished cell."""
        record = result.record
        line = self._lines[job, cell_of(record)]
        line.state = "done" if result.fresh else "was done"
        line.total = line.done = record.manifest.episodes
        line.miou = f"{record.scores['miou']:.2f}"
        before = "" if result.fresh else ", was done before"
        self._report(job, cell_of(record), f"mIoU {line.miou}{before}")

    def failed(self, job: int, cell: Cell | None, error: str) -> None:
        """Show the error of a cell, or of all unfinished cells of a job."""
        for (number, each), line in self._lines.items():
            if number == job and cell in (None, each) and "done" not in line.state:
                line.state = "failed"
        self._report(job, cell, error)

    def summary(self) -> str:
        """Return the numbers of cells and episodes, and the rate."""
        lines = self._lines.values()
        cells = sum("done" in line.state for line in lines)
        rate = self._measured / max(time.monotonic() - self._started, 1e-9)
        episodes = sum(line.done for line in lines)
        return f"{cells}/{len(lines)} cells, {episodes} episodes, {rate:.1f} episodes/s"

    def close(self) -> None:
        """Stop the live table."""
        self._live.stop()

    def _table(self) -> Table:
        table = Table(title=self.summary(), title_justify="left")
        for name in ("method", "backbone", "fold", "shots", "seed", "episodes", "mIoU", ""):
            table.add_column(name, justify="left" if name in ("method", "backbone") else "right")
        lines = list(self._lines.values())
        if len(lines) > _SHOWN:
            lines = [line for line in lines if line.state in ("runs", "waits", "failed")][:_SHOWN]
        for line in lines:
            episodes = f"{line.done}/{line.total}" if line.total else ""
            table.add_row(*line.name, episodes, line.miou, line.state)
        return table

    def _report(self, job: int, cell: Cell | None, text: str) -> None:
        matcher, backbone, *_ = next(line.name for (n, _), line in self._lines.items() if n == job)
        which = "" if cell is None else f", fold {cell[0]}, {cell[1]}-shot, seed {cell[2]}"
        self._print(f"{matcher} {backbone}{which}: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def cell_of(setting: Manifest | Record) -> Cell:
    """Return the cell of a manifest or a record."""
    return setting.fold, setting.shots, setting.seed
