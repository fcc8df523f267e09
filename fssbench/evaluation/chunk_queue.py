"""Chunks of a run that several processes take, one at a time each, through files.

Why files with locks, and no collective (gloo, NCCL)? A collective ties processes together: when one
dies, the others hang or fail, and what they had computed is gone. Here they share nothing but a
folder. A process claims a chunk by locking a file; the operating system gives the lock back when
the process ends, however it ends, so a chunk of one that was killed is free again at once, and
somebody else takes it. What was measured before is in files of its own and stays.

It works for any number of processes on one machine. On several machines the folder must lie on a
file system whose `flock` all of them see: NFS of version 4 (Linux; the lock of a machine that
vanished is free when its lease ends, 90 s by default), Lustre mounted with ``flock``, CephFS, GPFS,
BeeGFS with ``tuneUseGlobalFileLocks``. Where locks are seen only on their own machine, two machines
may measure the same chunk: time is lost, rows are not wrong, for a chunk's rows are the same
whoever measures it, and only the first part of each chunk is taken.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import filelock

from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.files import write_atomically
from fssbench.results.record import RECORD_FILE

FOLDER = ".parts"
_PLAN = "plan.json"

log = logging.getLogger(__name__)


class ChunkQueue:
    """The folder of claims and parts inside of a run directory.

    One process, the first, holds the run directory, opens the hand-out, takes the parts of all and
    closes it. The others claim chunks and leave parts.

    Args:
        run: the run directory.
        before_claim: called before each claim, and may raise.
    """

    def __init__(self, run: Path, before_claim: Callable[[], None] = lambda: None) -> None:
        self.run = run
        self._before_claim = before_claim
        self.folder = run / FOLDER
        self._claims: dict[int, filelock.BaseFileLock] = {}

    # The first process.

    def parts(self, chunks: Mapping[int, Sequence[Episode]]) -> list[ChunkResult]:
        """Parts of these chunks that lie here and are not marked as written down."""
        if not self.folder.is_dir():
            return []
        found = [self._part(chunk, episodes) for chunk, episodes in chunks.items()]
        return [part for part in found if part is not None]

    def open(self, group: str, chunks: Sequence[int]) -> None:
        """Offer chunks to the processes of a group."""
        for chunk in chunks:  # marks and damaged parts of an earlier run
            self._path(chunk, "part").unlink(missing_ok=True)
        plan = json.dumps({"group": group, "chunks": list(chunks)})
        write_atomically(self.folder / _PLAN, plan.encode(), flush=False)

    def mark(self, chunk: int) -> None:
        """Say that a chunk is written down: an empty part."""
        write_atomically(self._path(chunk, "part"), b"", flush=False)

    def close(self) -> None:
        """Everything is written down."""
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    # All processes.

    def offered(self, group: str) -> tuple[int, ...] | None:
        """Chunks that the first process of a group offers; () when all is done, None not yet."""
        if (self.run / RECORD_FILE).exists():
            return ()
        try:
            plan = json.loads((self.folder / _PLAN).read_bytes())
        except (OSError, ValueError):
            return None
        return tuple(plan["chunks"]) if plan["group"] == group else None

    def done(self, chunk: int) -> bool:
        """Whether somebody measured it."""
        return self._path(chunk, "part").exists() or (self.run / RECORD_FILE).exists()

    def claim(self, chunk: int) -> bool:
        """Try to get a chunk for this process alone; False when another is at it, or was.

        Raises:
            FssbenchError: the folder's file system knows no locks, or cannot be written.
        """
        self._before_claim()
        if chunk in self._claims:
            return True
        if self.done(chunk):
            return False
        lock = filelock.FileLock(self._path(chunk, "lock"), blocking=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise FssbenchError(
                f"{self.folder}: cannot lock a file here: {error}; choose an --out whose file "
                "system knows flock, or evaluate with one process"
            ) from error
        if self.done(chunk):  # while we looked
            lock.release()
            return False
        self._claims[chunk] = lock
        return True

    def leave(self, part: ChunkResult) -> None:
        """Hand a claimed chunk's part to the first process."""
        if not (self.run / RECORD_FILE).exists():
            write_atomically(self._path(part.chunk, "part"), part.to_bytes(), flush=False)
        self.release(part.chunk)

    def release(self, chunk: int | None = None) -> None:
        """Give a claim back, or all of them."""
        for each in list(self._claims) if chunk is None else [chunk]:
            self._claims.pop(each).release()

    def _part(self, chunk: int, episodes: Sequence[Episode]) -> ChunkResult | None:
        path = self._path(chunk, "part")
        try:
            data = path.read_bytes()
            return ChunkResult.from_bytes(data, episodes) if data else None
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, FssbenchError) as error:
            log.warning("%s: damaged (%s); its episodes are done again", path, error)
            path.unlink(missing_ok=True)
            return None

    def _path(self, chunk: int, kind: str) -> Path:
        return self.folder / f"{chunk:06d}.{kind}"


def shared_order(chunks: Sequence[int], rank: int, count: int) -> list[int]:
    """In which order one of several processes tries to claim chunks.

    First its own stretch, forwards, because neighbours share images; then the others' stretches,
    backwards, so that whoever is done early meets the owner at the end of what is left.
    """
    bounds = [place * len(chunks) // count for place in range(count + 1)]
    stretches = [list(chunks[a:b]) for a, b in itertools.pairwise(bounds)]
    order = stretches[rank]
    for step in range(1, count):
        order = order + stretches[(rank + step) % count][::-1]
    return order
