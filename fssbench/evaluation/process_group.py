"""Several processes at one evaluation: ``--devices N``, or as many as ``torchrun`` started.

The first process (rank 0) is the only one that opens run directories, calls hooks, and writes rows
and records; it measures chunks as well. The others claim chunks, measure them and leave their
results, see `fssbench.evaluation.chunk_queue`, also for why there is no collective. If one of them
dies, the rest do its chunks. If the first one dies, the others stop after their current chunk, and
the next `evaluate` reads the results that they left and resumes.
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

import attrs
import torch

from fssbench import registry
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError
from fssbench.evaluation.chunk_queue import ChunkQueue, shared_order
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.evaluation.evaluation import Evaluation

PATIENCE = 1800.0
"""Seconds that a process waits for the first one to open a run."""
_GLANCE = 0.1
"""Seconds between looks at a folder."""

Chunks = Mapping[int, Sequence[Episode]]
Measure = Callable[[Chunks, ChunkQueue | None], Iterator[ChunkResult]]
"""Measures chunks in this order, but those only that it can claim when it comes to them."""

log = logging.getLogger(__name__)


@attrs.define(kw_only=True)
class ProcessGroup:
    """The processes that share an evaluation, and which of them this one is.

    Attributes:
        rank: this process's number, from 0.
        count: how many there are.
        local_rank: number among those of this machine, which is the number of its GPU.
        local_count: how many are on this machine.
        group: the same for all of them, and for no others.
        starts: the first process starts the others itself.
        parent: number of the process that started this one.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    group: str = ""
    starts: bool = False
    parent: int = attrs.field(factory=os.getppid)
    _processes: dict[int, subprocess.Popen[bytes]] = attrs.field(factory=dict, init=False)

    @classmethod
    def of(cls, job: Evaluation) -> ProcessGroup:
        """As ``torchrun`` says, else as the job says.

        Raises:
            FssbenchError: ``--devices`` does not fit what ``torchrun`` started.
        """
        told = os.environ
        if "TORCHELASTIC_RUN_ID" not in told:
            count = job.devices
            group = uuid.uuid4().hex
            return cls(count=count, local_count=count, group=group, starts=count > 1)
        if job.devices > 1:
            raise FssbenchError("--devices: torchrun says how many processes there are; leave it")
        parts = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
        return cls(
            rank=int(told["RANK"]),
            count=int(told["WORLD_SIZE"]),
            local_rank=int(told["LOCAL_RANK"]),
            local_count=int(told["LOCAL_WORLD_SIZE"]),
            group=" ".join(told.get(part, "") for part in parts),
        )

    def placed(self, job: Evaluation) -> Evaluation:
        """The job on this process's device.

        Raises:
            FssbenchError: there are not as many devices.
        """
        job = attrs.evolve(job, devices=self.local_count)
        if self.local_count == 1 or job.device == "cpu":
            return job
        if ":" in job.device:
            raise FssbenchError(
                f"--device {job.device}: {self.local_count} processes need a device each; give "
                "--device cuda, and choose with CUDA_VISIBLE_DEVICES"
            )
        found = torch.cuda.device_count()
        if not found and job.device == "auto":
            return job
        if self.local_count > found:
            raise FssbenchError(
                f"--devices {self.local_count}: this machine has {found} GPUs that torch can use"
            )
        return attrs.evolve(job, device=f"cuda:{self.local_rank}")

    @contextlib.contextmanager
    def threads(self) -> Iterator[None]:
        """This machine's cores are shared out, unless ``OMP_NUM_THREADS`` says how."""
        before = torch.get_num_threads()
        if self.starts and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(_threads(self.local_count))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    # The first process.

    def start(self, job: Evaluation) -> None:
        """Start the others, if that is to be done and not done yet.

        Args:
            job: what the user asked for.
        """
        if not self.starts:
            return
        self.starts = False
        environment = {"OMP_NUM_THREADS": str(_threads(self.local_count)), **os.environ}
        for rank in range(1, self.count):
            team = {
                "rank": rank, "count": self.count, "local_rank": rank,
                "local_count": self.local_count, "group": self.group, "parent": os.getpid(),
            }  # fmt: skip
            process = subprocess.Popen(
                [sys.executable, "-m", "fssbench.evaluation.worker_process"],
                stdin=subprocess.PIPE,
                env=environment,
            )
            self._processes[rank] = process
            payload = pickle.dumps((sys.path, named_plugins(), job, team))
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(payload)
                process.stdin.close()

    def stop(self) -> None:
        """End what `start` started."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()

    def lead(self, folder: Path, chunks: Chunks, measure: Measure) -> Iterator[ChunkResult]:
        """Have chunks measured by all processes, and by this one.

        Args:
            folder: the run directory, which this process holds.
            chunks: what is to be measured.
            measure: how.

        Yields:
            The part of each chunk, in the order in which they come. When the next one is asked for,
            this one must be on the disk.
        """
        parts = ChunkQueue(folder)
        todo = dict(chunks)

        def taken() -> Iterator[ChunkResult]:
            for part in parts.parts(todo):
                yield part
                parts.mark(part.chunk)
                del todo[part.chunk]

        def own(order: Sequence[int]) -> Iterator[ChunkResult]:
            for part in measure({chunk: chunks[chunk] for chunk in order}, parts):
                yield part
                parts.mark(part.chunk)
                parts.release(part.chunk)
                del todo[part.chunk]
                yield from taken()

        try:
            parts.open(self.group, list(chunks))
            yield from own(shared_order(list(chunks), 0, self.count))
            while todo:  # others are at it, or one of them died
                self._look_after()
                yield from taken()
                free = next((chunk for chunk in todo if parts.claim(chunk)), None)
                if free is not None:
                    yield from own([free])
                elif todo:
                    time.sleep(_GLANCE)
        finally:
            parts.release()

    def _look_after(self) -> None:
        for rank, process in list(self._processes.items()):
            if process.poll() is not None:
                del self._processes[rank]
                if process.returncode:
                    log.warning(
                        "process %d of %d ended with %d; the others do its episodes",
                        rank + 1, self.count, process.returncode,
                    )  # fmt: skip

    # The others.

    def help_with(self, folder: Path, chunks: Chunks, measure: Measure) -> None:
        """Measure what can be claimed of a run, until there is nothing more to claim.

        Args:
            folder: the run directory, which the first process holds.
            chunks: all of its manifest.
            measure: how.

        Raises:
            FssbenchError: the first process does not open the run.
        """
        parts = ChunkQueue(folder, before_claim=self._check_parent)
        offered = self._offer(parts)
        order = [c for c in shared_order(offered, self.rank, self.count) if c in chunks]
        try:
            for part in measure({chunk: chunks[chunk] for chunk in order}, parts):
                parts.leave(part)
        finally:
            parts.release()

    def _offer(self, parts: ChunkQueue) -> Sequence[int]:
        until = time.monotonic() + PATIENCE
        while (offered := parts.offered(self.group)) is None:
            self._check_parent()
            if time.monotonic() > until:
                raise FssbenchError(
                    f"{parts.run}: the first process has not begun with this run for "
                    f"{PATIENCE:.0f} s; all processes need the same options, versions and --out"
                )
            time.sleep(_GLANCE)
        return offered

    def _check_parent(self) -> None:
        """Without whoever started it, nobody takes what this process measures."""
        if os.getppid() != self.parent:
            raise SystemExit(1)


def named_plugins() -> list[str]:
    """Plugins that the user named with ``-p``; files by absolute paths."""
    infos = registry.registry().plugins.infos
    named = [info.name for info in infos if info.source == "-p"]
    return [str(Path(name).resolve()) if name.endswith(".py") else name for name in named]


def _threads(processes: int) -> int:
    return max(1, (os.cpu_count() or 1) // processes)
