"""Evaluation of a grid on a Ray cluster: ``pip install 'fssbench[ray]'``.

A task measures a range of chunks of one cell. Ray retries a task elsewhere when its process or
machine is lost, so a lost machine costs at most its running tasks. The driver (the process of the
command) holds the run directories and appends each result to their journals, so the same command
resumes after a crash of the driver. Run directories are on the driver's machine; datasets, weights,
checkpoints and plugins must have the same paths on all machines.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pandas

from fssbench import registry
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError, one_line
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.evaluator import CellOutcome
from fssbench.evaluation.process_group import named_plugins
from fssbench.evaluation.run import Run
from fssbench.evaluation.run_directory import RunDirectory
from fssbench.grid import ray_worker
from fssbench.grid.grid import Job
from fssbench.grid.local import raise_failures
from fssbench.grid.ray_worker import CellInfo, Failure, Model
from fssbench.grid.table import GridTable, cell_of
from fssbench.results.record import Record

RETRIES = 10
"""Number of times Ray retries a lost task."""
MOST_CHUNKS = 5
"""Maximum number of chunks of a task."""
_TASKS_PER_SLOT = 4
"""Number of tasks of a cell for each process, if there are enough chunks."""
_SUBMITTED_PER_SLOT = 2
"""Maximum number of submitted tasks for each process."""
_WAIT = 1.0
"""Seconds that one wait for results takes at most."""

Done = Callable[[Any], None]


@attrs.define(kw_only=True)
class _OpenCell:
    """A cell that is being evaluated."""

    number: int
    model: Model
    run: Run
    directory: RunDirectory
    manifest: Any
    left: Mapping[int, Sequence[Episode]]
    missing: set[int]


class _Driver:
    """Submission of tasks to Ray and collection of their results."""

    def __init__(self, ray: Any, jobs: Sequence[Job], table: GridTable) -> None:
        self._ray = ray
        self._jobs = jobs
        self._table = table
        self._gpus = _wants_gpus(ray, jobs)
        resources = {"num_gpus": 1} if self._gpus else {"num_cpus": 1, "num_gpus": 0}
        options = {"max_retries": RETRIES, "retry_exceptions": False, **resources}
        self._remote = {
            name: ray.remote(**options)(getattr(ray_worker, name))
            for name in ("cells", "measure", "record")
        }
        self._flight: dict[Any, Done] = {}
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()
        self._held = contextlib.ExitStack()
        self.results: dict[tuple[int, tuple[int, int, int]], CellOutcome] = {}
        self.failures: list[str] = []

    def run(self) -> None:
        """Evaluate the whole grid."""
        with self._held:
            jobs = collections.deque(enumerate(self._jobs))
            while jobs or self._waiting or self._flight:
                most = _SUBMITTED_PER_SLOT * self._slots()
                while jobs and len(self._flight) + len(self._waiting) < most:
                    self._find_cells(*jobs.popleft())
                while self._waiting and len(self._flight) < most:
                    self._waiting.popleft()()
                if not self._flight:  # the waiting tasks were of failed cells
                    continue
                ready, _ = self._ray.wait(
                    list(self._flight), num_returns=1, timeout=_WAIT, fetch_local=True
                )
                for reference in ready:
                    self._flight.pop(reference)(self._result(reference))

    def cancel(self) -> None:
        """Cancel all submitted tasks."""
        for reference in self._flight:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)

    def _slots(self) -> int:
        """Return the number of tasks that can run at a time, which changes with the cluster."""
        found = self._ray.cluster_resources().get("GPU" if self._gpus else "CPU", 1)
        return max(1, int(found))

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Failure(message=f"Ray task failed: {one_line(error)[:300]}")

    def _submit(self, name: str, done: Done, *arguments: Any) -> None:
        self._flight[self._remote[name].remote(*arguments)] = done

    def _fail(self, job: int, run: Run | None, failure: Failure) -> None:
        self._table.failed(job, None if run is None else cell_of(run), failure.message)
        self.failures.append(failure.message)

    # A model's cells; a cell's chunks; a cell's record.

    def _find_cells(self, number: int, job: Job) -> None:
        model = Model(
            evaluation=_absolute(job.evaluation),
            plugins=tuple(named_plugins()),
            path=tuple(str(Path(entry).resolve()) for entry in sys.path),
        )

        def found(result: list[CellInfo] | Failure) -> None:
            if isinstance(result, Failure):
                self._fail(number, None, result)
                return
            for info in result:
                self._open(number, job, model, info)

        self._submit("cells", found, model)

    def _open(self, number: int, job: Job, model: Model, info: CellInfo) -> None:
        asked = job.evaluation
        directory = RunDirectory(
            info.folder, info.identity, info.manifest, save_predictions=asked.save_predictions
        )
        try:
            self._held.enter_context(directory)
            finished = directory.finished()
            if finished is not None:
                self._add(number, CellOutcome(record=finished, folder=info.folder, fresh=False))
                return
            left = directory.left()
        except FssbenchError as error:
            self._table.failed(number, _cell(info), str(error))
            self.failures.append(str(error))
            return
        run = Run(
            matcher=asked.matcher,
            backbone=asked.backbone,
            manifest=info.manifest,
            dataset=job.dataset,
            folder=info.folder,
            done=len(info.manifest.episodes) - sum(map(len, left.values())),
        )
        cell = _OpenCell(
            number=number, model=model, run=run, directory=directory, left=left,
            manifest=self._ray.put(info.manifest), missing=set(left),
        )  # fmt: skip
        self._table.started(number, run)
        with registry.observing([]) as hook:
            hook.fssbench_evaluation_started(run=run)
        size = max(1, min(MOST_CHUNKS, len(left) // (_TASKS_PER_SLOT * self._slots())))
        numbers = list(left)
        for start in range(0, len(numbers), size):
            task = functools.partial(self._measure, cell, numbers[start : start + size])
            self._waiting.append(task)
        if not left:
            self._finish(cell)

    def _measure(self, cell: _OpenCell, chunks: Sequence[int]) -> None:
        if cell.missing:  # the cell has not failed
            self._submit(
                "measure", lambda results: self._collect(cell, chunks, results),
                cell.model, cell.manifest, list(chunks),
            )  # fmt: skip

    def _collect(
        self, cell: _OpenCell, chunks: Sequence[int], results: list[bytes] | Failure
    ) -> None:
        if not cell.missing:
            return
        if isinstance(results, Failure):
            cell.missing.clear()
            self._fail(cell.number, cell.run, results)
            return
        for chunk, data in zip(chunks, results, strict=True):
            result = ChunkResult.from_bytes(data, cell.left)
            cell.directory.add(result)
            with registry.observing([]) as hook:
                hook.fssbench_episodes_measured(
                    run=cell.run, chunk=chunk, episodes=result.episodes, rows=result.rows,
                    predictions=result.predictions,
                )  # fmt: skip
            self._table.measured(cell.number, cell.run, result.rows)
            cell.missing.discard(chunk)
        if not cell.missing:
            self._finish(cell)

    def _finish(self, cell: _OpenCell) -> None:
        directory = cell.directory
        rows: pandas.DataFrame = directory.rows()

        def finished(record: Record | Failure) -> None:
            if isinstance(record, Failure):
                self._fail(cell.number, cell.run, record)
                return
            directory.finish(record)
            with registry.observing([]) as hook:
                hook.fssbench_evaluation_finished(run=cell.run, record=record)
            self._add(cell.number, CellOutcome(record=record, folder=directory.folder, fresh=True))

        self._submit(
            "record", finished, cell.model, cell.manifest, rows, directory.seconds,
            directory.predictions_digest(),
        )  # fmt: skip

    def _add(self, number: int, result: CellOutcome) -> None:
        record = result.record
        self.results[number, (record.fold, record.shots, record.seed)] = result
        self._table.finished(number, result)


def run_ray(jobs: Sequence[Job], table: GridTable) -> list[CellOutcome]:
    """Evaluate a grid on the Ray cluster of ``RAY_ADDRESS``, or else on this machine.

    One process runs on each GPU of the cluster, or on each of its CPUs if there is no GPU or the
    grid requests ``cpu``. The records of finished cells are read; interrupted cells are resumed. A
    failed evaluation does not stop the rest.

    Raises:
        FssbenchError: Ray is not installed or cannot be reached; or an evaluation failed, raised at
            the end.
    """
    if importlib.util.find_spec("ray") is None:
        raise FssbenchError("--on ray needs ray, not installed: pip install 'fssbench[ray]'")
    import ray

    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise FssbenchError(
                f"--on ray: {one_line(error)}; start a cluster (ray start --head), or set "
                "RAY_ADDRESS"
            ) from error
    driver = _Driver(ray, jobs, table)
    try:
        driver.run()
    finally:
        driver.cancel()
    raise_failures(driver.failures)
    order = [(number, cell) for number, job in enumerate(jobs) for cell in job.cells]
    return [driver.results[key] for key in order]


def _wants_gpus(ray: Any, jobs: Sequence[Job]) -> bool:
    devices = {job.evaluation.device for job in jobs}
    if any(":" in device for device in devices):
        raise FssbenchError("device: Ray selects the GPU; write 'auto', 'cuda' or 'cpu'")
    if "cpu" in devices and len(devices) > 1:
        raise FssbenchError("device: a grid on Ray computes on GPUs or on CPUs, not on both")
    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    if "cuda" in devices and not has_gpus:
        raise FssbenchError("device = 'cuda': this Ray cluster has no GPU")
    return has_gpus and "cpu" not in devices


def _absolute(asked: Evaluation) -> Evaluation:
    """Make all paths absolute, because each worker has its own current directory."""
    paths = ("data_root", "lists", "checkpoint", "cache_dir", "out")
    found: dict[str, Any] = {
        name: getattr(asked, name).resolve() for name in paths if getattr(asked, name) is not None
    }
    if Path(asked.weights).is_file():
        found["weights"] = str(Path(asked.weights).resolve())
    return attrs.evolve(asked, **found)


def _cell(info: CellInfo) -> tuple[int, int, int]:
    manifest = info.manifest
    return manifest.fold, manifest.shots, manifest.seed
