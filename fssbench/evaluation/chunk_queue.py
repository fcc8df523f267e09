"""Queue of a run's chunks that several processes measure, in files with locks.

Collectives (gloo, NCCL) tie processes together: when one dies, the others hang or fail, and their
results are lost. Here processes share only a folder. A process locks a file before it measures a
chunk; the operating system releases the lock when the process ends for any reason, so another
process can measure the chunk. Results are in files of their own and stay.

This works for any number of processes on one machine. On several machines the folder must be on a
file system whose `flock` all of them see: NFS version 4 (on Linux; the lock of a lost machine is
released when its lease ends, 90 s by default), Lustre mounted with ``flock``, CephFS, GPFS, BeeGFS
with ``tuneUseGlobalFileLocks``. Where locks are local to a machine, two machines may measure the
same chunk. That costs time, but rows stay correct: the rows of a chunk do not depend on the process
that measures it, and only the first result of each chunk is used.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.files import write_atomically
from fssbench.results.record import RECORD_FILE
from fssbench.runtime.locks import Lock, LockedError

FOLDER = ".parts"
_PLAN = "plan.json"

log = logging.getLogger(__name__)


class ChunkQueue:
    """The folder of locks and results inside of a run directory.

    The first process holds the lock of the run directory; it opens the queue, reads all results and
    closes the queue. The other processes lock chunks and write results.

    Args:
        run: run directory.
        before_claim: function called before each claim, which may raise.
    """

    def __init__(self, run: Path, before_claim: Callable[[], None] = lambda: None) -> None:
        self.run = run
        self._before_claim = before_claim
        self.folder = run / FOLDER
        self._claims: dict[int, Lock] = {}

    # The first process.

    def results(self, chunks: Mapping[int, Sequence[Episode]]) -> list[ChunkResult]:
        """Return the unread results of some chunks."""
        if not self.folder.is_dir():
            return []
        return [result for chunk in chunks if (result := self._result(chunk, chunks)) is not None]

    def open(self, group: str, chunks: Sequence[int], identity: Mapping[str, Any]) -> None:
        """Publish the chunks that the processes of a group may measure, if they agree."""
        for chunk in chunks:  # marks and damaged results of an earlier run
            self._path(chunk, "part").unlink(missing_ok=True)
        plan = json.dumps({"group": group, "chunks": list(chunks), "identity": identity})
        write_atomically(self.folder / _PLAN, plan.encode(), flush=False)

    def mark(self, chunk: int) -> None:
        """Mark the result of a chunk as read, with an empty file."""
        write_atomically(self._path(chunk, "part"), b"", flush=False)

    def close(self) -> None:
        """Remove the folder; all results are in the journal."""
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    # All processes.

    def offered(self, group: str, identity: Mapping[str, Any]) -> tuple[int, ...] | None:
        """Return the chunks that a group may measure; () after the run, None before `open`.

        Raises:
            FssbenchError: the first process has another identity of the run.
        """
        if (self.run / RECORD_FILE).exists():
            return ()
        try:
            plan = json.loads((self.folder / _PLAN).read_bytes())
        except (OSError, ValueError):
            return None
        if plan["group"] != group:
            return None
        if plan["identity"] != json.loads(json.dumps(identity)):
            raise FssbenchError(
                f"{self.run}: code, images or versions changed after the first process read them; "
                "this process measures nothing"
            )
        return tuple(plan["chunks"])

    def done(self, chunk: int) -> bool:
        """Return True if a process has measured a chunk."""
        return self._path(chunk, "part").exists() or (self.run / RECORD_FILE).exists()

    def claim(self, chunk: int) -> bool:
        """Lock a chunk for this process; False if another process measures it or has measured it.

        Raises:
            FssbenchError: the file system of the folder has no locks, or is not writable.
        """
        self._before_claim()
        if chunk in self._claims:
            return True
        if self.done(chunk):
            return False
        lock = Lock(self._path(chunk, "lock"), markers=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except LockedError:
            return False
        except OSError as error:
            raise FssbenchError(
                f"{self.folder}: cannot lock a file here: {error}; choose an --out whose file "
                "system knows flock, or evaluate with one process"
            ) from error
        if self.done(chunk):  # between the first check and the lock
            lock.release()
            return False
        self._claims[chunk] = lock
        return True

    def put(self, result: ChunkResult) -> None:
        """Write the result of a locked chunk for the first process, and release the chunk."""
        if not (self.run / RECORD_FILE).exists():
            write_atomically(self._path(result.chunk, "part"), result.to_bytes(), flush=False)
        self.release(result.chunk)

    def release(self, chunk: int | None = None) -> None:
        """Release one locked chunk, or all of them."""
        for each in list(self._claims) if chunk is None else [chunk]:
            self._claims.pop(each).release()

    def _result(self, chunk: int, chunks: Mapping[int, Sequence[Episode]]) -> ChunkResult | None:
        path = self._path(chunk, "part")
        try:
            data = path.read_bytes()
            return ChunkResult.from_bytes(data, chunks) if data else None
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("%s: %s; its episodes are measured again", path, error)
            path.unlink(missing_ok=True)
            return None

    def _path(self, chunk: int, kind: str) -> Path:
        return self.folder / f"{chunk:06d}.{kind}"


def shared_order(chunks: Sequence[int], rank: int, count: int) -> list[int]:
    """Return the order in which one of several processes tries to lock chunks.

    It starts with its own section, in order, because neighbouring chunks share images. Then it
    takes the sections of the others in reverse, so that it shares images with their owners only at
    the end.
    """
    bounds = [n * len(chunks) // count for n in range(count + 1)]
    sections = [list(chunks[a:b]) for a, b in itertools.pairwise(bounds)]
    others = [*sections[rank + 1 :], *sections[:rank]]
    return [*sections[rank], *(chunk for section in others for chunk in reversed(section))]
