"""Run a grid on a Ray cluster: ``pip install 'fssbench[ray]'``.

A piece of work is a range of chunks of one cell. Ray does it again elsewhere when the process or
the machine that was at it is gone, so what is lost with a machine is at most the ranges that were
in flight there. Each part that comes back goes into the journal of its run directory, which the
driver (the process that was asked) holds, so a driver that dies loses no more, and the same command
goes on. Run directories lie with the driver; datasets, weights, checkpoints and plugins must be
found at the same paths on all machines.
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
from fssbench.grid.ray_worker import Failure, Model, Place
from fssbench.grid.table import GridTable, cell_of
from fssbench.results.record import Record

RETRIES = 10
"""So often Ray does a piece of work again whose process or machine is gone."""
MOST_CHUNKS = 5
"""Of a piece of work."""
_PIECES = 4
"""So many pieces of a cell each process gets, if there are enough chunks."""
_AHEAD = 2
"""Pieces for each process that are handed to Ray at a time."""
_WAIT = 1.0
"""Seconds."""

Done = Callable[[Any], None]


@attrs.define(kw_only=True)
class _Open:
    """A cell at work."""

    number: int
    model: Model
    run: Run
    directory: RunDirectory
    manifest: Any
    left: Mapping[int, Sequence[Episode]]
    missing: set[int]


class _Driver:
    """Hands pieces of work to Ray and takes their answers."""

    def __init__(self, ray: Any, jobs: Sequence[Job], table: GridTable) -> None:
        self._ray = ray
        self._jobs = jobs
        self._table = table
        self._gpus = _wants_gpus(ray, jobs)
        resources = {"num_gpus": 1} if self._gpus else {"num_cpus": 1, "num_gpus": 0}
        options = {"max_retries": RETRIES, "retry_exceptions": False, **resources}
        self._remote = {
            name: ray.remote(**options)(getattr(ray_worker, name))
            for name in ("places", "measure", "record")
        }
        self._flight: dict[Any, Done] = {}
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()
        self._held = contextlib.ExitStack()
        self.results: dict[tuple[int, tuple[int, int, int]], CellOutcome] = {}
        self.failures: list[str] = []

    def run(self) -> None:
        """Do everything."""
        with self._held:
            coming = collections.deque(enumerate(self._jobs))
            while coming or self._waiting or self._flight:
                most = _AHEAD * self._slots()
                while coming and len(self._flight) + len(self._waiting) < most:
                    self._look(*coming.popleft())
                while self._waiting and len(self._flight) < most:
                    self._waiting.popleft()()
                if not self._flight:  # what waited was of cells that failed meanwhile
                    continue
                ready, _ = self._ray.wait(
                    list(self._flight), num_returns=1, timeout=_WAIT, fetch_local=True
                )
                for reference in ready:
                    self._flight.pop(reference)(self._answer(reference))

    def cancel(self) -> None:
        """Nobody waits for what is in flight any more."""
        for reference in self._flight:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)

    def _slots(self) -> int:
        """How many pieces can be done at a time; machines come and go."""
        found = self._ray.cluster_resources().get("GPU" if self._gpus else "CPU", 1)
        return max(1, int(found))

    def _answer(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Failure(message=f"Ray gave it up: {one_line(error)[:300]}")

    def _submit(self, name: str, done: Done, *arguments: Any) -> None:
        self._flight[self._remote[name].remote(*arguments)] = done

    def _fail(self, job: int, run: Run | None, failure: Failure) -> None:
        self._table.failed(job, None if run is None else cell_of(run), failure.message)
        self.failures.append(failure.message)

    # A model's cells; a cell's chunks; a cell's record.

    def _look(self, number: int, job: Job) -> None:
        model = Model(
            evaluation=_absolute(job.evaluation),
            plugins=tuple(named_plugins()),
            path=tuple(str(Path(entry).resolve()) for entry in sys.path),
        )

        def opened(answer: list[Place] | Failure) -> None:
            if isinstance(answer, Failure):
                self._fail(number, None, answer)
                return
            for place in answer:
                self._open(number, job, model, place)

        self._submit("places", opened, model)

    def _open(self, number: int, job: Job, model: Model, place: Place) -> None:
        asked = job.evaluation
        directory = RunDirectory(
            place.folder, place.identity, place.manifest, keep_predictions=asked.save_predictions
        )
        try:
            self._held.enter_context(directory)
            finished = directory.finished()
            if finished is not None:
                self._keep(number, CellOutcome(record=finished, folder=place.folder, fresh=False))
                return
            left = directory.left()
        except FssbenchError as error:
            self._table.failed(number, _cell(place), str(error))
            self.failures.append(str(error))
            return
        run = Run(
            matcher=asked.matcher,
            backbone=asked.backbone,
            manifest=place.manifest,
            dataset=job.dataset,
            folder=place.folder,
            done=len(place.manifest.episodes) - sum(map(len, left.values())),
        )
        cell = _Open(
            number=number, model=model, run=run, directory=directory, left=left,
            manifest=self._ray.put(place.manifest), missing=set(left),
        )  # fmt: skip
        self._table.began(number, run)
        with registry.observing([]) as hook:
            hook.fssbench_evaluation_started(run=run)
        size = max(1, min(MOST_CHUNKS, len(left) // (_PIECES * self._slots())))
        numbers = list(left)
        for start in range(0, len(numbers), size):
            piece = functools.partial(self._measure, cell, numbers[start : start + size])
            self._waiting.append(piece)
        if not left:
            self._finish(cell)

    def _measure(self, cell: _Open, chunks: Sequence[int]) -> None:
        if cell.missing:  # it has not failed meanwhile
            self._submit(
                "measure", lambda answer: self._take(cell, chunks, answer),
                cell.model, cell.manifest, list(chunks),
            )  # fmt: skip

    def _take(self, cell: _Open, chunks: Sequence[int], answer: list[bytes] | Failure) -> None:
        if not cell.missing:
            return
        if isinstance(answer, Failure):
            cell.missing.clear()
            self._fail(cell.number, cell.run, answer)
            return
        for chunk, data in zip(chunks, answer, strict=True):
            part = ChunkResult.from_bytes(data, cell.left[chunk])
            cell.directory.add_seconds(part.seconds)
            with registry.observing([cell.directory]) as hook:
                hook.fssbench_episodes_measured(
                    run=cell.run, chunk=chunk, episodes=part.episodes, rows=part.rows,
                    predictions=part.predictions,
                )  # fmt: skip
            self._table.measured(cell.number, cell.run, part.rows)
            cell.missing.discard(chunk)
        if not cell.missing:
            self._finish(cell)

    def _finish(self, cell: _Open) -> None:
        directory = cell.directory
        rows: pandas.DataFrame = directory.rows()

        def finished(answer: Record | Failure) -> None:
            if isinstance(answer, Failure):
                self._fail(cell.number, cell.run, answer)
                return
            directory.finish(answer)
            with registry.observing([]) as hook:
                hook.fssbench_evaluation_finished(run=cell.run, record=answer)
            self._keep(cell.number, CellOutcome(record=answer, folder=directory.folder, fresh=True))

        self._submit(
            "record", finished, cell.model, cell.manifest, rows, directory.seconds,
            directory.predictions_digest(),
        )  # fmt: skip

    def _keep(self, number: int, result: CellOutcome) -> None:
        record = result.record
        self.results[number, (record.fold, record.shots, record.seed)] = result
        self._table.finished(number, result)


def run_ray(jobs: Sequence[Job], table: GridTable) -> list[CellOutcome]:
    """Evaluate a grid on the Ray cluster that there is (``RAY_ADDRESS``), else on this machine.

    One process for each GPU of the cluster, or for each of its CPUs where there is no GPU or the
    grid asks for ``cpu``. A cell that is finished is read; one that was interrupted goes on. What
    cannot be done does not stop the rest.

    Raises:
        FssbenchError: Ray is not installed or cannot be reached; or, at the end, something could
            not be done.
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
        raise FssbenchError("device: Ray says which GPU; write 'auto', 'cuda' or 'cpu'")
    if "cpu" in devices and len(devices) > 1:
        raise FssbenchError("device: a grid on Ray computes on GPUs or on CPUs, not on both")
    there = ray.cluster_resources().get("GPU", 0) >= 1
    if "cuda" in devices and not there:
        raise FssbenchError("device = 'cuda': this Ray cluster has no GPU")
    return there and "cpu" not in devices


def _absolute(asked: Evaluation) -> Evaluation:
    """Workers have current directories of their own."""
    paths = ("data_root", "lists", "checkpoint", "cache_dir", "out")
    found: dict[str, Any] = {
        name: getattr(asked, name).resolve() for name in paths if getattr(asked, name) is not None
    }
    if Path(asked.weights).is_file():
        found["weights"] = str(Path(asked.weights).resolve())
    return attrs.evolve(asked, **found)


def _cell(place: Place) -> tuple[int, int, int]:
    manifest = place.manifest
    return manifest.fold, manifest.shots, manifest.seed
