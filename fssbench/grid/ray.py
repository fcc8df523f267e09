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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

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
from fssbench.grid.grid import Cell, Job
from fssbench.grid.local import raise_failures
from fssbench.grid.ray_worker import CellInfo, Failure, Model
from fssbench.grid.table import GridTable, cell_of
from fssbench.hub import is_address
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

Key = tuple[int, Cell | None]
"""Number of a job, and a cell, or None for all of them."""
Done = Callable[[Any], None]


@attrs.frozen(kw_only=True)
class _OpenCell:
    """A cell that is being evaluated; measured chunks are removed from `left`."""

    key: tuple[int, Cell]
    model: Model
    run: Run
    directory: RunDirectory
    manifest: Any
    left: dict[int, Sequence[Episode]]


class _Driver:
    """Submission of tasks to Ray and collection of their results."""

    def __init__(self, ray: Any, jobs: Sequence[Job], table: GridTable) -> None:
        self._ray = ray
        self._jobs = jobs
        self._table = table
        self._gpus = _wants_gpus(ray, jobs)
        resources = {"num_gpus": 1} if self._gpus else {"num_cpus": 1, "num_gpus": 0}
        remote = ray.remote(max_retries=RETRIES, retry_exceptions=False, **resources)
        functions = (ray_worker.cells, ray_worker.measure, ray_worker.record)
        self._remote = {function.__name__: remote(function) for function in functions}
        self._flight: dict[Any, tuple[Key, Done]] = {}
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()
        self._held = contextlib.ExitStack()
        self.results: dict[tuple[int, Cell], CellOutcome] = {}
        self.failures: dict[Key, str] = {}

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
                ready, _ = self._ray.wait(list(self._flight), timeout=_WAIT)
                for reference in ready:
                    self._receive(reference, *self._flight.pop(reference))

    def cancel(self) -> None:
        """Cancel all submitted tasks."""
        for reference in self._flight:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)

    def _slots(self) -> int:
        """Return the number of tasks that can run at a time, which changes with the cluster."""
        found = self._ray.cluster_resources().get("GPU" if self._gpus else "CPU", 1)
        return max(1, int(found))

    def _submit(self, name: str, key: Key, done: Done, *arguments: Any) -> None:
        self._flight[self._remote[name].remote(*arguments)] = key, done

    def _receive(self, reference: Any, key: Key, done: Done) -> None:
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            result = Failure(message=f"Ray task failed: {one_line(error)[:300]}")
        if isinstance(result, Failure):
            self._fail(key, result.message)
        elif key not in self.failures:
            done(result)

    def _fail(self, key: Key, message: str) -> None:
        if key not in self.failures:
            self.failures[key] = message
            self._table.failed(*key, message)

    # A model's cells; a cell's chunks; a cell's record.

    def _find_cells(self, number: int, job: Job) -> None:
        model = Model(
            evaluation=_absolute(job.evaluation),
            plugins=tuple(named_plugins()),
            path=tuple(str(Path(entry).resolve()) for entry in sys.path),
        )

        def found(infos: list[CellInfo]) -> None:
            for info in infos:
                self._open(number, job, model, info)

        self._submit("cells", (number, None), found, model)

    def _open(self, number: int, job: Job, model: Model, info: CellInfo) -> None:
        asked, key = job.evaluation, (number, cell_of(info.manifest))
        files = (info.folder, info.identity, info.manifest)
        directory = RunDirectory(*files, save_predictions=asked.save_predictions, fresh=asked.fresh)
        try:
            self._held.enter_context(directory)
            finished = directory.finished()
            if finished is not None:
                self._add(number, CellOutcome(record=finished, folder=info.folder, fresh=False))
                return
            left = directory.left()
        except FssbenchError as error:
            self._fail(key, str(error))
            return
        done = len(info.manifest.episodes) - sum(map(len, left.values()))
        run = Run(
            matcher=asked.matcher, backbone=job.backbone, manifest=info.manifest,
            dataset=job.dataset, folder=info.folder, done=done,
        )  # fmt: skip
        cell = _OpenCell(
            key=key, model=model, run=run, directory=directory, left=left,
            manifest=self._ray.put(info.manifest),
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
        if cell.key not in self.failures:
            done = functools.partial(self._collect, cell, chunks)
            self._submit("measure", cell.key, done, cell.model, cell.manifest, chunks)

    def _collect(self, cell: _OpenCell, chunks: Sequence[int], results: list[bytes]) -> None:
        for chunk, data in zip(chunks, results, strict=True):
            result = ChunkResult.from_bytes(data, cell.left)
            del cell.left[chunk]
            cell.directory.add(result)
            with registry.observing([]) as hook:
                hook.fssbench_episodes_measured(
                    run=cell.run, chunk=chunk, episodes=result.episodes, rows=result.rows,
                    predictions=result.predictions,
                )  # fmt: skip
            self._table.measured(cell.key[0], cell.run, result.rows)
        if not cell.left:
            self._finish(cell)

    def _finish(self, cell: _OpenCell) -> None:
        directory, run = cell.directory, cell.run

        def finished(record: Record) -> None:
            directory.finish(record)
            with registry.observing([]) as hook:
                hook.fssbench_evaluation_finished(run=run, record=record)
            self._add(cell.key[0], CellOutcome(record=record, folder=run.folder, fresh=True))

        self._submit(
            "record", cell.key, finished, cell.model, cell.manifest, directory.rows(),
            directory.seconds, directory.predictions_digest(), directory.identity["images"],
        )  # fmt: skip

    def _add(self, number: int, result: CellOutcome) -> None:
        self.results[number, cell_of(result.record)] = result
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
            advice = "start a cluster (ray start --head), or set RAY_ADDRESS"
            raise FssbenchError(f"--on ray: {one_line(error)}; {advice}") from error
    driver = _Driver(ray, jobs, table)
    try:
        driver.run()
    finally:
        driver.cancel()
    raise_failures([*driver.failures.values()])
    return [driver.results[number, cell] for number, job in enumerate(jobs) for cell in job.cells]


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
    paths = ("data_root", "lists", "cache_dir", "out")
    given = {name: getattr(asked, name) for name in paths}
    found: dict[str, Any] = {name: path.resolve() for name, path in given.items() if path}
    if Path(asked.weights).is_file():
        found["weights"] = str(Path(asked.weights).resolve())
    if asked.checkpoint and not is_address(asked.checkpoint):
        found["checkpoint"] = Path(asked.checkpoint).resolve()
    return attrs.evolve(asked, **found)
