"""Run a grid on this machine, cell after cell."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from fssbench.errors import FssbenchError
from fssbench.evaluation.evaluate import evaluate
from fssbench.evaluation.evaluator import CellOutcome, Observers
from fssbench.evaluation.run import Run
from fssbench.grid.grid import Job
from fssbench.grid.table import GridTable
from fssbench.results.record import Record


class _Watch:
    """Tells the table what becomes of one job's cells."""

    def __init__(self, table: GridTable, job: int) -> None:
        self._table = table
        self._job = job

    def fssbench_evaluation_started(self, run: Run) -> None:
        self._table.began(self._job, run)

    def fssbench_episodes_measured(self, run: Run, rows: pandas.DataFrame) -> None:
        self._table.measured(self._job, run, rows)

    def fssbench_evaluation_finished(self, run: Run, record: Record) -> None:
        result = CellOutcome(record=record, folder=run.folder, fresh=True)
        self._table.finished(self._job, result)


def run_local(jobs: Sequence[Job], table: GridTable) -> list[CellOutcome]:
    """Evaluate a grid with as many processes as its evaluations say.

    A cell that is finished is read; one that was interrupted goes on. What cannot be done does not
    stop the rest.

    Raises:
        FssbenchError: at the end, if something could not be done.
    """
    results: list[CellOutcome] = []
    failures: list[str] = []
    for number, job in enumerate(jobs):
        try:
            found = evaluate(job.evaluation, observers=_watching(table, number))
        except FssbenchError as error:
            table.failed(number, None, str(error))
            failures.append(str(error))
            continue
        for result in found:
            if not result.fresh:
                table.finished(number, result)
        results += found
    raise_failures(failures)
    return results


def _watching(table: GridTable, job: int) -> Observers:
    watch = _Watch(table, job)
    return lambda run: [watch]


def raise_failures(failures: Sequence[str]) -> None:
    """Raise an `FssbenchError` if there are any."""
    if failures:
        more = f" (and {len(failures) - 1} more, see above)" if len(failures) > 1 else ""
        raise FssbenchError(
            f"not all of the grid could be done: {failures[0]}{more}; what is finished stays"
        )
