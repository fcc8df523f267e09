"""Evaluation of a grid on this machine, cell after cell."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from fssbench.errors import FssbenchError
from fssbench.evaluation.evaluate import evaluate
from fssbench.evaluation.evaluator import CellOutcome
from fssbench.evaluation.run import Run
from fssbench.grid.grid import Job
from fssbench.grid.table import GridTable
from fssbench.results.record import Record


class _TableObserver:
    """An observer that updates the table with the cells of one job."""

    def __init__(self, table: GridTable, job: int) -> None:
        self._table = table
        self._job = job

    def of_run(self, _run: Run) -> list[object]:
        """Return the observers of a run: this one."""
        return [self]

    def fssbench_evaluation_started(self, run: Run) -> None:
        self._table.started(self._job, run)

    def fssbench_episodes_measured(self, run: Run, rows: pandas.DataFrame) -> None:
        self._table.measured(self._job, run, rows)

    def fssbench_evaluation_finished(self, run: Run, record: Record) -> None:
        outcome = CellOutcome(record=record, folder=run.folder, fresh=True)
        self._table.finished(self._job, outcome)


def run_local(jobs: Sequence[Job], table: GridTable) -> list[CellOutcome]:
    """Evaluate a grid with the number of processes of its evaluations.

    The records of finished cells are read; interrupted cells are resumed. A failed evaluation does
    not stop the rest.

    Raises:
        FssbenchError: an evaluation failed; raised at the end.
    """
    results: list[CellOutcome] = []
    failures: list[str] = []
    for number, job in enumerate(jobs):
        observer = _TableObserver(table, number)
        try:
            found = evaluate(job.evaluation, observers=observer.of_run)
        except FssbenchError as error:
            table.failed(number, None, str(error))
            failures.append(str(error))
            continue
        for result in (result for result in found if not result.fresh):
            table.finished(number, result)
        results += found
    raise_failures(failures)
    return results


def raise_failures(failures: Sequence[str]) -> None:
    """Raise an `FssbenchError` if there are any."""
    if failures:
        more = f" (and {len(failures) - 1} more, see above)" if len(failures) > 1 else ""
        problem = f"parts of the grid failed: {failures[0]}{more}"
        raise FssbenchError(f"{problem}; finished cells are saved")
