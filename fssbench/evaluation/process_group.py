"""Evaluation with several processes: ``--devices N``, or the tasks that a launcher started.

Only the first process (rank 0) opens run directories, calls hooks, and writes rows and records; it
measures chunks as well. The others lock chunks, measure them and write their results to files, see
`fssbench.evaluation.chunk_queue`, which also explains why there are no collectives. If one of them
dies, the rest measure its chunks. If the first one dies, the others stop after their current chunk,
and the next `evaluate` reads their results and resumes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from fssbench import registry
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError
from fssbench.evaluation.chunk_queue import ChunkQueue, shared_order
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.evaluation.evaluation import Evaluation
from fssbench.runtime.launcher import check_devices, gpu_index, launched

START_TIMEOUT = 1800.0
"""Seconds that a process waits for the first one to open a run."""
_POLL_INTERVAL = 0.1
"""Seconds between two reads of a folder."""

Chunks = Mapping[int, Sequence[Episode]]
Measure = Callable[[Chunks, ChunkQueue | None], Iterator[ChunkResult]]
"""Function that measures the chunks, in order, that it can lock at the time of their turn."""

log = logging.getLogger(__name__)


@attrs.define(kw_only=True)
class ProcessGroup:
    """The processes that share an evaluation, as seen by one of them.

    Attributes:
        rank: rank of this process, from 0.
        count: number of processes.
        local_rank: rank among the processes of this machine, and index of its GPU.
        local_count: number of processes on this machine.
        group: unique identifier of the group.
        starts: True if the first process starts the others itself.
        parent: process id of the parent of this process.
        binds_gpus: True if the launcher may show each process a single GPU, its own.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    group: str = ""
    starts: bool = False
    parent: int = attrs.field(factory=os.getppid)
    binds_gpus: bool = False
    _processes: dict[int, subprocess.Popen[bytes]] = attrs.field(factory=dict, init=False)

    @classmethod
    def of(cls, settings: Evaluation) -> ProcessGroup:
        """Return the group that a launcher started, or else the one of the evaluation's devices.

        Raises:
            FssbenchError: both a launcher and ``--devices`` are used.
        """
        tasks = launched()
        if tasks is None:
            count = settings.devices
            group = uuid.uuid4().hex
            return cls(count=count, local_count=count, group=group, starts=count > 1)
        check_devices(tasks, settings.devices)
        return cls(
            rank=tasks.rank,
            count=tasks.count,
            local_rank=tasks.local_rank,
            local_count=tasks.local_count,
            group=tasks.group,
            binds_gpus=tasks.binds_gpus,
        )

    def with_device(self, settings: Evaluation) -> Evaluation:
        """Return the evaluation with the device of this process.

        Raises:
            FssbenchError: there are fewer devices than processes.
        """
        settings = attrs.evolve(settings, devices=self.local_count)
        if self.local_count == 1 or settings.device == "cpu":
            return settings
        if ":" in settings.device:
            raise FssbenchError(
                f"--device {settings.device}: {self.local_count} processes need a device each; use "
                "--device cuda, and select GPUs with CUDA_VISIBLE_DEVICES"
            )
        found = torch.cuda.device_count()
        if not found and settings.device == "auto":
            return settings
        index = gpu_index(self.local_rank, self.local_count, found, binds=self.binds_gpus)
        return attrs.evolve(settings, device=f"cuda:{index}")

    @contextlib.contextmanager
    def threads(self) -> Iterator[None]:
        """Divide this machine's cores among the processes, unless ``OMP_NUM_THREADS`` is set."""
        before = torch.get_num_threads()
        if self.starts and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(_threads(self.local_count))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    # The first process.

    def start(self, settings: Evaluation) -> None:
        """Start the other processes, once, if this process is to start them.

        Args:
            settings: settings that the user gave.
        """
        if not self.starts:
            return
        self.starts = False
        environment = {"OMP_NUM_THREADS": str(_threads(self.local_count)), **os.environ}
        for rank in range(1, self.count):
            group = {
                "rank": rank, "count": self.count, "local_rank": rank,
                "local_count": self.local_count, "group": self.group, "parent": os.getpid(),
            }  # fmt: skip
            process = subprocess.Popen(
                [sys.executable, "-m", "fssbench.evaluation.worker_process"],
                stdin=subprocess.PIPE,
                env=environment,
            )
            self._processes[rank] = process
            payload = pickle.dumps((sys.path, named_plugins(), settings, group))
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(payload)
                process.stdin.close()

    def stop(self) -> None:
        """Terminate the processes that `start` started."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()

    def lead(
        self, folder: Path, chunks: Chunks, measure: Measure, identity: Mapping[str, Any]
    ) -> Iterator[ChunkResult]:
        """Measure chunks with all processes, including this one.

        Args:
            folder: run directory, locked by this process.
            chunks: chunks to measure.
            measure: function that measures chunks.
            identity: everything that the rows depend on.

        Yields:
            The result of each chunk, in order of completion. The caller must have written a result
            to disk before it requests the next one.
        """
        queue = ChunkQueue(folder)
        remaining = dict(chunks)

        def from_others() -> Iterator[ChunkResult]:
            for result in queue.results(remaining):
                yield result
                queue.mark(result.chunk)
                del remaining[result.chunk]

        def own(order: Sequence[int]) -> Iterator[ChunkResult]:
            for result in measure({chunk: chunks[chunk] for chunk in order}, queue):
                yield result
                queue.mark(result.chunk)
                queue.release(result.chunk)
                del remaining[result.chunk]
                yield from from_others()

        try:
            queue.open(self.group, list(chunks), identity)
            yield from own(shared_order(list(chunks), 0, self.count))
            while remaining:  # other processes measure these chunks, or have died
                self._report_exits()
                yield from from_others()
                free = next((chunk for chunk in remaining if queue.claim(chunk)), None)
                if free is not None:
                    yield from own([free])
                elif remaining:
                    time.sleep(_POLL_INTERVAL)
        finally:
            queue.release()

    def _report_exits(self) -> None:
        for rank, process in list(self._processes.items()):
            if process.poll() is not None:
                del self._processes[rank]
                if process.returncode:
                    log.warning(
                        "process %d of %d exited with status %d; the others measure its episodes",
                        rank + 1, self.count, process.returncode,
                    )  # fmt: skip

    # The other processes.

    def help_with(
        self, folder: Path, chunks: Chunks, measure: Measure, identity: Mapping[str, Any]
    ) -> None:
        """Measure the chunks of a run that this process can lock, until none is left.

        Args:
            folder: run directory, locked by the first process.
            chunks: all chunks of the manifest.
            measure: function that measures chunks.
            identity: everything that the rows depend on, as this process finds it.

        Raises:
            FssbenchError: the first process does not open the run, or has other code or images.
        """
        queue = ChunkQueue(folder, before_claim=self._check_parent)
        until = time.monotonic() + START_TIMEOUT
        while (offered := queue.offered(self.group, identity)) is None:
            self._check_parent()
            if time.monotonic() > until:
                raise FssbenchError(
                    f"{folder}: the first process has not started this run after "
                    f"{START_TIMEOUT:.0f} s; all processes need the same options, versions and "
                    "--out"
                )
            time.sleep(_POLL_INTERVAL)
        order = [c for c in shared_order(offered, self.rank, self.count) if c in chunks]
        try:
            for result in measure({chunk: chunks[chunk] for chunk in order}, queue):
                queue.put(result)
        finally:
            queue.release()

    def _check_parent(self) -> None:
        """Exit if the parent process is gone, because then no process reads the results."""
        if os.getppid() != self.parent:
            raise SystemExit(1)


def named_plugins() -> list[str]:
    """Return the plugins that the user named with ``-p``; files by absolute paths."""
    infos = registry.registry().plugins.infos
    named = [info.name for info in infos if info.source == "-p"]
    return [str(Path(name).resolve()) if name.endswith(".py") else name for name in named]


def _threads(processes: int) -> int:
    return max(1, (os.cpu_count() or 1) // processes)
